//! What makes two kinds of proxy one: a hash of everything that decides what they are served.

use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};

use super::{Kind, KindKey, Member, Run, size};
use crate::model::ProxyTemplate;

impl Kind {
    /// Equal for proxies that are served the same. Content decides, not where it lies in memory.
    pub fn key(&self) -> KindKey {
        let mut hash = Sha256::new();
        let Self { namespace, root_namespace, capabilities, by_digest, .. } = self;
        hash.update(format!("{namespace:?} {root_namespace:?} {capabilities:?} {by_digest:?}\n"));
        let mut members = Bytes::default();
        let is_tight = size::is_tight(self);
        for member in &self.plugins {
            hash_member(member, &mut members);
            if is_tight {
                // Who gets its room first.
                let accepted = member.accepted.as_ref().map(|accepted| accepted.revision);
                (member.plugin.created, accepted).hash(&mut members);
            }
        }
        hash.update(members.0);
        for template in &self.templates {
            hash_template(template, &mut hash);
        }
        KindKey(hex::encode(hash.finalize()).into())
    }
}

/// All that is hashed. Every value of the types that are hashed here begins as no other does, or ends where it says.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the bytes are hashed together")
    }
}

/// A revision covers what Envoy is given for a plugin; where it stands is beside it. The order is the list's.
fn hash_member(member: &Member, bytes: &mut Bytes) {
    let plugin = &member.plugin;
    (&plugin.id, plugin.plugin_type, plugin.position, plugin.fail_strategy, &plugin.matches).hash(bytes);
    match &member.run {
        Run::Revision(revision) => (0, revision.revision).hash(bytes),
        Run::LastGood(revision, reason) => (1, revision.revision, reason).hash(bytes),
        Run::StandIn { reason } => (2, reason).hash(bytes),
        Run::Unsupported { reason } => (3, reason).hash(bytes),
        Run::TooLarge { reason } => (4, reason).hash(bytes),
        Run::Disabled => 5.hash(bytes),
        Run::Absent => 6.hash(bytes),
    }
}

fn hash_template(template: &ProxyTemplate, hash: &mut Sha256) {
    let ProxyTemplate { id, created: _, selector: _, without_config, listeners, native } = template;
    hash.update(format!("\n{id} {without_config:?} {listeners:?}\n"));
    for resource in native {
        hash.update(format!("{:?} {:?} {}:", resource.kind, resource.name, resource.message.len()));
        hash.update(&resource.message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::compile::fixtures::{kind, revision, template};
    use crate::model::{Position, WithoutConfig};

    #[test]
    fn equal_content_is_one_kind_and_every_difference_makes_another() {
        let base = || kind(vec![template("shop/web")], vec![revision("shop/a", "one")]);
        let mut moved = base();
        Arc::make_mut(&mut moved.plugins[0].plugin).position = Position::PreAuthN;
        let mut allowing = base();
        Arc::make_mut(&mut allowing.templates[0]).without_config = WithoutConfig::Allow;
        let mut chained = base();
        chained.capabilities.chain = !chained.capabilities.chain;
        let edited = kind(vec![template("shop/web")], vec![revision("shop/a", "two")]);

        assert_eq!(base().key(), base().key());
        let keys: std::collections::HashSet<_> =
            [base(), moved, allowing, chained, edited].iter().map(|kind| kind.key()).collect();
        assert_eq!(keys.len(), 5);
    }
}
