//! Modules by digest: nothing in the traffic's way names a module before the client has accepted it under the name
//! [`STAGING`] (design, section 5, rules 13 and 14).
//!
//! Pure, as the session that it belongs to. A refusal there is a miss, upon which Envoy fetches the module; the next
//! attempt then finds it in the code cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetch::{AFTER_FETCH, Fetch, Verdict};
use super::schedule::{Target, extension_names};
use super::session::{Reaction, Response, Session};
use super::transfers::{Transfer, Transfers};
use crate::model::Digest;
use crate::snapshot::{Attempt, Extension, Resource, ResourceType, STAGING, Snapshot, Version};

/// Envoy's code cache forgets what was not used for 24 h.
const HELD_FOR: Duration = Duration::from_secs(12 * 3600);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A refusal in the traffic's way within this time of the proof cannot be a miss.
const CERTAIN_FOR: Duration = Duration::from_secs(600);

/// How long a client may take from the staging listener to asking for what it names. Envoy asks before it acknowledges.
const ASKS_WITHIN: Duration = Duration::from_secs(1);

/// What is known of the client's code cache, and what is done to fill it.
#[derive(Debug, Default)]
pub(super) struct Staging {
    token: u64,
    /// Modules that the client has shown to hold.
    held: BTreeMap<Digest, Proof>,
    /// Modules of what was refused and is sent once more. The next proof counts, however weak.
    doubted: BTreeSet<Digest>,
    fetches: BTreeMap<Digest, Fetch>,
    /// What the name holds, or is about to: it stays until the traffic's filter has taken the VM over.
    showing: Option<(Attempt, Arc<Resource>)>,
    attempts: u32,
    transfers: Transfers,
    /// Modules that this stream was sent inline as they could not be fetched first: to be fetched when nothing warms.
    owed: BTreeSet<Digest>,
    /// Listeners wait for modules that their filters need.
    holds_listeners: bool,
    /// Since when the client could have asked for the name.
    unasked_since: Option<Instant>,
    has_fallen_back: bool,
    /// Why a module that waits cannot be fetched, as it was last reported; empty where nothing is wrong.
    stuck: &'static str,
}

/// How it is known that the client holds a module.
#[derive(Clone, Copy, Debug)]
struct Proof {
    since: Instant,
    /// It was accepted, or fetched and then refused without a fetch.
    is_strong: bool,
}

impl Proof {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.since + HELD_FOR
    }
}

impl Staging {
    /// Names the stream to the module server.
    pub fn identify(&mut self, token: u64) {
        self.token = token;
    }

    fn holds(&self, digest: &Digest, now: Instant) -> bool {
        self.held.get(digest).is_some_and(|proof| proof.is_fresh(now))
    }

    pub fn holds_all(&self, resource: &Resource, now: Instant) -> bool {
        resource.fetched.iter().all(|digest| self.holds(digest, now))
    }

    /// Whether a refusal of this resource may come from a module that the code cache has lost. What is known of it is
    /// then forgotten.
    pub fn doubts(&mut self, resource: &Resource, now: Instant) -> bool {
        let is_certain = |digest: &Digest| {
            self.held.get(digest).is_some_and(|proof| proof.is_strong && now < proof.since + CERTAIN_FOR)
        };
        let is_in_doubt = !resource.fetched.iter().all(is_certain);
        if is_in_doubt {
            self.held.retain(|digest, _| !resource.fetched.contains(digest));
            self.doubted.extend(resource.fetched.iter().copied());
        }
        is_in_doubt
    }

    fn prove(&mut self, digest: Digest, is_strong: bool, now: Instant) {
        let is_strong = self.doubted.remove(&digest) || is_strong;
        self.held.retain(|_, proof| now < proof.since + FORGOTTEN_AFTER);
        self.held.insert(digest, Proof { since: now, is_strong });
        self.fetches.remove(&digest);
    }

    pub fn holds_listeners(&self) -> bool {
        self.holds_listeners
    }

    /// The client has accepted a resource of this version under the name.
    fn accepted(&mut self, version: &Version, now: Instant) {
        if let Some((attempt, _)) = self.showing.as_ref().filter(|(_, resource)| resource.version == *version) {
            self.prove(attempt.digest, true, now);
        }
    }

    /// The client has refused a resource of this version under the name.
    fn refused(&mut self, version: &Version, now: Instant) {
        let Some((attempt, _)) = self.showing.take_if(|(_, resource)| resource.version == *version) else { return };
        let transfer = self.transfer(&attempt.digest);
        if let Some(fetch) = self.fetches.get_mut(&attempt.digest) {
            // Its fetch may be over by now.
            fetch.next = now + if fetch.may_hurry(transfer) { AFTER_FETCH } else { fetch.delay() };
            fetch.refusals += 1;
        }
    }

    fn transfer(&self, digest: &Digest) -> Transfer {
        self.transfers.get(digest).copied().unwrap_or_default()
    }
}

impl Session {
    /// Modules travel inline here, whatever the other streams of the proxy do: the staging name is asked for by ADS.
    pub fn stay_inline(&mut self) {
        self.staging.has_fallen_back = true;
    }

    /// Whether what is known of the fetches of this module is done with.
    pub fn is_done_with(&self, digest: &Digest) -> bool {
        !self.staging.fetches.contains_key(digest)
    }

    /// The module server has heard from this client.
    pub fn on_transfers(&mut self, transfers: Transfers, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        for (digest, fetch) in &mut self.staging.fetches {
            if transfers.get(digest).is_some_and(|transfer| fetch.may_hurry(*transfer)) {
                fetch.next = fetch.next.min(now + AFTER_FETCH);
            }
        }
        self.staging.transfers = transfers;
        self.unsettled.insert(ResourceType::ExtensionConfig);
        self.on_wake(snapshot, now)
    }

    /// Whether a response was an attempt: its refusal is a miss, and none that anybody is to be told of.
    pub(super) fn is_attempt(&self, resource_type: ResourceType, nonce: u64) -> bool {
        let in_flight = self.types.get(&resource_type).into_iter().flat_map(|state| &state.in_flight);
        in_flight.filter(|response| response.nonce == nonce).any(is_staging)
    }

    pub(super) fn staging_answered(&mut self, response: &Response, is_accepted: bool, now: Instant) {
        for resource in &response.resources {
            match is_accepted {
                true => self.staging.accepted(&resource.version, now),
                false => self.staging.refused(&resource.version, now),
            }
        }
    }

    /// Whether the client fetches nothing, whatever the snapshot says.
    pub(super) fn carries_inside(&self) -> bool {
        self.staging.has_fallen_back
    }

    /// For a client that fetches nothing: the same with all modules inside.
    pub(super) fn put_inside(&self, target: &mut Target, snapshot: &Snapshot) {
        let named = target.iter_mut().filter(|(_, resource)| !resource.fetched.is_empty());
        for (name, resource) in named.filter(|_| self.staging.has_fallen_back) {
            if let Some(inline) = snapshot.extensions.inline(name) {
                *resource = inline;
            }
        }
    }

    /// A client that came back goes on with what it has where a part is not to be had yet. Where the content of a name
    /// names modules by digest: that, once the client holds them. Before, the same with the modules inside where it has
    /// nothing yet, as its listener waits for it; else it goes on with what it has, and the name is among those that are
    /// returned, with what they are waiting for.
    pub(super) fn hold_back(
        &mut self,
        target: &mut Target,
        snapshot: &Snapshot,
        now: Instant,
    ) -> (BTreeSet<Arc<str>>, BTreeSet<Digest>) {
        let (mut names, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        for (name, resource) in target {
            let state = &self.types[&ResourceType::ExtensionConfig];
            if resource.is_partial && state.may_hold_more(name) {
                names.insert(name.clone());
                continue;
            }
            // What does not differ is held since before this stream, one way or the other.
            if self.staging.holds_all(resource, now) || !state.differs(resource) {
                continue;
            }
            let has_something = state.has_accepted(name) || state.is_in_flight(name);
            if has_something {
                wanted.extend(resource.fetched.iter().filter(|digest| !self.staging.holds(digest, now)));
                names.insert(name.clone());
                continue;
            }
            self.staging.owed.extend(resource.fetched.iter().copied());
            if let Some(inline) = snapshot.extensions.inline(name) {
                *resource = inline;
            }
        }
        (names, wanted)
    }

    /// What the name [`STAGING`] is to hold, so that the client comes to hold what is wanted. `is_settled` is whether
    /// nothing of the traffic's is due or on its way.
    pub(super) fn plan_staging(
        &mut self,
        mut wanted: BTreeSet<Digest>,
        for_listeners: BTreeSet<Digest>,
        is_settled: impl FnOnce(&Self) -> bool,
        snapshot: &Snapshot,
        now: Instant,
        reaction: &mut Reaction,
    ) -> Option<Arc<Resource>> {
        self.staging.holds_listeners = false;
        if self.staging.has_fallen_back {
            return None;
        }
        let is_asked = self.types[&ResourceType::ExtensionConfig].subscription.names.contains(STAGING);
        let Staging { owed, held, .. } = &mut self.staging;
        owed.retain(|digest| !held.get(digest).is_some_and(|proof| proof.is_fresh(now)));
        let is_wanted = !wanted.is_empty() || !self.staging.owed.is_empty() || !for_listeners.is_empty();
        if !is_asked {
            if is_wanted {
                self.await_staging_listener(now, reaction);
            }
            return None;
        }
        self.staging.unasked_since = None;
        self.staging.holds_listeners = !for_listeners.is_empty();
        wanted.extend(for_listeners);
        wanted.extend(self.staging.owed.iter().copied());
        self.staging.fetches.retain(|digest, _| wanted.contains(digest));
        self.staging.doubted.retain(|digest| wanted.contains(digest));
        for digest in wanted {
            let since = self.staging.transfer(&digest);
            let was_held = self.staging.held.contains_key(&digest) || self.staging.doubted.contains(&digest);
            self.staging.fetches.entry(digest).or_insert(Fetch::new(now, since, was_held));
        }
        if !self.staging.fetches.is_empty() {
            self.unsettled.insert(ResourceType::ExtensionConfig);
            self.attempt(snapshot, now, reaction);
        } else if self.staging.showing.is_some() {
            self.unsettled.insert(ResourceType::ExtensionConfig);
            let is_in_flight = self.has_in_flight(ResourceType::Listener);
            if is_settled(self) && !is_in_flight && self.due_listeners(snapshot).next().is_none() {
                self.staging.showing = None;
            }
        }
        self.report_stuck(reaction);
        self.staging.showing.as_ref().map(|(_, resource)| resource.clone())
    }

    /// Says once why what waits cannot be fetched, and once that it can.
    fn report_stuck(&mut self, reaction: &mut Reaction) {
        let stuck = self.staging.fetches.values().find_map(|fetch| fetch.stuck).unwrap_or_default();
        if std::mem::replace(&mut self.staging.stuck, stuck) != stuck {
            reaction.stuck = Some(stuck);
        }
    }

    /// Goes on with the modules whose time has come.
    fn attempt(&mut self, snapshot: &Snapshot, now: Instant, reaction: &mut Reaction) {
        let is_answered = !self.types[&ResourceType::ExtensionConfig].is_in_flight(STAGING);
        if !is_answered || self.is_warming(snapshot) {
            return;
        }
        let mut fetches: Vec<_> = self.staging.fetches.iter().map(|(digest, fetch)| (*digest, *fetch)).collect();
        fetches.sort_by_key(|(_, fetch)| fetch.next);
        for (digest, fetch) in fetches {
            let transfer = self.staging.transfer(&digest);
            if now < fetch.next {
                reaction.wake(fetch.next);
                return;
            }
            let verdict = fetch.verdict(transfer);
            let stuck = match verdict {
                Verdict::FallBack(reason) if self.loses_inline(snapshot) => Some(reason),
                Verdict::FallBack(reason) => return self.fall_back(reason, now, reaction),
                _ => None,
            };
            match verdict {
                Verdict::Wait => {}
                Verdict::Held { is_certain } => {
                    self.staging.prove(digest, is_certain, now);
                    // What waits for it can go.
                    reaction.wake(now);
                }
                Verdict::Attempt | Verdict::FallBack(_) => {
                    self.staging.attempts += 1;
                    let attempt = Attempt { digest, token: self.staging.token, number: self.staging.attempts };
                    let Some(resource) = snapshot.extensions.staged(&attempt) else {
                        // Nothing there is made of it any more.
                        self.staging.owed.remove(&digest);
                        self.staging.fetches.remove(&digest);
                        continue;
                    };
                    if let Some(fetch) = self.staging.fetches.get_mut(&digest) {
                        fetch.tried(transfer, stuck);
                    }
                    self.staging.showing = Some((attempt, resource));
                    return;
                }
            }
        }
    }

    /// From now on, and for the life of this client, modules travel inline.
    fn fall_back(&mut self, reason: &'static str, now: Instant, reaction: &mut Reaction) {
        self.staging = Staging { has_fallen_back: true, ..Staging::default() };
        reaction.fell_back = Some(reason);
        reaction.wake(now);
    }

    /// Whether some plugin that the client runs has no room in its chain once all modules are inside: then it goes on with
    /// what it has until they can be fetched.
    fn loses_inline(&self, snapshot: &Snapshot) -> bool {
        let state = &self.types[&ResourceType::ExtensionConfig];
        let loses = |name: &Arc<str>| {
            let Some(Extension::Known(content)) = snapshot.extensions.resolve(name) else { return false };
            let Some(inline) = snapshot.extensions.inline(name) else { return false };
            let has = |resource: &Resource, owner: &str| resource.parts.iter().any(|part| &*part.owner == owner);
            let runs = |owner: &str| state.content(name).is_none_or(|content| has(content, owner));
            content.parts.iter().any(|part| !has(&inline, &part.owner) && runs(&part.owner))
        };
        state.subscription.names.iter().any(|name| state.has_accepted(name) && loses(name))
    }

    /// Whether a refusal now would open a listener that waits for its configuration, with its default (rule 11).
    fn is_warming(&self, snapshot: &Snapshot) -> bool {
        let extensions = &self.types[&ResourceType::ExtensionConfig];
        let waits = |name: &&Arc<str>| {
            &***name != STAGING && !extensions.has_answered(name) && snapshot.extensions.resolve(name).is_some()
        };
        // Nor is a module fetched before the cluster is there that leads to it.
        self.has_in_flight(ResourceType::Listener)
            || self.has_in_flight(ResourceType::Cluster)
            || extensions.subscription.names.iter().any(|name| waits(&name))
    }

    fn has_in_flight(&self, resource_type: ResourceType) -> bool {
        self.types.get(&resource_type).is_some_and(|state| !state.in_flight.is_empty())
    }

    /// Listeners that are about to be sent.
    fn due_listeners<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Arc<Resource>> {
        let state = self.types.get(&ResourceType::Listener);
        state.into_iter().flat_map(|state| {
            let is_due =
                |listener: &&Arc<Resource>| state.subscription.covers(&listener.name) && state.differs(listener);
            snapshot.listeners.values().filter(is_due)
        })
    }

    /// Modules that the listeners need which are about to be sent: Envoy builds all filters of a listener anew (rule 12).
    pub(super) fn wanted_by_listeners(&self, snapshot: &Snapshot, now: Instant) -> BTreeSet<Digest> {
        let mut wanted = BTreeSet::new();
        for name in self.due_listeners(snapshot).flat_map(|listener| extension_names(listener)) {
            if let Some(Extension::Known(content)) = snapshot.extensions.resolve(name) {
                wanted.extend(content.fetched.iter().filter(|digest| !self.staging.holds(digest, now)));
            }
        }
        wanted
    }

    /// A client without the staging listener, or with one that it does not use, never asks.
    fn await_staging_listener(&mut self, now: Instant, reaction: &mut Reaction) {
        if let Some(listeners) = self.types.get(&ResourceType::Listener)
            && listeners.subscription.covers(STAGING)
            && (!listeners.has_accepted(STAGING) || !listeners.in_flight.is_empty())
        {
            // It may ask yet.
            return;
        }
        let since = *self.staging.unasked_since.get_or_insert(now);
        if now < since + ASKS_WITHIN {
            reaction.wake(since + ASKS_WITHIN);
            self.unsettled.insert(ResourceType::ExtensionConfig);
            return;
        }
        self.fall_back("the proxy has no listener wasmplane/staging to fetch modules through", now, reaction);
    }
}

pub(super) fn is_staging(response: &Response) -> bool {
    response.resource_type == ResourceType::ExtensionConfig && response.resources.iter().any(|it| &*it.name == STAGING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_lives_for_years_remembers_the_modules_of_a_day() {
        let (mut staging, mut now) = (Staging::default(), Instant::now());
        for number in 0..1000u32 {
            staging.prove(Digest::of(&number.to_be_bytes()), true, now);
            now += Duration::from_secs(3600);
        }
        assert_eq!(staging.held.len(), 24);
    }
}
