//! The incremental protocol: a `DeltaDiscoveryRequest`, applied to a session.
//!
//! Pure. Delta knows no stale request: changes of subscription always count, and an ACK or NACK counts for the
//! response whose nonce it carries.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::held::{Accepted, Held};
use super::session::{Reaction, Session};
use crate::snapshot::{ResourceType, Snapshot, Version};

/// How long a reconnecting client may take from its first type to its listeners. Envoy sends both at once.
const LISTENERS_WITHIN: Duration = Duration::from_secs(1);

impl Session {
    pub fn on_delta_request(
        &mut self,
        resource_type: ResourceType,
        request: &DeltaDiscoveryRequest,
        snapshot: Option<&Snapshot>,
        now: Instant,
    ) -> Reaction {
        let mut reaction = Reaction::default();
        if let Some(response) =
            request.response_nonce.parse().ok().and_then(|nonce| self.answered(resource_type, nonce))
        {
            reaction.deliveries = match &request.error_detail {
                Some(error) => self.refuse(response, &error.message, now),
                None => self.acknowledge(response, now),
            };
        }
        match self.types.get_mut(&resource_type) {
            // An answer and nothing else, as most requests are.
            Some(_) if request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty() => {
            }
            Some(state) => {
                let (subscribe, unsubscribe) = (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
                let changed = state.subscription.update(subscribe, unsubscribe, &self.named);
                self.resubscribe(resource_type, changed);
            }
            None => self.open_delta(resource_type, request, now),
        }
        self.schedule(snapshot, &[], now, &mut reaction);
        reaction
    }

    /// The first request of a type says what a reconnecting client holds; in later ones it is ignored.
    fn open_delta(&mut self, resource_type: ResourceType, request: &DeltaDiscoveryRequest, now: Instant) {
        self.open(resource_type, &request.resource_names_subscribe, None);
        let state = self.types.get_mut(&resource_type).expect("opened above");
        let held = request.initial_resource_versions.iter().map(|(name, version)| {
            let accepted = Accepted { version: Version::from_client(version), resource: None, is_certain: true };
            (name.as_str().into(), Box::new(Held { accepted: Some(accepted), ..Held::default() }))
        });
        state.held.extend(held);
        state.owes_answer &= request.initial_resource_versions.is_empty();
        let changed = state.subscription.update(&[], &request.resource_names_unsubscribe, &self.named);
        self.resubscribe(resource_type, changed);
        if !request.initial_resource_versions.is_empty() {
            self.spare_unknown(now);
        }
    }

    /// A client that comes back may still use clusters, routes and ECDS names that are gone here: they stay until its
    /// listeners are known and have drained.
    fn spare_unknown(&mut self, now: Instant) {
        let has_listeners = self.types.contains_key(&ResourceType::Listener);
        let until = now + if has_listeners { self.limits.drain } else { LISTENERS_WITHIN };
        for (resource_type, state) in &self.types {
            if *resource_type == ResourceType::Listener {
                continue;
            }
            let unknown = state
                .held
                .iter()
                .filter(|(_, held)| held.accepted.as_ref().is_some_and(|accepted| accepted.resource.is_none()));
            self.spared_until.extend(unknown.map(|(name, _)| ((*resource_type, name.clone()), until)));
        }
    }
}
