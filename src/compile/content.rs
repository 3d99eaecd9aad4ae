//! What ECDS resources hold: one filter's configuration, with the source that its version is computed from.
//!
//! Comes in: a plugin revision, or what stands in for one. Goes out: [`Content`], and [`Resource`]s of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::type_urls;
use crate::model::{Digest, PluginType};
use crate::snapshot::{Part, Resource, ResourceType, Rope, Version};

/// A filter's configuration, ready to be put under a name.
#[derive(Clone, Debug)]
pub struct Content {
    /// The `google.protobuf.Any`.
    pub any: Rope,
    /// All that decides the bytes, with the digest in the place of a module's bytes.
    pub source: Value,
    /// The plugin revisions that accepting it proves.
    pub parts: Vec<Part>,
    /// Modules that it names by digest.
    pub fetched: Vec<Digest>,
}

impl Content {
    fn plain(type_url: &str, message: &Rope, source: Value) -> Self {
        Self { any: Rope::any(type_url, message), source, parts: Vec::new(), fetched: Vec::new() }
    }

    /// The ECDS resource of that name.
    pub fn into_resource(self, name: &str) -> Resource {
        let version = Version::of(&json!({"name": name, "typed_config": self.source}));
        let mut resource = Resource::new(ResourceType::ExtensionConfig, name, version, named(name, &self.any));
        resource.parts = self.parts.into();
        resource.fetched = self.fetched.into();
        resource
    }

    /// The same, with what to send instead when the client refuses it and holds nothing yet.
    pub fn into_resource_or(self, name: &str, stand_in: Content) -> Resource {
        let can_be_refused = !self.parts.is_empty();
        let mut resource = self.into_resource(name);
        resource.stand_in = can_be_refused.then(|| Arc::new(stand_in.into_resource(name)));
        resource
    }
}

/// An RBAC filter without rules lets everything pass, one with an empty set of rules nothing.
pub fn rbac(plugin_type: PluginType, is_open: bool) -> Content {
    let mut message = Rope::new();
    if !is_open {
        // rules = 1: config.rbac.v3.RBAC, whose zero action is ALLOW, with no policy.
        message.message(1, &Rope::new());
    }
    let type_url = match plugin_type {
        PluginType::Http => type_urls::HTTP_RBAC,
        PluginType::Network => {
            message.string(3, "wasmplane");
            type_urls::NETWORK_RBAC
        }
    };
    Content::plain(type_url, &message, json!({"type_url": type_url, "is_open": is_open}))
}

/// A `FilterChainConfig` of named members, in order; without members it passes everything through.
pub fn chain(members: Vec<(String, Content)>) -> Content {
    let mut filters = Rope::new();
    let mut source = Vec::new();
    let (mut parts, mut fetched) = (Vec::new(), Vec::new());
    for (name, content) in members {
        filters.message(1, &named(&name, &content.any));
        source.push(json!({"name": name, "typed_config": content.source}));
        parts.extend(content.parts);
        fetched.extend(content.fetched);
    }
    let mut config = Rope::new();
    if !filters.is_empty() {
        config.message(1, &filters);
    }
    let source = json!({"type_url": type_urls::FILTER_CHAIN, "filters": source});
    Content { parts, fetched, ..Content::plain(type_urls::FILTER_CHAIN, &config, source) }
}

/// A `TypedExtensionConfig`.
fn named(name: &str, any: &Rope) -> Rope {
    let mut config = Rope::new();
    config.string(1, name);
    config.message(2, any);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::to_json;

    fn shown(resource: &Resource) -> Value {
        to_json("envoy.config.core.v3.TypedExtensionConfig", &resource.body.to_bytes())
    }

    #[test]
    fn rbac_stand_ins_are_what_envoy_reads_as_allow_and_deny() {
        let content =
            |plugin_type, is_open| shown(&rbac(plugin_type, is_open).into_resource("x"))["typed_config"].clone();
        assert_eq!(content(PluginType::Http, true), json!({"@type": type_urls::HTTP_RBAC}));
        assert_eq!(content(PluginType::Http, false), json!({"@type": type_urls::HTTP_RBAC, "rules": {}}));
        assert_eq!(
            content(PluginType::Network, false),
            json!({"@type": type_urls::NETWORK_RBAC, "rules": {}, "stat_prefix": "wasmplane"})
        );
    }

    #[test]
    fn a_chain_holds_its_members_in_order_and_may_be_empty() {
        let deny = || rbac(PluginType::Http, false);
        let resource = chain(vec![("shop/b".into(), deny()), ("shop/a".into(), deny())]).into_resource("wasmplane/l/x");
        let filters = &shown(&resource)["typed_config"]["default_filter_chain"]["filters"];
        assert_eq!((&filters[0]["name"], &filters[1]["name"]), (&json!("shop/b"), &json!("shop/a")));
        let empty = shown(&chain(Vec::new()).into_resource("e"));
        assert_eq!(empty, json!({"name": "e", "typed_config": {"@type": type_urls::FILTER_CHAIN}}));
    }

    #[test]
    fn different_content_has_different_versions() {
        let versions: std::collections::BTreeSet<_> = [
            rbac(PluginType::Http, true),
            rbac(PluginType::Http, false),
            rbac(PluginType::Network, true),
            chain(Vec::new()),
            chain(vec![("a".into(), rbac(PluginType::Http, true))]),
            chain(vec![("b".into(), rbac(PluginType::Http, true))]),
        ]
        .into_iter()
        .map(|content| content.into_resource("x").version)
        .collect();
        assert_eq!(versions.len(), 6);
    }
}
