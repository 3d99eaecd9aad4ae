//! What ECDS resources hold: one filter's configuration, with a version of its own.
//!
//! Comes in: a plugin revision, or what stands in for one. Goes out: [`Content`], and [`Resource`]s of it.

use std::sync::Arc;

use serde_json::json;

use super::type_urls;
use crate::model::{Digest, PluginType};
use crate::snapshot::{Part, Resource, ResourceType, Rope, Version};

/// A filter's configuration, ready to be put under a name.
#[derive(Clone, Debug)]
pub struct Content {
    /// The `google.protobuf.Any`.
    pub any: Rope,
    /// Of all that decides the bytes, with the digest in the place of a module's bytes.
    pub version: Version,
    /// The plugin revisions that accepting it proves.
    pub parts: Vec<Part>,
    /// Modules that it names by digest.
    pub fetched: Vec<Digest>,
}

impl Content {
    fn plain(type_url: &str, message: &Rope, version: Version) -> Self {
        Self { any: Rope::any(type_url, message), version, parts: Vec::new(), fetched: Vec::new() }
    }

    /// The ECDS resource of that name.
    pub fn into_resource(self, name: &str) -> Resource {
        let version = Version::of_set([(name, &self.version)].into_iter());
        let body = named(name, &self.any);
        let mut resource = Resource::of_parts(ResourceType::ExtensionConfig, name, version, self.parts, body);
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
    Content::plain(type_url, &message, Version::of(&json!({"type_url": type_url, "is_open": is_open})))
}

/// A filter under the name that it has in a chain.
#[derive(Clone, Debug)]
pub struct Filter {
    pub name: String,
    pub content: Content,
    /// It as one `filters` field of a chain.
    field: Rope,
}

impl Filter {
    pub fn new(name: String, content: Content) -> Self {
        let mut field = Rope::new();
        field.message(1, &named(&name, &content.any));
        Self { field: field.packed(), name, content }
    }
}

/// A `FilterChainConfig` of filters in order; without any it passes everything through. Its version is made of theirs, so
/// that one which changed costs no look at what the others are made of.
pub fn chain(filters: &[Arc<Filter>]) -> Content {
    let mut fields = Rope::new();
    filters.iter().for_each(|filter| fields.append(&filter.field));
    let mut config = Rope::new();
    if !fields.is_empty() {
        config.message(1, &fields);
    }
    let version = Version::of_set(filters.iter().map(|filter| (&*filter.name, &filter.content.version)));
    let contents = || filters.iter().map(|filter| &filter.content);
    Content {
        parts: contents().flat_map(|content| &content.parts).cloned().collect(),
        fetched: contents().flat_map(|content| &content.fetched).copied().collect(),
        ..Content::plain(type_urls::FILTER_CHAIN, &config, version)
    }
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
    use serde_json::Value;

    use super::*;
    use crate::protobuf::to_json;

    fn shown(resource: &Resource) -> Value {
        to_json("envoy.config.core.v3.TypedExtensionConfig", &resource.body.to_bytes())
    }

    fn filter(name: &str, is_open: bool) -> Arc<Filter> {
        Arc::new(Filter::new(name.into(), rbac(PluginType::Http, is_open)))
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
        let filters = ["shop/b", "shop/a"].map(|name| filter(name, false));
        let resource = chain(&filters).into_resource("wasmplane/l/x");
        let filters = &shown(&resource)["typed_config"]["default_filter_chain"]["filters"];
        assert_eq!((&filters[0]["name"], &filters[1]["name"]), (&json!("shop/b"), &json!("shop/a")));
        let empty = shown(&chain(&[]).into_resource("e"));
        assert_eq!(empty, json!({"name": "e", "typed_config": {"@type": type_urls::FILTER_CHAIN}}));
    }

    #[test]
    fn different_content_has_different_versions() {
        let contents = [
            rbac(PluginType::Http, true),
            rbac(PluginType::Http, false),
            rbac(PluginType::Network, true),
            chain(&[]),
            chain(&[filter("a", true)]),
            chain(&[filter("b", true)]),
            chain(&[filter("b", false)]),
            chain(&[filter("a", true), filter("b", true)]),
            chain(&[filter("b", true), filter("a", true)]),
        ];
        let named = |content: &Content| ["x", "y"].map(|name| content.clone().into_resource(name).version.clone());
        let versions: std::collections::BTreeSet<_> = contents.iter().flat_map(named).collect();
        assert_eq!(versions.len(), 18);
    }
}
