//! What may be sent now: the order in which a change reaches a client without harm (design, section 5, rules 2 to 12).
//!
//! Pure, as the session that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::{Delivery, Outcome};
use super::session::{Accepted, Protocol, Reaction, Response, Session, TypeState};
use crate::snapshot::{Extension, Resource, ResourceType, Snapshot, Version};

/// How long an unproven resource is held back for ECDS subscriptions that a listener in flight will cause. Envoy
/// sends them before it acknowledges the listener; a client that never acknowledges is not waited for.
const SUBSCRIPTIONS_WITHIN: Duration = Duration::from_secs(1);

type Target = BTreeMap<String, Arc<Resource>>;

impl Session {
    /// Appends to `reaction` every response that may go out now.
    pub(super) fn schedule(&mut self, snapshot: Option<&Snapshot>, now: Instant, reaction: &mut Reaction) {
        // No stream is answered before all sources are loaded once: what is missing would be removed (rule 9).
        let Some(snapshot) = snapshot else { return };
        self.plan_set(ResourceType::Cluster, snapshot, now, reaction);
        self.plan_set(ResourceType::Endpoint, snapshot, now, reaction);
        self.plan_extensions(snapshot, now, reaction);
        self.plan_set(ResourceType::Listener, snapshot, now, reaction);
        self.plan_set(ResourceType::Route, snapshot, now, reaction);
    }

    /// Listeners, clusters, routes, endpoints: at most one response without an answer per type, so that a slow
    /// client gets the latest state and never a queue of old ones.
    fn plan_set(&mut self, resource_type: ResourceType, snapshot: &Snapshot, now: Instant, reaction: &mut Reaction) {
        let Some(state) = self.types.get(&resource_type) else { return };
        let Some(all) = snapshot.all(resource_type) else { return };
        if !state.in_flight.is_empty() {
            return;
        }
        let covered = |name: &String| state.subscription.covers(name);
        let mut target: Target =
            all.iter().filter(|(name, _)| covered(name)).map(|(name, r)| (name.clone(), r.clone())).collect();
        self.recognise(resource_type, &target, reaction);
        let removed = self.retain_or_remove(resource_type, &mut target, now, reaction);
        let missing = self.missing(resource_type, &target);
        self.forgive(resource_type, now, reaction);

        let Some(state) = self.types.get(&resource_type) else { return };
        let mut due: Vec<_> = target.values().filter(|resource| state.is_due(resource)).cloned().collect();
        if due.is_empty() && removed.is_empty() && missing.is_empty() && !state.owes_answer {
            return;
        }
        if !due.is_empty() && self.must_wait(resource_type, &due) {
            return;
        }
        if !due.is_empty() {
            // What was refused may go through together with what changed.
            due = target.values().filter(|resource| state.differs(resource)).cloned().collect();
        }
        match self.protocol {
            Protocol::Sotw => self.send(resource_type, target.into_values().collect(), Vec::new(), now, reaction),
            Protocol::Delta => {
                let state = self.types.get_mut(&resource_type).expect("looked up above");
                state.told_missing.extend(missing.iter().cloned());
                self.send_split(resource_type, due, [removed, missing].concat(), now, reaction);
            }
        }
    }

    /// ECDS: one resource per response, and the next for a name only after the answer to the one before (rule 3).
    fn plan_extensions(&mut self, snapshot: &Snapshot, now: Instant, reaction: &mut Reaction) {
        let Some(state) = self.types.get(&ResourceType::ExtensionConfig) else { return };
        let target: Target = state
            .subscription
            .names
            .iter()
            .filter_map(|name| Some((name.clone(), self.extension_for(name, state, snapshot)?)))
            .collect();
        self.recognise(ResourceType::ExtensionConfig, &target, reaction);

        for resource in self.roll_backs() {
            self.send(ResourceType::ExtensionConfig, vec![resource], Vec::new(), now, reaction);
        }
        let state = &self.types[&ResourceType::ExtensionConfig];
        let due: Vec<_> = target
            .values()
            .filter(|resource| state.is_due(resource) && !state.is_in_flight(&resource.name))
            .cloned()
            .collect();
        let joining: Vec<_> = due.iter().filter(|resource| self.waits_for_join(resource, &target)).cloned().collect();
        // Parts that change places in a ring have no order that keeps them all: one resource keeps what leaves it until
        // that has joined elsewhere. Where it cannot, all go at once.
        let is_ring = joining.len() == due.len() && state.in_flight.is_empty();
        if is_ring && let Some(both) = due.iter().find_map(|resource| self.with_leaving(resource, &target, snapshot)) {
            if !self.is_held_back(&both, &target, now, reaction) {
                self.send(ResourceType::ExtensionConfig, vec![both], Vec::new(), now, reaction);
            }
            return;
        }
        let (proven, unproven): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|resource| self.proofs.cover(self.build, resource));
        for resource in proven.into_iter().chain(unproven) {
            let waits = !is_ring && joining.iter().any(|other| other.name == resource.name);
            if !waits && !self.is_held_back(&resource, &target, now, reaction) {
                self.send(ResourceType::ExtensionConfig, vec![resource], Vec::new(), now, reaction);
            }
        }
    }

    /// What a name should hold. A name that our own listener used and that no longer applies keeps its content:
    /// connections that drain still run through it (rules 2 and 7).
    fn extension_for(&self, name: &str, state: &TypeState, snapshot: &Snapshot) -> Option<Arc<Resource>> {
        match snapshot.extensions.resolve(name)? {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(resource) => {
                let holds_any = state.held.get(name).is_some_and(|held| held.accepted.is_some());
                (!(holds_any && self.named.contains(name))).then_some(resource)
            }
        }
    }

    /// Finds out what a reconnecting client holds already: nothing of that is sent.
    fn recognise(&mut self, resource_type: ResourceType, target: &Target, reaction: &mut Reaction) {
        let Some(state) = self.types.get_mut(&resource_type) else { return };
        if let Some(claimed) = state.claimed.take() {
            let is_all = Version::of_set(target.iter().map(|(name, r)| (name.as_str(), &r.version))) == claimed;
            if is_all {
                for (name, resource) in target {
                    let accepted = Accepted { version: resource.version.clone(), resource: None, is_certain: true };
                    state.held.entry(name.clone()).or_default().accepted = Some(accepted);
                }
            }
            // An Envoy that says a version has finished its start; but what it holds may be out of date.
            state.owes_answer = state.subscription.is_wildcard && !is_all;
        }
        for (name, resource) in target {
            let Some(held) = state.held.get_mut(name) else { continue };
            let Some(accepted) = &mut held.accepted else { continue };
            if accepted.resource.is_none() && accepted.version == resource.version {
                accepted.resource = Some(resource.clone());
                self.proofs.record(self.build, resource);
                if resource_type == ResourceType::Listener {
                    self.named.extend(extension_names(resource).map(str::to_owned));
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
    ) -> Vec<String> {
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

    fn is_retained(&self, resource_type: ResourceType, name: &str, now: Instant, reaction: &mut Reaction) -> bool {
        let is_used = |resource: &Arc<Resource>| {
            resource.references.iter().any(|(used_type, used)| *used_type == resource_type && used == name)
        };
        let states = self.types.values();
        if states.clone().any(|state| state.accepted().any(is_used))
            || states.flat_map(|state| &state.in_flight).any(|response| response.resources.iter().any(is_used))
        {
            return true;
        }
        let Some(until) = self.spared_until.get(&(resource_type, name.to_owned())) else { return false };
        if now < *until {
            reaction.wake(*until);
        }
        now < *until
    }

    /// Delta: subscribed names that do not exist, said once each, so that the client stops waiting for them.
    fn missing(&self, resource_type: ResourceType, target: &Target) -> Vec<String> {
        let state = &self.types[&resource_type];
        if self.protocol == Protocol::Sotw {
            return Vec::new();
        }
        let is_missing = |name: &&String| {
            let is_held = state.held.get(*name).is_some_and(|held| held.accepted.is_some());
            !is_held && !target.contains_key(*name) && !state.told_missing.contains(*name)
        };
        // Asked for by name, or asked for again under a wildcard.
        let asked = state.held.keys().chain(&state.subscription.names).collect::<BTreeSet<_>>();
        asked.into_iter().filter(is_missing).cloned().collect()
    }

    /// Lets refused resources be tried again when their time has come.
    fn forgive(&mut self, resource_type: ResourceType, now: Instant, reaction: &mut Reaction) {
        let Some(state) = self.types.get_mut(&resource_type) else { return };
        let Some(retry) = state.retry else { return };
        if now < retry.at {
            reaction.wake(retry.at);
            return;
        }
        for held in state.held.values_mut() {
            held.refused.clear();
        }
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
        adds_clusters || unsettled
    }

    /// Last accepted bytes that are due back at the client after a refusal.
    fn roll_backs(&mut self) -> Vec<Arc<Resource>> {
        let Some(state) = self.types.get_mut(&ResourceType::ExtensionConfig) else { return Vec::new() };
        state.held.values_mut().filter_map(|held| held.roll_back.take()).collect()
    }

    /// A part that moves from this resource to a neighbour has to be accepted there before it leaves here.
    fn waits_for_join(&self, resource: &Resource, target: &Target) -> bool {
        !self.leaving(resource, target).is_empty()
    }

    /// The owners of parts that leave this resource for a neighbour which has not accepted them yet.
    fn leaving(&self, resource: &Resource, target: &Target) -> Vec<Arc<str>> {
        let state = &self.types[&ResourceType::ExtensionConfig];
        let accepted = |name: &str| state.held.get(name).and_then(|held| held.accepted.as_ref()?.resource.as_ref());
        let Some(current) = accepted(&resource.name) else { return Vec::new() };
        let joins_elsewhere = |owner: &str| {
            let group = group_of(&resource.name);
            target.values().any(|other| {
                other.name != resource.name
                    && group_of(&other.name) == group
                    && has_part(other, owner)
                    && accepted(&other.name).is_some_and(|held| !has_part(held, owner))
                    && !state.held[&other.name].has_refused(&other.version)
            })
        };
        let owners = current.parts.iter().map(|part| &part.owner);
        owners.filter(|owner| !has_part(resource, owner) && joins_elsewhere(owner)).cloned().collect()
    }

    /// This resource with what leaves it, unless the client has it already or refused it.
    fn with_leaving(&self, resource: &Resource, target: &Target, snapshot: &Snapshot) -> Option<Arc<Resource>> {
        let owners = self.leaving(resource, target);
        let owners: Vec<_> = owners.iter().map(|owner| &**owner).collect();
        let both = snapshot.extensions.resolve_with(&resource.name, &owners)?;
        self.types[&ResourceType::ExtensionConfig].is_due(&both).then_some(both)
    }

    /// Whether an unproven resource must wait, because its NACK would end the warming of a listener that waits for
    /// another name (rule 11).
    fn is_held_back(&self, resource: &Resource, target: &Target, now: Instant, reaction: &mut Reaction) -> bool {
        if self.proofs.cover(self.build, resource) {
            return false;
        }
        let extensions = &self.types[&ResourceType::ExtensionConfig];
        let Some(listeners) = self.types.get(&ResourceType::Listener) else { return false };
        let is_live = extensions.held.get(&resource.name).is_some_and(|held| held.accepted.is_some());
        let sent = listeners.in_flight.iter().flat_map(|response| &response.resources);
        let awaited = listeners.accepted().chain(sent).flat_map(|listener| extension_names(listener));
        for name in awaited.filter(|name| *name != resource.name) {
            if extensions.is_in_flight(name) && !extensions.has_answered(name) {
                return true;
            }
            if extensions.has_answered(name) {
                continue;
            }
            if extensions.subscription.names.contains(name) {
                let Some(other) = target.get(name) else { continue };
                if is_live || self.proofs.cover(self.build, other) {
                    return true;
                }
            } else if let Some(response) = listeners.in_flight.first() {
                let until = response.sent_at + SUBSCRIPTIONS_WITHIN;
                if now < until {
                    reaction.wake(until);
                    return true;
                }
            }
        }
        false
    }

    /// Sends in as many responses as the limit on their size demands; what is removed goes with the first.
    fn send_split(
        &mut self,
        resource_type: ResourceType,
        resources: Vec<Arc<Resource>>,
        mut removed: Vec<String>,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        let mut batch: Vec<Arc<Resource>> = Vec::new();
        let mut bytes = 0;
        for resource in resources {
            let len = resource.delta_field().len();
            if !batch.is_empty() && bytes + len > self.limits.max_response_bytes {
                self.send(resource_type, std::mem::take(&mut batch), std::mem::take(&mut removed), now, reaction);
                bytes = 0;
            }
            bytes += len;
            batch.push(resource);
        }
        self.send(resource_type, batch, removed, now, reaction);
    }

    fn send(
        &mut self,
        resource_type: ResourceType,
        resources: Vec<Arc<Resource>>,
        removed: Vec<String>,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        if resource_type == ResourceType::Listener {
            self.named.extend(resources.iter().flat_map(|listener| extension_names(listener)).map(str::to_owned));
        }
        let nonce = self.take_nonce();
        let version_info = (self.protocol == Protocol::Sotw).then(|| self.version_after(resource_type, &resources));
        let response = Response { resource_type, nonce, version_info, resources, removed, sent_at: now };
        let state = self.types.get_mut(&resource_type).expect("only subscribed types are sent");
        state.last_nonce = nonce;
        state.owes_answer = false;
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
            let accepted = |(name, held)| -> Option<(&str, &Version)> {
                let (name, held): (&String, &super::session::Held) = (name, held);
                Some((name.as_str(), &held.accepted.as_ref()?.version))
            };
            versions.extend(state.held.iter().filter_map(accepted));
            let in_flight = state.in_flight.iter().flat_map(|response| &response.resources);
            versions.extend(in_flight.map(|resource| (resource.name.as_str(), &resource.version)));
        }
        versions.extend(resources.iter().map(|resource| (resource.name.as_str(), &resource.version)));
        Version::of_set(versions.into_iter())
    }
}

impl TypeState {
    /// Whether the client has to be sent this resource, and has not refused it.
    fn is_due(&self, resource: &Resource) -> bool {
        let is_refused = self.held.get(&resource.name).is_some_and(|held| held.has_refused(&resource.version));
        self.differs(resource) && !is_refused
    }

    fn differs(&self, resource: &Resource) -> bool {
        !self.held.get(&resource.name).is_some_and(|held| held.holds(&resource.version))
    }

    /// Whether the client has accepted or refused anything under this name.
    fn has_answered(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| held.accepted.is_some() || !held.refused.is_empty())
    }
}

impl Reaction {
    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

fn extension_names(resource: &Resource) -> impl Iterator<Item = &str> {
    let is_extension = |(used_type, _): &&(ResourceType, String)| *used_type == ResourceType::ExtensionConfig;
    resource.references.iter().filter(is_extension).map(|(_, name)| name.as_str())
}

fn has_part(resource: &Resource, owner: &str) -> bool {
    resource.parts.iter().any(|part| &*part.owner == owner)
}

/// Resources between which a part may move: those of one listener share all of their name but its last element.
fn group_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(group, _)| group)
}
