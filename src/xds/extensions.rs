//! The order of ECDS: one resource per response, the proven before the unproven, a part never missing while it moves
//! (design, section 5, rules 3, 4, 7, 11).
//!
//! Pure, as the session that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::held::TypeState;
use super::schedule::{Target, extension_names};
use super::session::{Reaction, Session};
use super::staging::is_staging;
use crate::snapshot::{Extension, Resource, ResourceType, STAGING, Snapshot, Version};

/// How long an unproven resource is held back for ECDS subscriptions that a listener in flight will cause. Envoy
/// sends them before it acknowledges the listener; a client that never acknowledges is not waited for.
const SUBSCRIPTIONS_WITHIN: Duration = Duration::from_secs(1);

/// How long an unproven resource is held back for answers that a warming listener may need. Envoy itself gives up
/// after 15 s (`initial_fetch_timeout`).
const WARMS_WITHIN: Duration = Duration::from_secs(10);

impl Session {
    /// The names that can have something due as `snapshot` takes the place of `before`; `None` where it may be any.
    pub(super) fn changed_extensions(&self, before: &Snapshot, snapshot: &Snapshot) -> Option<Arc<[Arc<str>]>> {
        // A client that gets modules inside is sent other resources than those that are compared.
        let can_tell = self.has_only_known_extensions && !self.carries_inside();
        let is_settled = !self.unsettled.contains(ResourceType::ExtensionConfig);
        (can_tell && is_settled).then(|| before.extensions.changed(&snapshot.extensions)).flatten()
    }

    /// All names that the client asks for.
    pub(super) fn plan_all_extensions(&mut self, snapshot: &Snapshot, now: Instant, reaction: &mut Reaction) {
        let Some(state) = self.types.get(&ResourceType::ExtensionConfig) else { return };
        let names = &state.subscription.names;
        let (target, are_known) = self.extensions_for(names, state, snapshot, now, reaction);
        self.report_unanswered(&target, reaction);
        self.recognise(ResourceType::ExtensionConfig, &target, reaction);
        self.has_only_known_extensions = are_known && !self.types[&ResourceType::ExtensionConfig].has_unknown();
        let roll_backs = self.roll_backs();
        self.plan_target(target, roll_backs, snapshot, now, reaction);
    }

    /// These names, as far as the client asks for them, and those that are on their way: all that was due for the others is
    /// sent, and the snapshot says what it said.
    pub(super) fn plan_extensions(
        &mut self,
        changed: &[Arc<str>],
        snapshot: &Snapshot,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        let Some(state) = self.types.get(&ResourceType::ExtensionConfig) else { return };
        // A part may move to one that is on its way.
        let in_flight = state.in_flight.iter().flat_map(|response| &response.resources).map(|resource| &resource.name);
        let names = changed.iter().chain(in_flight).filter(|name| state.subscription.names.contains(*name));
        let names: BTreeSet<_> = names.collect();
        let (target, are_known) = self.extensions_for(names, state, snapshot, now, reaction);
        self.has_only_known_extensions &= are_known;
        self.plan_target(target, Vec::new(), snapshot, now, reaction);
    }

    /// What these names should hold, and whether the snapshot knows them all.
    fn extensions_for<'a>(
        &self,
        names: impl IntoIterator<Item = &'a Arc<str>>,
        state: &TypeState,
        snapshot: &Snapshot,
        now: Instant,
        reaction: &mut Reaction,
    ) -> (Target, bool) {
        let (mut target, mut are_known) = (Target::new(), true);
        for name in names {
            let extension = snapshot.extensions.resolve(name);
            are_known &= matches!(extension, Some(Extension::Known(_)));
            let content = extension.and_then(|extension| self.content_of(name, extension, state, now, reaction));
            target.extend(content.map(|content| (name.clone(), content)));
        }
        self.put_inside(&mut target, snapshot);
        (target, are_known)
    }

    /// ECDS: one resource per response, and the next for a name only after the answer to the one before (rule 3).
    fn plan_target(
        &mut self,
        mut target: Target,
        roll_backs: Vec<Arc<Resource>>,
        snapshot: &Snapshot,
        now: Instant,
        reaction: &mut Reaction,
    ) {
        let (held_back, wanted) = self.hold_back(&mut target, snapshot, now);
        let for_listeners = match self.unsettled.contains(ResourceType::Listener) {
            true => self.wanted_by_listeners(snapshot, now),
            false => BTreeSet::new(),
        };
        let is_settled =
            |session: &Self| held_back.is_empty() && session.types[&ResourceType::ExtensionConfig].is_settled(&target);
        if let Some(staged) = self.plan_staging(wanted, for_listeners, is_settled, snapshot, now, reaction) {
            target.insert(staged.name.clone(), staged);
        }

        for resource in roll_backs {
            self.send(ResourceType::ExtensionConfig, vec![resource], Vec::new(), now, reaction);
        }
        let state = &self.types[&ResourceType::ExtensionConfig];
        let in_flight: BTreeMap<&str, &Version> = state.in_flight_versions().collect();
        let is_sent = |resource: &Resource| in_flight.get(&*resource.name) == Some(&&resource.version);
        // What is on its way to a name that is to hold something else by now: an edit that was taken back.
        let is_outdated = |(name, version): (&&str, &&Version)| {
            target.get(*name).is_some_and(|resource| resource.version != **version && !state.has_refused(resource))
        };
        let has_outdated = in_flight.iter().any(is_outdated);
        let unsent: Vec<_> = target.values().filter(|resource| state.is_due(resource) && !is_sent(resource)).collect();
        let mut waiting = unsent.len();
        let mut due: Vec<_> = unsent
            .into_iter()
            .filter(|resource| !in_flight.contains_key(&*resource.name))
            .filter(|resource| !state.joins(resource, &target).any(|neighbour| state.has_refused(neighbour)))
            .cloned()
            .collect();
        let waits_for_join = |resource: &Arc<Resource>| state.joins(resource, &target).next().is_some();
        // Parts that change places in a ring have no order that keeps them all: one resource keeps what leaves it until
        // that has joined elsewhere. Where it cannot, all go at once.
        // Nothing of it moves before the client holds all modules.
        let can_move = |resource: &Arc<Resource>| waits_for_join(resource) && !held_back.contains(&resource.name);
        let is_ring = state.in_flight.is_empty() && due.iter().all(can_move);
        let mut with_leaving = due.iter().filter_map(|resource| state.with_leaving(resource, &target, snapshot));
        if is_ring && let Some(both) = with_leaving.find(|both| self.staging.holds_all(both, now)) {
            due = vec![both];
        }
        if !is_ring {
            due.retain(|resource| !waits_for_join(resource));
        }
        due.retain(|resource| !held_back.contains(&resource.name));
        // What cannot fail goes first, and what replaces something that works goes last (rule 11).
        due.sort_by_cached_key(|resource| {
            (!self.proofs.cover(self.build, resource), state.has_accepted(&resource.name))
        });
        for resource in due {
            if !self.is_held_back(&resource, now, reaction) {
                self.send(ResourceType::ExtensionConfig, vec![resource], Vec::new(), now, reaction);
                waiting -= 1;
            }
        }
        self.correct_version(now, reaction);
        if waiting > 0 || has_outdated || self.types[&ResourceType::ExtensionConfig].owes_answer {
            self.unsettled.insert(ResourceType::ExtensionConfig);
        }
    }

    /// Names that get silence, said once each: a static listener that asks for one waits for nothing.
    fn report_unanswered(&mut self, target: &Target, reaction: &mut Reaction) {
        let state = self.types.get_mut(&ResourceType::ExtensionConfig).expect("called for a subscribed type");
        if target.len() == state.subscription.names.len() {
            return;
        }
        for name in &state.subscription.names {
            let is_silent = !target.contains_key(name) && !state.held.contains_key(name);
            if is_silent && state.told_missing.insert(name.clone()) {
                reaction.unanswered.push(name.to_string());
            }
        }
    }

    /// State of the world: a client whose newest acknowledged version counts what it refused would say a false version
    /// at its next connection. An empty response changes nothing but that.
    fn correct_version(&mut self, now: Instant, reaction: &mut Reaction) {
        let state = self.types.get_mut(&ResourceType::ExtensionConfig).expect("called for a subscribed type");
        if state.owes_answer && state.in_flight.is_empty() && !state.subscription.names.is_empty() {
            state.owes_answer = false;
            self.send(ResourceType::ExtensionConfig, Vec::new(), Vec::new(), now, reaction);
        }
    }

    /// What a name should hold. A name that our own listener used and that no longer applies keeps its content:
    /// connections that drain still run through it (rules 2 and 7). After a reconnect that may be any name.
    fn content_of(
        &self,
        name: &Arc<str>,
        extension: Extension,
        state: &TypeState,
        now: Instant,
        reaction: &mut Reaction,
    ) -> Option<Arc<Resource>> {
        match extension {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(resource) => {
                let is_in_use = state.has_accepted(name)
                    && (self.named.contains(name)
                        || self.is_spared(ResourceType::ExtensionConfig, name, now, reaction));
                (!is_in_use).then_some(resource)
            }
        }
    }

    /// Last accepted bytes that are due back at the client after a refusal.
    fn roll_backs(&mut self) -> Vec<Arc<Resource>> {
        let Some(state) = self.types.get_mut(&ResourceType::ExtensionConfig) else { return Vec::new() };
        state.held.iter_mut().filter_map(|(_, held)| held.roll_back.take()).collect()
    }

    /// Whether an unproven resource must wait, because its NACK would end the warming of every listener that waits for
    /// another name (rule 11). Unproven ones do not wait for one another, unless there is something to lose.
    fn is_held_back(&self, resource: &Resource, now: Instant, reaction: &mut Reaction) -> bool {
        if self.proofs.cover(self.build, resource) {
            return false;
        }
        let extensions = &self.types[&ResourceType::ExtensionConfig];
        let is_live = extensions.has_accepted(&resource.name);
        let is_awaited = |other: &Arc<Resource>| {
            !extensions.has_answered(&other.name) && (is_live || self.proofs.cover(self.build, other))
        };
        let warming = extensions.in_flight.iter().filter(|response| response.resources.iter().any(is_awaited));
        let until_answered = warming.map(|response| response.sent_at + WARMS_WITHIN);
        // Names that a listener in flight is about to make the client ask for.
        let listeners = self.types.get(&ResourceType::Listener).into_iter().flat_map(|state| &state.in_flight);
        let is_unasked = |name: &Arc<str>| *name != resource.name && !extensions.subscription.names.contains(name);
        let will_ask = |listener: &Arc<Resource>| extension_names(listener).any(is_unasked);
        let asking = listeners.filter(|response| response.resources.iter().any(will_ask));
        let until_asked = asking.map(|response| response.sent_at + SUBSCRIPTIONS_WITHIN);
        match until_answered.chain(until_asked).filter(|until| now < *until).min() {
            Some(until) => {
                reaction.wake(until);
                true
            }
            None => false,
        }
    }
}

impl TypeState {
    fn in_flight_versions(&self) -> impl Iterator<Item = (&str, &Version)> {
        let resources = self.in_flight.iter().flat_map(|response| &response.resources);
        resources.map(|resource| (&*resource.name, &resource.version))
    }

    /// Whether all traffic's names hold what they are to hold, and nothing but attempts is on its way.
    fn is_settled(&self, target: &Target) -> bool {
        self.in_flight.iter().all(is_staging)
            && target.values().all(|resource| &*resource.name == STAGING || !self.is_due(resource))
    }

    /// Whether the client has to be sent this ECDS resource, and has not refused it.
    fn is_due(&self, resource: &Resource) -> bool {
        self.differs(resource) && !self.has_refused(resource)
    }

    fn has_refused(&self, resource: &Resource) -> bool {
        self.held.get(&resource.name).is_some_and(|held| held.refused.contains(&resource.version))
    }

    /// ECDS: whether the client has accepted or refused anything under this name.
    pub(super) fn has_answered(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| held.accepted.is_some() || !held.refused.is_empty())
    }

    /// The accepted content of an ECDS name, where it is known.
    pub(super) fn content(&self, name: &str) -> Option<&Arc<Resource>> {
        self.held.get(name)?.accepted.as_ref()?.resource.as_ref()
    }

    /// The neighbours to which a part of this resource moves, and which have not accepted it yet: it must not leave
    /// here before that.
    fn joins<'a>(&'a self, resource: &'a Resource, target: &'a Target) -> impl Iterator<Item = &'a Arc<Resource>> {
        // Mostly the same plugins in the same order, one of them edited.
        let is_other = |current: &&Arc<Resource>| !owners(current).eq(owners(resource));
        // One that is alone has no neighbours, and a list of plugins may be long.
        let content = self.content(&resource.name).filter(|_| target.len() > 1);
        let current = content.filter(is_other).into_iter().flat_map(|current| current.parts.iter());
        let leaving = current.map(|part| &*part.owner).filter(|owner| !has_part(resource, owner));
        let is_neighbour =
            |other: &Resource| other.name != resource.name && group_of(&other.name) == group_of(&resource.name);
        let has_joined = |name: &str, owner: &str| {
            self.content(name).is_some_and(|content| has_part(content, owner)) && !self.is_about_to_lose(name, owner)
        };
        leaving.flat_map(move |owner| {
            let joins = move |other: &&Arc<Resource>| {
                is_neighbour(other) && has_part(other, owner) && !has_joined(&other.name, owner)
            };
            target.values().filter(joins)
        })
    }

    /// Whether a response is on its way after which the client runs this name without the part.
    fn is_about_to_lose(&self, name: &str, owner: &str) -> bool {
        let resources = self.in_flight.iter().flat_map(|response| &response.resources);
        resources.into_iter().any(|resource| &*resource.name == name && !has_part(resource, owner))
    }

    /// This resource with what leaves it for a neighbour, unless the client has that already or refused it.
    fn with_leaving(&self, resource: &Resource, target: &Target, snapshot: &Snapshot) -> Option<Arc<Resource>> {
        let neighbours: Vec<_> = self.joins(resource, target).collect();
        let current = self.content(&resource.name)?.parts.iter().map(|part| &*part.owner);
        let is_leaving = |owner: &&str| !has_part(resource, owner) && neighbours.iter().any(|it| has_part(it, owner));
        let both = snapshot.extensions.resolve_with(&resource.name, &current.filter(is_leaving).collect::<Vec<_>>())?;
        self.is_due(&both).then_some(both)
    }
}

fn owners(resource: &Resource) -> impl Iterator<Item = &str> {
    resource.parts.iter().map(|part| &*part.owner)
}

fn has_part(resource: &Resource, owner: &str) -> bool {
    resource.parts.iter().any(|part| &*part.owner == owner)
}

/// Resources between which a part may move: those of one listener share all of their name but its last element.
fn group_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(group, _)| group)
}
