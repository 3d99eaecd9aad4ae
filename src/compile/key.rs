//! What makes two kinds of proxy one: a hash of everything that decides what they are served.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{Kind, KindKey, Member, Run};
use crate::model::ProxyTemplate;

impl Kind {
    /// Equal for proxies that are served the same. Content decides, not where it lies in memory.
    pub fn key(&self) -> KindKey {
        let mut hash = Sha256::new();
        let Self { namespace, root_namespace, capabilities, by_digest, .. } = self;
        let mut text = format!("{namespace:?} {root_namespace:?} {capabilities:?} {by_digest:?}\n");
        for member in &self.plugins {
            write_member(member, &mut text);
        }
        hash.update(text.as_bytes());
        for template in &self.templates {
            hash_template(template, &mut hash);
        }
        KindKey(hex::encode(hash.finalize()).into())
    }
}

/// A revision covers what Envoy is given for a plugin; where it stands is beside it. The order is the list's.
fn write_member(member: &Member, text: &mut String) {
    let plugin = &member.plugin;
    let run = match &member.run {
        Run::Revision(revision) => format!("revision {}", revision.revision),
        Run::LastGood(revision, reason) => format!("last good {} {reason:?}", revision.revision),
        Run::StandIn { reason } => format!("stand-in {reason:?}"),
        Run::Unsupported { reason } => format!("unsupported {reason:?}"),
        Run::TooLarge { reason } => format!("too large {reason:?}"),
        Run::Disabled => "disabled".into(),
        Run::Absent => "absent".into(),
    };
    let _ = writeln!(
        text,
        "{} {:?} {:?} {:?} {:?} {run}",
        plugin.id, plugin.plugin_type, plugin.position, plugin.fail_strategy, plugin.matches,
    );
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
