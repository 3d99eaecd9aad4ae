//! A proxy as it describes itself, and what it has shown of itself since.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{PluginId, Revision};

/// The label whose presence makes a proxy a Gateway of the Gateway API; its value is the Gateway's name (Istio: R2.4).
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Labels that a proxy must carry, each with the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    /// AND, exact, case-sensitive; an empty selector matches all (Istio: R2.3).
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.mismatch(labels).is_none()
    }

    /// The first label that the proxy lacks, in the order of the keys.
    pub fn mismatch(&self, labels: &BTreeMap<String, String>) -> Option<(&str, &str)> {
        self.0
            .iter()
            .find(|(key, value)| labels.get(*key) != Some(value))
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// `user_agent_build_version` of an Envoy, or a known release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvoyVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl EnvoyVersion {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What an Envoy can do, as its node says. Two independent facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capabilities {
    /// Lists `envoy.filters.http.filter_chain`: a whole gap of plugins may be one ECDS resource.
    pub chain: bool,
    /// Lists `envoy.wasm.runtime.v8`, or lists nothing at all.
    pub wasm: bool,
}

impl Default for Capabilities {
    /// Nothing known: filter mode with Wasm.
    fn default() -> Self {
        Self { chain: false, wasm: true }
    }
}

/// How modules reach a proxy (design, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModuleDelivery {
    /// Inside the resources that name them.
    #[default]
    Inline,
    /// The proxy fetches each once and keeps it; resources name its digest.
    Digest,
}

/// A connected proxy, as its xDS node describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `node.id`: a name for people, not an identity: there are fleets in which all have the same.
    pub node_id: String,
    /// `metadata.NAME`, or what an Istio-style id says; empty where neither does. For people, too.
    pub name: String,
    pub cluster: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub version: Option<EnvoyVersion>,
    pub capabilities: Capabilities,
}

impl Proxy {
    /// What its process is remembered by while it is away: node id and Envoy build. Nothing is remembered of those that
    /// share an id.
    pub fn remembered_as(&self) -> String {
        let build = self.version.map(|version| version.to_string()).unwrap_or_default();
        format!("{} {build}", self.node_id)
    }

    /// A proxy of which nothing more is known.
    #[cfg(test)]
    pub fn named(node_id: &str, namespace: &str) -> Self {
        Self {
            node_id: node_id.into(),
            name: String::new(),
            cluster: String::new(),
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            version: None,
            capabilities: Capabilities::default(),
        }
    }
}

/// What a proxy has shown of itself since it started; part of what makes its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyFacts {
    /// Plugin revisions that this Envoy refused. They are not sent to it again.
    pub refused: BTreeSet<(PluginId, Revision)>,
    /// Plugin revisions that wait while it is found out which of several this Envoy refused.
    pub aside: BTreeSet<(PluginId, Revision)>,
    /// What ran here of a plugin when a revision of it was refused or set aside: it stays in its place.
    pub last_good: BTreeMap<PluginId, Revision>,
    /// Plugins that had no module when this proxy started: their fail strategy stands in for them here, until they
    /// are ready.
    pub stand_ins: BTreeSet<PluginId>,
    /// Digest until it fell back.
    pub delivery: ModuleDelivery,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_selector_wants_every_label_with_its_value() {
        let selector = Selector(labels(&[("app", "web"), ("tier", "")]));
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", ""), ("extra", "x")])));
        assert_eq!(selector.mismatch(&labels(&[("app", "web")])), Some(("tier", "")));
        assert_eq!(selector.mismatch(&labels(&[("app", "Web"), ("tier", "")])), Some(("app", "web")));
    }
}
