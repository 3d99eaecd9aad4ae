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
    /// Refused, in the client's words, as far as they are kept.
    Refused { message: Arc<str> },
}

/// A client's words are kept by several, for long: Envoy's own are a line or two.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What is kept of a client's words.
pub(super) fn bounded(message: &str) -> &str {
    beginning(message, MAX_MESSAGE_BYTES)
}

/// So many bytes at most, and whole characters.
pub fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Parts that some client of a build has accepted, shared by all streams.
///
/// A NACK of one ECDS name ends the warming of every listener of that Envoy, so that while one warms, what is known to
/// be accepted goes first.
#[derive(Debug, Default)]
pub struct Proofs {
    accepted: DashSet<(Option<EnvoyVersion>, Part)>,
    /// Resources of several parts that are all in `accepted`: almost every ACK is of one that others have acknowledged.
    whole: DashSet<(Option<EnvoyVersion>, Arc<str>, Version)>,
}

/// A proof takes some 150 bytes: 30 MB at most. Past it everything is proved anew, which costs only time.
const PROOFS: usize = 100_000;

impl Proofs {
    pub fn record(&self, build: Option<EnvoyVersion>, resource: &Resource) {
        let is_known = match &resource.parts[..] {
            [] => true,
            [part] => self.accepted.contains(&(build, part.clone())),
            _ => self.covers_whole(build, resource),
        };
        // First, as it is almost always: to count the sets asks every shard of both.
        if is_known {
            return;
        }
        if self.accepted.len().max(self.whole.len()) >= PROOFS {
            self.whole.clear();
            self.accepted.clear();
        }
        for part in resource.parts.iter() {
            self.accepted.insert((build, part.clone()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_refuses_with_a_novel_is_kept_short() {
        assert_eq!(bounded("cannot bind"), "cannot bind");
        let novel = "é".repeat(1 << 20);
        assert_eq!(bounded(&novel).len(), MAX_MESSAGE_BYTES);
        assert_eq!(bounded(&format!("x{novel}")).len(), MAX_MESSAGE_BYTES - 1);
    }
}
