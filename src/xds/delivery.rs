//! What became of a resource at one client.

use std::sync::Arc;

use dashmap::DashSet;

use crate::model::EnvoyVersion;
use crate::snapshot::{Part, Resource, Version};

/// A client's answer to one resource.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub resource: Arc<Resource>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, or found to be held already when the client reconnected.
    Accepted,
    /// Refused, in the client's words.
    Refused { message: String },
}

/// A client's words are kept by several, for long: Envoy's own are a line or two.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What is kept of a client's words.
pub(super) fn bounded(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// Parts that some client of a build has accepted, shared by all streams.
///
/// A NACK of one ECDS name ends the warming of every listener of that Envoy, so that while one warms, what is known to
/// be accepted goes first.
#[derive(Debug, Default)]
pub struct Proofs {
    accepted: DashSet<(Option<EnvoyVersion>, Part)>,
    /// Resources of several parts that are all in `accepted`: almost every ACK is of one that others have acknowledged.
    whole: DashSet<(Option<EnvoyVersion>, String, Version)>,
}

/// A proof takes some 150 bytes: 30 MB at most. Past it everything is proved anew, which costs only time.
const PROOFS: usize = 100_000;

impl Proofs {
    pub fn record(&self, build: Option<EnvoyVersion>, resource: &Resource) {
        if self.covers_whole(build, resource) {
            return;
        }
        if self.accepted.len().max(self.whole.len()) >= PROOFS {
            self.whole.clear();
            self.accepted.clear();
        }
        for part in &resource.parts {
            if !self.accepted.contains(&(build, part.clone())) {
                self.accepted.insert((build, part.clone()));
            }
        }
        if resource.parts.len() > 1 {
            self.whole.insert((build, resource.name.clone(), resource.version.clone()));
        }
    }

    /// Whether nothing in this resource can surprise a client of that build.
    pub fn cover(&self, build: Option<EnvoyVersion>, resource: &Resource) -> bool {
        self.covers_whole(build, resource)
            || resource.parts.iter().all(|part| self.accepted.contains(&(build, part.clone())))
    }

    fn covers_whole(&self, build: Option<EnvoyVersion>, resource: &Resource) -> bool {
        resource.parts.len() > 1 && self.whole.contains(&(build, resource.name.clone(), resource.version.clone()))
    }
}
