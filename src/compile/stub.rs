//! The filter that a listener names and ECDS fills: a name, a default, and the types that may come.
//!
//! All users of a name agree on these, and they never change while the name lives (design, section 5, rule 1).

use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, ExtensionConfigSource, config_source,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::content::rbac;
use super::type_urls;
use crate::model::{Plugin, PluginType, WithoutConfig};
use crate::snapshot::STAGING;

/// A filter whose configuration comes by ECDS.
#[derive(Clone, Debug)]
pub struct Stub {
    pub name: String,
    source: ExtensionConfigSource,
}

impl Stub {
    /// A gap's chain of plugins.
    pub fn chain(name: String, without_config: WithoutConfig) -> Self {
        let is_open = without_config == WithoutConfig::Allow;
        Self::new(name, PluginType::Http, is_open, &[type_urls::FILTER_CHAIN, type_urls::HTTP_RBAC])
    }

    /// One plugin; `has_wasm` is whether the Envoy can run it.
    pub fn plugin(plugin: &Plugin, has_wasm: bool) -> Self {
        use type_urls::{HTTP_LUA, HTTP_RBAC, HTTP_WASM, NETWORK_RBAC, NETWORK_WASM};
        let types: &[&str] = match (plugin.plugin_type, has_wasm) {
            (PluginType::Http, true) => &[HTTP_WASM, HTTP_LUA, HTTP_RBAC],
            (PluginType::Http, false) if plugin.wasm().is_none() => &[HTTP_LUA, HTTP_RBAC],
            (PluginType::Http, false) => &[HTTP_RBAC],
            (PluginType::Network, true) => &[NETWORK_WASM, NETWORK_RBAC],
            (PluginType::Network, false) => &[NETWORK_RBAC],
        };
        let name = plugin.id.extension_name(plugin.plugin_type);
        Self::new(name, plugin.plugin_type, plugin.fail_strategy.is_open(), types)
    }

    /// The way into the code cache. The static listener of a bootstrap says the same.
    pub fn staging() -> Self {
        Self::new(STAGING.into(), PluginType::Http, true, &[type_urls::HTTP_WASM, type_urls::HTTP_RBAC])
    }

    fn new(name: String, plugin_type: PluginType, is_open: bool, types: &[&str]) -> Self {
        let default_config = Any::decode(rbac(plugin_type, is_open).any.to_bytes()).expect("an Any was encoded");
        let ads = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
        let source = ExtensionConfigSource {
            config_source: Some(ConfigSource {
                resource_api_version: ApiVersion::V3.into(),
                config_source_specifier: Some(ads),
                ..Default::default()
            }),
            default_config: Some(default_config),
            apply_default_config_without_warming: false,
            type_urls: types.iter().map(ToString::to_string).collect(),
        };
        Self { name, source }
    }

    pub fn into_http(self) -> HttpFilter {
        let config_type = Some(http_filter::ConfigType::ConfigDiscovery(self.source));
        HttpFilter { name: self.name, config_type, ..Default::default() }
    }

    pub fn into_network(self) -> Filter {
        Filter { name: self.name, config_type: Some(filter::ConfigType::ConfigDiscovery(self.source)) }
    }
}
