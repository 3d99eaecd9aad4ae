//! What may be sent now: the order in which a change reaches a client without harm (design, section 5, rules 2 to 12).
//!
//! Pure, as the session that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::delivery::{Delivery, Outcome};
use super::held::{Accepted, TypeState};
use super::session::{Protocol, Reaction, Response, Session};
use super::split::split;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};

pub(super) type Target = BTreeMap<Arc<str>, Arc<Resource>>;

impl Session {
    /// Appends to `reaction` every response that may go out now. Where ECDS is settled but for a few `changed` names, only
    /// those are looked at.
    pub(super) fn schedule(
        &mut self,
        snapshot: Option<&Snapshot>,
        changed: &[Arc<str>],
        now: Instant,
        reaction: &mut Reaction,
    ) {
        // No stream is answered before all sources are loaded once: what is missing would be removed (rule 9).
        let Some(snapshot) = snapshot else { return };
        if self.unsettled.contains(ResourceType::Listener) {
            // The modules of their filters are fetched first, but not for what the client has.
            self.unsettled.insert(ResourceType::ExtensionConfig);
            if self.types.get(&ResourceType::Listener).is_some_and(|state| state.has_unknown()) {
                let listeners = self.covered(ResourceType::Listener, snapshot);
                self.recognise(ResourceType::Listener, &listeners, reaction);
            }
        }
        for resource_type in ResourceType::ALL {
            let is_due = self.unsettled.take(resource_type);
            let wake_at = reaction.wake_at.take();
            match resource_type {
                ResourceType::ExtensionConfig if is_due => self.plan_all_extensions(snapshot, now, reaction),
                ResourceType::ExtensionConfig if !changed.is_empty() => {
                    self.plan_extensions(changed, snapshot, now, reaction);
                }
                _ if is_due => self.plan_set(resource_type, snapshot, now, reaction),
                _ => {}
            }
            if reaction.wake_at.is_some() {
                self.unsettled.insert(resource_type);
            }
            wake_at.into_iter().for_each(|at| reaction.wake(at));
        }
    }

    /// Listeners, clusters, routes, endpoints: at most one response without an answer per type, so that a slow
    /// client gets the latest state and never a queue of old ones.
    fn plan_set(&mut self, resource_type: ResourceType, snapshot: &Snapshot, now: Instant, reaction: &mut Reaction) {
        if self.types.get(&resource_type).is_none_or(|state| !state.in_flight.is_empty()) {
            return;
        }
        let mut target = self.covered(resource_type, snapshot);
        self.recognise(resource_type, &target, reaction);
        let removed = self.retain_or_remove(resource_type, &mut target, now, reaction);
        let missing = self.missing(resource_type, &target);

        let state = self.types.get_mut(&resource_type).expect("looked up above");
        let mut due: Vec<_> = target.values().filter(|resource| state.differs(resource)).cloned().collect();
        // What is not to be had yet may run there: the client goes on with what it has.
        due.retain(|resource| !(resource.is_partial && state.may_hold_more(&resource.name)));
        if state.has_unknown_set && due.iter().any(|resource| resource.is_partial) {
            return;
        }
        if due.is_empty() && removed.is_empty() && missing.is_empty() && !state.owes_answer {
            state.retry = None;
            return;
        }
        if state.must_not_repeat(&target, now, reaction) || !due.is_empty() && self.must_wait(resource_type, &due) {
            self.unsettled.insert(resource_type);
            return;
        }
        let set = version_of(&target);
        let state = self.types.get_mut(&resource_type).expect("looked up above");
        state.begin(set.clone());
        let may_be_partial = matches!(resource_type, ResourceType::Route | ResourceType::Endpoint);
        match self.protocol {
            Protocol::Sotw if may_be_partial && !state.subscription.is_wildcard => {
                self.send_parts(resource_type, due, &set, now, reaction);
            }
            Protocol::Sotw => self.send(resource_type, target.into_values().collect(), Vec::new(), now, reaction),
            Protocol::Delta => self.send_split(resource_type, due, [removed, missing].concat(), now, reaction),
        }
    }

    /// What the client asks for of the snapshot.
    fn covered(&self, resource_type: ResourceType, snapshot: &Snapshot) -> Target {
        let Some(state) = self.types.get(&resource_type) else { return Target::new() };
        let all = snapshot.all(resource_type).into_iter().flatten();
        let covered = all.filter(|(name, _)| state.subscription.covers(name));
        covered.map(|(_, resource)| (resource.name.clone(), resource.clone())).collect()
    }

    /// Finds out what a reconnecting client holds already: nothing of that is sent.
    pub(super) fn recognise(&mut self, resource_type: ResourceType, target: &Target, reaction: &mut Reaction) {
        let Some(state) = self.types.get_mut(&resource_type) else { return };
        if !state.has_unknown() {
            return;
        }
        if let Some(claimed) = state.claimed.take() {
            let is_all = version_of(target) == claimed;
            if is_all {
                for (name, resource) in target {
                    let accepted = Accepted { version: resource.version.clone(), resource: None, is_certain: true };
                    state.held.entry(name.clone()).or_default().accepted = Some(accepted);
                }
            }
            // An Envoy that says a version has finished its start; but what it holds may be out of date.
            state.owes_answer = state.subscription.is_wildcard && !is_all;
            state.has_unknown_set = !is_all;
            if resource_type == ResourceType::ExtensionConfig && !is_all {
                // Its filters run something, though it cannot be known what of each name.
                for name in state.subscription.names.clone() {
                    let unknown = Accepted { version: claimed.clone(), resource: None, is_certain: false };
                    state.held.entry(name).or_default().accepted.get_or_insert(unknown);
                }
            }
        }
        for (name, resource) in target {
            let Some(held) = state.held.get_mut(name) else { continue };
            let Some(accepted) = &mut held.accepted else { continue };
            if accepted.resource.is_none() && accepted.is_certain && accepted.version == resource.version {
                accepted.resource = Some(resource.clone());
                self.proofs.record(self.build, resource);
                if resource_type == ResourceType::Listener {
                    self.named.extend(extension_names(resource).cloned());
                }
                reaction.deliveries.push(Delivery { resource: resource.clone(), outcome: Outcome::Accepted });
            }
        }
    }

    /// Splits what the client holds and the snapshot lacks: what was in use stays until it has drained, the rest is
    /// removed now (rule 2).
    fn retain_or_remove(
        &mut self,
        resource_type: ResourceType,
        target: &mut Target,
        now: Instant,
        reaction: &mut Reaction,
    ) -> Vec<Arc<str>> {
        let state = &self.types[&resource_type];
        let mut removed = Vec::new();
        for (name, held) in &state.held {
            let Some(accepted) = held.accepted.as_ref().filter(|_| !target.contains_key(name)) else { continue };
            if resource_type != ResourceType::Listener && self.is_retained(resource_type, name, now, reaction) {
                if let Some(resource) = &accepted.resource {
                    target.insert(name.clone(), resource.clone());
                }
            } else {
                removed.push(name.clone());
            }
        }
        for name in &removed {
            self.spared_until.remove(&(resource_type, name.clone()));
        }
        if self.protocol == Protocol::Sotw && !self.types[&resource_type].subscription.is_wildcard {
            // Nothing can be said about a named resource that is gone; its content stays (S21).
            removed.clear();
        }
        removed
    }

    fn is_retained(&self, resource_type: ResourceType, name: &Arc<str>, now: Instant, reaction: &mut Reaction) -> bool {
        let is_used = |resource: &Arc<Resource>| {
            resource.references.iter().any(|(used_type, used)| *used_type == resource_type && used == name)
        };
        let states = self.types.values();
        if states.clone().any(|state| state.accepted().any(is_used))
            || states.flat_map(|state| &state.in_flight).any(|response| response.resources.iter().any(is_used))
        {
            return true;
        }
        self.is_spared(resource_type, name, now, reaction)
    }

    pub(super) fn is_spared(
        &self,
        resource_type: ResourceType,
        name: &Arc<str>,
        now: Instant,
        reaction: &mut Reaction,
    ) -> bool {
        let Some(until) = self.spared_until.get(&(resource_type, name.clone())) else { return false };
        if now < *until {
            reaction.wake(*until);
        }
        now < *until
    }

    /// Delta: subscribed names that do not exist, said once each, so that the client stops waiting for them.
    fn missing(&self, resource_type: ResourceType, target: &Target) -> Vec<Arc<str>> {
        let state = &self.types[&resource_type];
        if self.protocol == Protocol::Sotw {
            return Vec::new();
        }
        let is_missing = |name: &&Arc<str>| {
            !state.has_accepted(name) && !target.contains_key(*name) && !state.told_missing.contains(*name)
        };
        // Asked for by name, or asked for again under a wildcard.
        let asked = state.held.keys().chain(&state.subscription.names).collect::<BTreeSet<_>>();
        asked.into_iter().filter(is_missing).cloned().collect()
    }

    /// Whether a listener or route has to wait for what it names: new clusters first, and every ECDS name in use with
    /// accepted bytes (rules 2 and 12).
    fn must_wait(&self, resource_type: ResourceType, due: &[Arc<Resource>]) -> bool {
        if !matches!(resource_type, ResourceType::Listener | ResourceType::Route) {
            return false;
        }
        let clusters = self.types.get(&ResourceType::Cluster);
        let adds_clusters =
            clusters.is_some_and(|state| state.in_flight.iter().any(|response| !response.resources.is_empty()));
        let unsettled = self.types.get(&ResourceType::ExtensionConfig).is_some_and(|state| {
            due.iter().any(|resource| extension_names(resource).any(|name| state.is_in_flight(name)))
        });
        adds_clusters || unsettled || (resource_type == ResourceType::Listener && self.staging.holds_listeners())
    }

    /// Delta: sends in as many responses as the limit on their size demands; what is removed goes first.
    fn send_split(
        &mut self,
        resource_type: ResourceType,
        resources: Vec<Arc<Resource>>,
        removed: Vec<Arc<str>>,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        for (resources, removed) in split(resources, removed, self.limits.max_response_bytes) {
            self.send(resource_type, resources, removed, now, reaction);
        }
    }

    /// State of the world, routes and endpoints: sends what is due and nothing else, as a response need not be complete
    /// (S20); the client then holds `set`.
    fn send_parts(
        &mut self,
        resource_type: ResourceType,
        due: Vec<Arc<Resource>>,
        set: &Version,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        let parts = split(due, Vec::new(), self.limits.max_response_bytes);
        let count = parts.len();
        for (number, (part, removed)) in parts.into_iter().enumerate() {
            // Whoever refuses one part and accepts the next must not say at its next connection that it holds the set.
            let version = match count {
                1 => set.clone(),
                _ => Version::of_text(&format!("{number} of {count} of {set}")),
            };
            self.send_as(resource_type, part, removed, Some(version), now, reaction);
        }
    }

    pub(super) fn send(
        &mut self,
        resource_type: ResourceType,
        resources: Vec<Arc<Resource>>,
        removed: Vec<Arc<str>>,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        let version_info = (self.protocol == Protocol::Sotw).then(|| self.version_after(resource_type, &resources));
        self.send_as(resource_type, resources, removed, version_info, now, reaction);
    }

    fn send_as(
        &mut self,
        resource_type: ResourceType,
        resources: Vec<Arc<Resource>>,
        removed: Vec<Arc<str>>,
        version_info: Option<Version>,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        if resource_type == ResourceType::Listener {
            self.named.extend(resources.iter().flat_map(|listener| extension_names(listener)).cloned());
        }
        let nonce = self.take_nonce();
        let response =
            Response { resource_type, nonce, version_info, resources, removed, sent_at: now, counts_refused: false };
        let state = self.types.get_mut(&resource_type).expect("only subscribed types are sent");
        state.last_nonce = nonce;
        state.told_missing.extend(response.removed.iter().cloned());
        for resource in &response.resources {
            state.told_missing.remove(&resource.name);
        }
        state.in_flight.push(response.clone());
        reaction.responses.push(response);
    }

    /// The version of all that the client holds once it has accepted everything up to and including `resources`.
    fn version_after(&self, resource_type: ResourceType, resources: &[Arc<Resource>]) -> Version {
        let state = &self.types[&resource_type];
        let mut versions: BTreeMap<&str, &Version> = BTreeMap::new();
        if resource_type == ResourceType::ExtensionConfig {
            for (name, held) in &state.held {
                // What is not known to be held is no part of what the client will say.
                let known =
                    held.accepted.as_ref().filter(|accepted| accepted.is_certain || accepted.resource.is_some());
                versions.extend(known.map(|accepted| (&**name, &accepted.version)));
            }
            let in_flight = state.in_flight.iter().flat_map(|response| &response.resources);
            let in_flight = in_flight.filter(|resource| state.subscription.covers(&resource.name));
            versions.extend(in_flight.map(|resource| (&*resource.name, &resource.version)));
        }
        versions.extend(resources.iter().map(|resource| (&*resource.name, &resource.version)));
        Version::of_set(versions.into_iter())
    }
}

impl TypeState {
    pub(super) fn differs(&self, resource: &Resource) -> bool {
        !self.held.get(&resource.name).is_some_and(|held| held.holds(&resource.version))
    }

    pub(super) fn has_accepted(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| held.accepted.is_some())
    }

    /// Whether this very set was refused and its next try is not due. A set with any change is sent at once, and what was
    /// refused with it: it may go through now.
    fn must_not_repeat(&self, target: &Target, now: Instant, reaction: &mut Reaction) -> bool {
        let Some(retry) = self.retry.filter(|retry| now < retry.at) else { return false };
        let is_same = self.sent.as_ref() == Some(&version_of(target));
        if is_same {
            reaction.wake(retry.at);
        }
        is_same
    }

    /// A set of that version is about to be sent. A new one starts with the shortest back-off.
    fn begin(&mut self, version: Version) {
        self.owes_answer = false;
        if self.sent.as_ref() != Some(&version) {
            self.retry = None;
        }
        self.sent = Some(version);
    }
}

impl Reaction {
    pub(super) fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

fn version_of(target: &Target) -> Version {
    Version::of_set(target.iter().map(|(name, resource)| (&**name, &resource.version)))
}

pub(super) fn extension_names(resource: &Resource) -> impl Iterator<Item = &Arc<str>> {
    let is_extension = |(used_type, _): &&(ResourceType, Arc<str>)| *used_type == ResourceType::ExtensionConfig;
    resource.references.iter().filter(is_extension).map(|(_, name)| name)
}
