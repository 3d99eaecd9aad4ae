//! What one client asked for, holds, and was last told: the state of one stream.
//!
//! Pure: no socket, no channel, no await; the time is an argument. Requests come in through `sotw` or `delta`, what
//! may go out is decided in `schedule`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::{Delivery, Outcome, Proofs};
use super::subscription::{Changed, Subscription};
use crate::model::EnvoyVersion;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};

/// Which of the two protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    Delta,
}

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a cluster, route or endpoint stays after the last listener that used it was replaced: Envoy's own
    /// drain time, 600 s by default.
    pub drain: Duration,
    /// Larger answers are split where the protocol allows it.
    pub max_response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { drain: Duration::from_secs(600), max_response_bytes: 4 << 20 }
    }
}

/// One response, not yet encoded.
#[derive(Clone, Debug)]
pub struct Response {
    pub resource_type: ResourceType,
    pub nonce: u64,
    /// State of the world only: the hash of all that the client holds after this response.
    pub version_info: Option<Version>,
    pub resources: Vec<Arc<Resource>>,
    /// Delta only.
    pub removed: Vec<String>,
    pub(super) sent_at: Instant,
}

/// What a request or a new snapshot leads to.
#[derive(Debug, Default)]
pub struct Reaction {
    pub responses: Vec<Response>,
    pub deliveries: Vec<Delivery>,
    /// When to ask again although nothing happened.
    pub wake_at: Option<Instant>,
}

/// One stream's view of its client.
#[derive(Debug)]
pub struct Session {
    pub(super) protocol: Protocol,
    pub(super) build: Option<EnvoyVersion>,
    pub(super) proofs: Arc<Proofs>,
    pub(super) limits: Limits,
    pub(super) types: BTreeMap<ResourceType, TypeState>,
    /// ECDS names that a listener of this stream has used: they keep their content until Envoy unsubscribes.
    pub(super) named: BTreeSet<String>,
    /// How long a cluster, route or endpoint stays for the sake of connections that may still use it.
    pub(super) spared_until: BTreeMap<(ResourceType, String), Instant>,
    next_nonce: u64,
}

/// What is known of one type on one stream.
#[derive(Debug)]
pub(super) struct TypeState {
    pub subscription: Subscription,
    pub held: BTreeMap<String, Held>,
    /// Responses without an answer, oldest first.
    pub in_flight: Vec<Response>,
    pub last_nonce: u64,
    /// State of the world: the version that a reconnecting client says it holds, until it is compared.
    pub claimed: Option<Version>,
    /// A first subscription must be answered even with nothing, so that the client can finish its start.
    pub owes_answer: bool,
    /// Delta: names that the client was told do not exist.
    pub told_missing: BTreeSet<String>,
    pub retry: Option<Retry>,
}

/// What a client holds under one name.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub accepted: Option<Accepted>,
    /// Versions that the client refused; not sent again. Bounded, the oldest are forgotten.
    pub refused: Vec<Version>,
    /// To be sent before anything else: Envoy remembers the hash of what it refused, and would falsely acknowledge
    /// the same bytes later (design, section 5, rule 4).
    pub roll_back: Option<Arc<Resource>>,
    /// Responses with a lower nonce were sent before the client asked for the name again.
    pub asked_at: u64,
}

#[derive(Debug)]
pub(super) struct Accepted {
    pub version: Version,
    /// Absent where a reconnecting client holds something that this process has not.
    pub resource: Option<Arc<Resource>>,
    /// False after a NACK of a response with several resources: the client may have applied any of them.
    pub is_certain: bool,
}

/// When a refused listener, cluster, route or endpoint is tried again: its refusal may be transient (a port in use).
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub at: Instant,
    pub delay: Duration,
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(300);
/// Enough to outlast any sensible sequence of edits; past it, a refusal costs one more NACK.
const REFUSED_VERSIONS: usize = 16;

impl Session {
    pub fn new(protocol: Protocol, build: Option<EnvoyVersion>, proofs: Arc<Proofs>, limits: Limits) -> Self {
        Self {
            protocol,
            build,
            proofs,
            limits,
            types: BTreeMap::new(),
            named: BTreeSet::new(),
            spared_until: BTreeMap::new(),
            next_nonce: 1,
        }
    }

    /// The snapshot has changed, or the time to wake has come.
    pub fn on_snapshot(&mut self, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        let mut reaction = Reaction::default();
        self.schedule(snapshot, now, &mut reaction);
        reaction
    }

    /// Opens the state of a type, at its first request on this stream.
    pub(super) fn open(&mut self, resource_type: ResourceType, names: &[String], claimed: Option<Version>) {
        let permits_wildcard = matches!(resource_type, ResourceType::Listener | ResourceType::Cluster);
        let mut subscription = Subscription::open(names, permits_wildcard);
        if resource_type == ResourceType::ExtensionConfig {
            // ECDS names cannot be enumerated.
            subscription.is_wildcard = false;
        }
        let state = TypeState {
            owes_answer: subscription.is_wildcard && claimed.is_none(),
            subscription,
            held: BTreeMap::new(),
            in_flight: Vec::new(),
            last_nonce: 0,
            claimed,
            told_missing: BTreeSet::new(),
            retry: None,
        };
        self.types.insert(resource_type, state);
    }

    /// Applies a change of subscription to what the client is believed to hold.
    pub(super) fn resubscribe(&mut self, resource_type: ResourceType, changed: Changed) {
        let asked_at = self.next_nonce;
        let Some(state) = self.types.get_mut(&resource_type) else { return };
        for name in changed.asked {
            state.told_missing.remove(&name);
            state.held.insert(name, Held { asked_at, ..Held::default() });
        }
        for name in changed.dropped {
            state.told_missing.remove(&name);
            state.held.remove(&name);
            if resource_type == ResourceType::ExtensionConfig {
                self.named.remove(&name);
            }
        }
    }

    /// Takes the answered response out of flight. `None` for a nonce that is unknown or was answered before.
    pub(super) fn answered(&mut self, resource_type: ResourceType, nonce: u64) -> Option<Response> {
        let in_flight = &mut self.types.get_mut(&resource_type)?.in_flight;
        let position = in_flight.iter().position(|response| response.nonce == nonce)?;
        Some(in_flight.remove(position))
    }

    pub(super) fn acknowledge(&mut self, response: Response, now: Instant) -> Vec<Delivery> {
        let resource_type = response.resource_type;
        let is_set = self.protocol == Protocol::Sotw && resource_type != ResourceType::ExtensionConfig;
        let replaced = self.types.get_mut(&resource_type).map(|state| state.accept(&response, is_set));
        for old in replaced.unwrap_or_default() {
            let used = old.references.iter().filter(|(used_type, _)| *used_type != ResourceType::ExtensionConfig);
            self.spared_until.extend(used.map(|key| (key.clone(), now + self.limits.drain)));
        }
        for resource in &response.resources {
            self.proofs.record(self.build, resource);
        }
        let deliver = |resource| Delivery { resource, outcome: Outcome::Accepted };
        response.resources.into_iter().map(deliver).collect()
    }

    pub(super) fn refuse(&mut self, response: Response, message: &str, now: Instant) -> Vec<Delivery> {
        if let Some(state) = self.types.get_mut(&response.resource_type) {
            state.refuse(&response, now);
        }
        let deliver = |resource| Delivery { resource, outcome: Outcome::Refused { message: message.to_owned() } };
        response.resources.into_iter().map(deliver).collect()
    }

    pub(super) fn take_nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce - 1
    }
}

impl TypeState {
    /// Whether a response that holds this name is without an answer.
    pub fn is_in_flight(&self, name: &str) -> bool {
        self.in_flight.iter().any(|response| response.resources.iter().any(|resource| resource.name == name))
    }

    /// The accepted resources whose content is known.
    pub fn accepted(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.held.values().filter_map(|held| held.accepted.as_ref()?.resource.as_ref())
    }

    /// Records an ACK; returns the resources that the client gave up for it.
    fn accept(&mut self, response: &Response, is_set: bool) -> Vec<Arc<Resource>> {
        let mut replaced = Vec::new();
        for resource in &response.resources {
            if !self.subscription.covers(&resource.name) {
                continue;
            }
            let held = self.held.entry(resource.name.clone()).or_default();
            if response.nonce < held.asked_at {
                continue;
            }
            held.refused.retain(|version| *version != resource.version);
            let accepted =
                Accepted { version: resource.version.clone(), resource: Some(resource.clone()), is_certain: true };
            replaced.extend(held.accepted.replace(accepted).and_then(|old| old.resource));
        }
        let is_gone = |name: &String| {
            if is_set && self.subscription.is_wildcard {
                !response.resources.iter().any(|resource| resource.name == *name)
            } else {
                response.removed.contains(name)
            }
        };
        let gone: Vec<_> = self.held.keys().filter(|name| is_gone(name)).cloned().collect();
        for name in gone {
            replaced.extend(self.held.remove(&name).and_then(|held| held.accepted?.resource));
        }
        self.retry = None;
        replaced
    }

    fn refuse(&mut self, response: &Response, now: Instant) {
        let is_extension = response.resource_type == ResourceType::ExtensionConfig;
        for resource in &response.resources {
            if !self.subscription.covers(&resource.name) {
                continue;
            }
            let held = self.held.entry(resource.name.clone()).or_default();
            held.remember_refusal(&resource.version);
            if is_extension {
                held.plan_roll_back(resource);
            } else if let Some(accepted) = &mut held.accepted {
                accepted.is_certain = false;
            }
        }
        if !is_extension {
            let delay = self.retry.map_or(RETRY_FIRST, |retry| (retry.delay * 2).min(RETRY_LAST));
            self.retry = Some(Retry { at: now + delay, delay });
        }
    }
}

impl Held {
    pub fn has_refused(&self, version: &Version) -> bool {
        self.refused.contains(version)
    }

    /// Whether the client is known to hold exactly this version.
    pub fn holds(&self, version: &Version) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.is_certain && accepted.version == *version)
    }

    fn remember_refusal(&mut self, version: &Version) {
        if self.refused.len() == REFUSED_VERSIONS {
            self.refused.remove(0);
        }
        self.refused.push(version.clone());
    }

    /// The last accepted bytes, or the stand-in where there are none. Where the client holds bytes that this process
    /// never saw, or refused the roll-back itself, there is nothing better than what it has.
    fn plan_roll_back(&mut self, refused: &Resource) {
        let last_good = match &self.accepted {
            Some(accepted) => accepted.resource.clone(),
            None => refused.stand_in.clone(),
        };
        self.roll_back = last_good.filter(|resource| !self.refused.contains(&resource.version));
    }
}
