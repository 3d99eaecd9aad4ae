//! The state-of-the-world protocol: a `DiscoveryRequest`, applied to a session.
//!
//! Pure. A response without an answer is never stale, however many followed it: its ACK or NACK counts for itself,
//! and only its `resource_names` are ignored unless it is the newest (design, section 5, rule 3).

use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::session::{Reaction, Session};
use crate::snapshot::{ResourceType, Snapshot, Version};

impl Session {
    pub fn on_sotw_request(
        &mut self,
        resource_type: ResourceType,
        request: &DiscoveryRequest,
        snapshot: Option<&Snapshot>,
        now: Instant,
    ) -> Reaction {
        let mut reaction = Reaction::default();
        let Some(state) = self.types.get(&resource_type) else {
            let claimed = (!request.version_info.is_empty()).then(|| Version::from_client(&request.version_info));
            self.open(resource_type, &request.resource_names, claimed);
            self.schedule(snapshot, &[], now, &mut reaction);
            return reaction;
        };
        // An empty nonce in mid-stream is a client that asked before it was answered.
        let nonce: u64 = match request.response_nonce.as_str() {
            "" => 0,
            nonce => nonce.parse().unwrap_or(u64::MAX),
        };
        let is_newest = nonce == state.last_nonce;
        if let Some(response) = self.answered(resource_type, nonce) {
            // Detection is by error_detail, never by comparing versions (S35).
            reaction.deliveries = match &request.error_detail {
                Some(error) => self.refuse(response, &error.message, now),
                None => self.acknowledge(response, now),
            };
        }
        if is_newest && let Some(state) = self.types.get_mut(&resource_type) {
            let changed = state.subscription.replace(&request.resource_names, &self.named);
            self.resubscribe(resource_type, changed);
        }
        self.schedule(snapshot, &[], now, &mut reaction);
        reaction
    }
}
