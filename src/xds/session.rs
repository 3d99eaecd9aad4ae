//! What one client asked for, holds, and was last told: the state of one stream.
//!
//! Pure: no socket, no channel, no await; the time is an argument. Requests come in through `sotw` or `delta`, what
//! may go out is decided in `schedule`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use litemap::LiteMap;

use super::delivery::{Delivery, Outcome, Proofs, bounded};
use super::held::{Accepted, Held, TypeState};
use super::staging::{Staging, is_staging};
use super::subscription::{Changed, Subscription};
use super::type_set::TypeSet;
use crate::model::EnvoyVersion;
use crate::snapshot::{Resource, ResourceType, STAGING, Snapshot, Version};

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
    pub removed: Vec<Arc<str>>,
    pub(super) sent_at: Instant,
    /// ECDS, state of the world: something that `version_info` counts was refused since.
    pub(super) counts_refused: bool,
}

/// What a request or a new snapshot leads to.
#[derive(Debug, Default)]
pub struct Reaction {
    pub responses: Vec<Response>,
    pub deliveries: Vec<Delivery>,
    /// ECDS names that nothing stands behind: malformed, of a foreign namespace, or of a plugin without module.
    pub unanswered: Vec<String>,
    /// Why modules travel inline from now on, where that has just turned out.
    pub fell_back: Option<&'static str>,
    /// Why a module cannot be fetched that has to be, where that has just turned out; empty where it can be again.
    pub stuck: Option<&'static str>,
    /// When to ask again although nothing happened.
    pub wake_at: Option<Instant>,
}

/// Names beyond which all are put in order at once: each that goes between others moves those behind it.
const ADDED_ONE_BY_ONE: usize = 16;

/// One stream's view of its client.
#[derive(Debug)]
pub struct Session {
    pub(super) protocol: Protocol,
    pub(super) build: Option<EnvoyVersion>,
    pub(super) proofs: Arc<Proofs>,
    pub(super) limits: Limits,
    pub(super) types: LiteMap<ResourceType, Box<TypeState>>,
    /// ECDS names that a listener of this stream has used: they keep their content until Envoy unsubscribes.
    pub(super) named: BTreeSet<Arc<str>>,
    /// How long a cluster, route, endpoint or ECDS name stays for the sake of connections that may still use it.
    pub(super) spared_until: BTreeMap<(ResourceType, Arc<str>), Instant>,
    pub(super) staging: Staging,
    /// Types that may have something due. For the others all that the snapshot asks for was sent, and only what is about
    /// them can change that.
    pub(super) unsettled: TypeSet,
    /// Every ECDS name that is asked for was known to the snapshot when it was last looked at, and what is held of each was,
    /// too: a new snapshot can give something to do only for the names that it has changed.
    pub(super) has_only_known_extensions: bool,
    next_nonce: u64,
}

impl Session {
    pub fn new(protocol: Protocol, build: Option<EnvoyVersion>, proofs: Arc<Proofs>, limits: Limits) -> Self {
        Self {
            protocol,
            build,
            proofs,
            limits,
            types: LiteMap::new(),
            named: BTreeSet::new(),
            spared_until: BTreeMap::new(),
            staging: Staging::default(),
            unsettled: TypeSet::ALL,
            has_only_known_extensions: false,
            next_nonce: 1,
        }
    }

    /// What the module server knows this client by.
    pub fn identify(&mut self, token: u64) {
        self.staging.identify(token);
    }

    /// A snapshot has taken the place of `before`, by which the client was served until now: what both say is not looked
    /// at again. Almost every change is one of ECDS alone.
    pub fn on_snapshot(&mut self, before: Option<&Snapshot>, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        let pair = before.zip(snapshot);
        for resource_type in ResourceType::ALL.into_iter().filter(|it| *it != ResourceType::ExtensionConfig) {
            if pair.is_none_or(|(before, snapshot)| !snapshot.has_same(resource_type, before)) {
                self.unsettled.insert(resource_type);
            }
        }
        let changed = pair.and_then(|(before, snapshot)| self.changed_extensions(before, snapshot));
        if changed.is_none() {
            self.unsettled.insert(ResourceType::ExtensionConfig);
        }
        let mut reaction = Reaction::default();
        self.schedule(snapshot, changed.as_deref().unwrap_or_default(), now, &mut reaction);
        reaction
    }

    /// The time has come that was asked for.
    pub fn on_wake(&mut self, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        let mut reaction = Reaction::default();
        self.schedule(snapshot, &[], now, &mut reaction);
        reaction
    }

    /// Opens the state of a type, at its first request on this stream.
    pub(super) fn open(&mut self, resource_type: ResourceType, names: &[String], claimed: Option<Version>) {
        let permits_wildcard = matches!(resource_type, ResourceType::Listener | ResourceType::Cluster);
        let mut subscription = Subscription::open(names, permits_wildcard, &self.named);
        if resource_type == ResourceType::ExtensionConfig {
            // ECDS names cannot be enumerated.
            subscription.is_wildcard = false;
        }
        let state = TypeState {
            owes_answer: subscription.is_wildcard && claimed.is_none(),
            subscription,
            // Most hold one of each type.
            held: LiteMap::with_capacity(1),
            in_flight: Vec::new(),
            last_nonce: 0,
            claimed,
            has_unknown_set: false,
            told_missing: BTreeSet::new(),
            sent: None,
            retry: None,
        };
        self.types.insert(resource_type, Box::new(state));
        self.unsettled = TypeSet::ALL;
    }

    /// What the client asks for; `None` before its first request of the type.
    pub(super) fn subscription(&self, resource_type: ResourceType) -> Option<&Subscription> {
        self.types.get(&resource_type).map(|state| &state.subscription)
    }

    /// Applies a change of subscription to what the client is believed to hold.
    pub(super) fn resubscribe(&mut self, resource_type: ResourceType, changed: Changed) {
        if changed.is_nothing() {
            return;
        }
        self.unsettle(resource_type);
        let asked_at = self.next_nonce;
        let Some(state) = self.types.get_mut(&resource_type) else { return };
        if resource_type == ResourceType::ExtensionConfig {
            // ECDS names cannot be enumerated.
            state.subscription.is_wildcard = false;
            self.named.retain(|name| !changed.dropped.contains(name));
        }
        if !changed.asked.is_empty() {
            state.retry = None;
        }
        let asked = changed.asked.into_iter().map(|name| {
            state.told_missing.remove(&name);
            // It may hold it still, and has to be told if it is gone; an Envoy that asks for ECDS again has nothing.
            let accepted = state.held.get_mut(&name).and_then(|held| held.accepted.take());
            let accepted = accepted.filter(|_| resource_type != ResourceType::ExtensionConfig);
            let accepted = accepted.map(|accepted| Accepted { is_certain: false, ..accepted });
            (name, Box::new(Held { accepted, asked_at, ..Held::default() }))
        });
        match asked.collect::<Vec<_>>() {
            few if few.len() <= ADDED_ONE_BY_ONE => few.into_iter().for_each(|(name, held)| {
                state.held.insert(name, held);
            }),
            many => state.held.extend(many),
        }
        for name in &changed.dropped {
            state.told_missing.remove(name);
        }
        // Dropped by name, or with the wildcard.
        state.held.retain(|name, _| state.subscription.covers(name));
    }

    /// Takes the answered response out of flight. `None` for a nonce that is unknown or was answered before.
    pub(super) fn answered(&mut self, resource_type: ResourceType, nonce: u64) -> Option<Response> {
        let in_flight = &mut self.types.get_mut(&resource_type)?.in_flight;
        let position = in_flight.iter().position(|response| response.nonce == nonce)?;
        let response = in_flight.remove(position);
        if in_flight.is_empty() {
            // A start fills it with a response per plugin, and nothing else does.
            in_flight.shrink_to(1);
        }
        Some(response)
    }

    pub(super) fn acknowledge(&mut self, response: Response, now: Instant) -> Vec<Delivery> {
        if is_staging(&response) {
            self.staging_answered(&response, true, now);
        }
        let Some(state) = self.types.get_mut(&response.resource_type) else { return Vec::new() };
        let replaced = match self.protocol {
            Protocol::Sotw => state.give_up_missing(&response),
            Protocol::Delta => state.give_up_removed(&response),
        };
        let (accepted, updated) = state.accept(&response);
        // That of an ECDS resource gives nothing to do, mostly.
        let is_plain = accepted.len() == response.resources.len() && !state.owes_answer;
        if response.resource_type != ResourceType::ExtensionConfig || !is_plain {
            self.unsettle(response.resource_type);
        }
        self.spared_until.retain(|_, until| now < *until);
        for old in replaced.into_iter().chain(updated) {
            let used = old.references.iter().filter(|(used_type, _)| *used_type != ResourceType::ExtensionConfig);
            self.spared_until.extend(used.map(|key| (key.clone(), now + self.limits.drain)));
        }
        for resource in &accepted {
            self.proofs.record(self.build, resource);
        }
        // The name of attempts is also that of a listener.
        let is_told = |resource: &Arc<Resource>| {
            resource.resource_type != ResourceType::ExtensionConfig || &*resource.name != STAGING
        };
        let deliver = |resource| Delivery { resource, outcome: Outcome::Accepted };
        accepted.into_iter().filter(is_told).map(deliver).collect()
    }

    pub(super) fn refuse(&mut self, response: Response, message: &str, now: Instant) -> Vec<Delivery> {
        self.unsettle(response.resource_type);
        let Some(state) = self.types.get_mut(&response.resource_type) else { return Vec::new() };
        if is_staging(&response) {
            self.staging_answered(&response, false, now);
            self.types.entry(ResourceType::ExtensionConfig).and_modify(|state| drop(state.refuse_extension(response)));
            return Vec::new();
        }
        let is_in_doubt = |resource: &Arc<Resource>| self.staging.doubts(resource, now);
        if response.resources.iter().any(is_in_doubt) && state.put_back(&response) {
            return Vec::new();
        }
        let refused = match response.resource_type {
            ResourceType::ExtensionConfig => state.refuse_extension(response),
            _ => state.refuse_set(response, now),
        };
        let message: Arc<str> = bounded(message).into();
        let deliver = |resource| Delivery { resource, outcome: Outcome::Refused { message: message.clone() } };
        refused.into_iter().map(deliver).collect()
    }

    /// Something was said about a type. Clusters, routes and endpoints stay for the sake of what others name, and listeners
    /// wait for clusters; nothing but listeners that are unsettled themselves waits for ECDS.
    pub(super) fn unsettle(&mut self, resource_type: ResourceType) {
        match resource_type {
            ResourceType::ExtensionConfig => self.unsettled.insert(resource_type),
            _ => self.unsettled = TypeSet::ALL,
        }
    }

    pub(super) fn take_nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce - 1
    }
}
