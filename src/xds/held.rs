//! What one client holds of one type, and how its answers change that.
//!
//! Pure. Responses come in, answered; what the client accepted, gave up or refused goes out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use litemap::LiteMap;

use super::session::Response;
use super::subscription::Subscription;
use crate::snapshot::{Resource, ResourceType, Version};

/// What is known of one type on one stream.
#[derive(Debug)]
pub(super) struct TypeState {
    pub subscription: Subscription,
    /// A list, as most clients hold one or two. Names that clients choose are added and removed many at a time.
    pub held: LiteMap<Arc<str>, Box<Held>>,
    /// Responses without an answer, oldest first.
    pub in_flight: Vec<Response>,
    pub last_nonce: u64,
    /// State of the world: the version that a reconnecting client says it holds, until it is compared.
    pub claimed: Option<Version>,
    /// To be answered even with nothing: a first subscription, so that the client can finish its start; a refused set, as
    /// all may have left it; or (ECDS, state of the world) a client that would say a false version when it comes back.
    pub owes_answer: bool,
    /// State of the world: the client came back with a set that is not the one to send, and has taken none since.
    pub has_unknown_set: bool,
    /// Names that do not exist and were said so: to the client (delta), or in the log (ECDS).
    pub told_missing: BTreeSet<Arc<str>>,
    /// The set that was last sent; not for ECDS, which has no sets.
    pub sent: Option<Version>,
    /// When `sent` is tried again after its refusal; a different set does not wait.
    pub retry: Option<Retry>,
}

/// What a client holds under one name.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub accepted: Option<Accepted>,
    /// ECDS: versions that the client refused; not sent again. Bounded, the oldest are forgotten.
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
    /// False where the client may hold this or nothing (it has asked again), or this or what it has just refused.
    pub is_certain: bool,
}

/// When refused listeners, clusters, routes or endpoints are tried again: it may have been transient (a port in use).
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub at: Instant,
    pub delay: Duration,
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(300);
/// Enough to outlast any sensible sequence of edits; past it, a refusal costs one more NACK.
const REFUSED_VERSIONS: usize = 16;

impl TypeState {
    /// Whether a response that holds this name is without an answer.
    pub fn is_in_flight(&self, name: &str) -> bool {
        self.in_flight.iter().any(|response| response.resources.iter().any(|resource| &*resource.name == name))
    }

    /// Whether the client came back with something under this name that is not known here.
    pub fn may_hold_more(&self, name: &str) -> bool {
        let accepted = self.held.get(name).and_then(|held| held.accepted.as_ref());
        accepted.is_some_and(|accepted| accepted.resource.is_none())
    }

    /// The accepted resources whose content is known.
    pub fn accepted(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.held.values().filter_map(|held| held.accepted.as_ref()?.resource.as_ref())
    }

    /// Whether the client came back with something that this process has not found yet.
    pub fn has_unknown(&self) -> bool {
        let accepted = self.held.values().filter_map(|held| held.accepted.as_ref());
        self.claimed.is_some() || accepted.into_iter().any(|accepted| accepted.resource.is_none())
    }

    /// Records an ACK; returns what the client has accepted by it, and what it gave up for that.
    pub fn accept(&mut self, response: &Response) -> (Vec<Arc<Resource>>, Vec<Arc<Resource>>) {
        self.has_unknown_set = false;
        let (mut accepted, mut replaced) = (Vec::new(), Vec::new());
        for resource in &response.resources {
            // An Envoy acknowledges and ignores what it has unsubscribed from: that proves nothing.
            if !self.subscription.covers(&resource.name) {
                continue;
            }
            let held = self.held.entry(resource.name.clone()).or_default();
            if !is_extension(resource) && held.holds(&resource.version) {
                continue;
            }
            held.refused.retain(|version| *version != resource.version);
            // A client that asked again after this was sent may have forgotten it since.
            let is_certain = response.nonce >= held.asked_at;
            let now_held = Accepted { version: resource.version.clone(), resource: Some(resource.clone()), is_certain };
            let old = held.accepted.replace(now_held).filter(|old| old.version != resource.version);
            replaced.extend(old.and_then(|old| old.resource));
            accepted.extend(is_certain.then(|| resource.clone()));
        }
        if response.resource_type == ResourceType::ExtensionConfig {
            self.owes_answer = response.counts_refused;
        }
        (accepted, replaced)
    }

    /// State of the world: what a complete set lacks is gone.
    pub fn give_up_missing(&mut self, response: &Response) -> Vec<Arc<Resource>> {
        if !self.subscription.is_wildcard {
            return Vec::new();
        }
        let names: BTreeSet<&str> = response.resources.iter().map(|resource| &*resource.name).collect();
        self.give_up(|name| !names.contains(name))
    }

    /// Delta: what was removed is gone.
    pub fn give_up_removed(&mut self, response: &Response) -> Vec<Arc<Resource>> {
        if response.removed.is_empty() && self.told_missing.is_empty() {
            return Vec::new();
        }
        let names: BTreeSet<&str> = response.removed.iter().map(|name| &**name).collect();
        self.told_missing.retain(|name| self.subscription.names.contains(name));
        self.give_up(|name| names.contains(name))
    }

    /// Forgets these names, in one go as they may be many; returns what was accepted under them.
    fn give_up(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<Resource>> {
        let mut gone = Vec::new();
        for (_, held) in self.held.iter_mut().filter(|(name, _)| is_gone(name)) {
            gone.extend(held.accepted.take().and_then(|accepted| accepted.resource));
        }
        self.held.retain(|name, _| !is_gone(name));
        gone
    }

    /// Records the NACK of an ECDS resource; returns it.
    pub fn refuse_extension(&mut self, response: Response) -> Vec<Arc<Resource>> {
        let later = self.in_flight.iter_mut().filter(|later| later.nonce > response.nonce);
        later.for_each(|later| later.counts_refused = true);
        for resource in response.resources.iter().filter(|resource| self.subscription.covers(&resource.name)) {
            self.held.entry(resource.name.clone()).or_default().refuse(resource);
        }
        response.resources
    }

    /// ECDS: the NACK may come of what the client has forgotten. What it runs is sent again at once, as after a refusal,
    /// and then this once more. False where there is nothing to send before, so that it would be acknowledged falsely.
    pub fn put_back(&mut self, response: &Response) -> bool {
        let [resource] = &response.resources[..] else { return false };
        let Some(held) = self.held.get_mut(&resource.name) else { return false };
        held.roll_back = match &held.accepted {
            Some(accepted) => accepted.resource.clone(),
            None => resource.stand_in.clone(),
        };
        let is_put_back = held.roll_back.is_some();
        let later = self.in_flight.iter_mut().filter(|later| is_put_back && later.nonce > response.nonce);
        later.for_each(|later| later.counts_refused = true);
        is_put_back
    }

    /// Records the NACK of listeners, clusters, routes or endpoints; returns those that the client did not hold before.
    /// Any of them may be the bad one, and the others may have been applied.
    pub fn refuse_set(&mut self, response: Response, now: Instant) -> Vec<Arc<Resource>> {
        let delay = self.retry.map_or(RETRY_FIRST, |retry| (retry.delay * 2).min(RETRY_LAST));
        self.retry = Some(Retry { at: now + delay, delay });
        self.owes_answer |= self.subscription.is_wildcard;
        let mut refused = response.resources;
        refused.retain(|resource| !self.held.get(&resource.name).is_some_and(|held| held.holds(&resource.version)));
        for resource in refused.iter().filter(|resource| self.subscription.covers(&resource.name)) {
            let held = self.held.entry(resource.name.clone()).or_default();
            let maybe =
                Accepted { version: resource.version.clone(), resource: Some(resource.clone()), is_certain: false };
            held.accepted.get_or_insert(maybe).is_certain = false;
        }
        refused
    }
}

fn is_extension(resource: &Resource) -> bool {
    resource.resource_type == ResourceType::ExtensionConfig
}

impl Held {
    /// Whether the client is known to hold exactly this version.
    pub fn holds(&self, version: &Version) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.is_certain && accepted.version == *version)
    }

    /// ECDS: remembers the refusal, and plans the way back: the last accepted bytes, or the stand-in where there are
    /// none. What was refused itself is not sent again.
    fn refuse(&mut self, resource: &Resource) {
        if self.refused.len() == REFUSED_VERSIONS {
            self.refused.remove(0);
        }
        self.refused.push(resource.version.clone());
        let last_good = match &mut self.accepted {
            Some(Accepted { resource: Some(accepted), .. }) => Some(accepted.clone()),
            Some(unknown) => {
                // Bytes that this process never saw: to be sent as soon as it has them.
                unknown.is_certain = false;
                None
            }
            None => resource.stand_in.clone(),
        };
        self.roll_back = last_good.filter(|resource| !self.refused.contains(&resource.version));
    }
}
