//! Where in the chains of a listener plugins stand: every gap, between the names of the filters that bound it.

use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::Message as _;

use crate::compile::anchors::{Gap, http_gaps, network_gaps};
use crate::compile::shape;
use crate::model::PluginType;

/// A gap, with the filters that the user wrote around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub plugin_type: PluginType,
    /// The `upgrade_type` whose own filters these are; empty for those of the connection manager.
    pub upgrade: String,
    pub gap: Gap,
    /// The anchor that ends the gap before; absent for the first.
    pub after: Option<String>,
    /// The filter directly behind the gap.
    pub before: Option<String>,
}

/// The places of each chain, in the order of [`shape::Shape`]: the default chain is the last.
pub fn places(listener: &Listener) -> Vec<Vec<Place>> {
    let is_quic = shape::is_quic_listener(listener);
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.map(|chain| of_chain(chain, !is_quic && !shape::is_quic(chain))).collect()
}

fn of_chain(chain: &FilterChain, is_network: bool) -> Vec<Place> {
    let mut places = Vec::new();
    if is_network {
        let names = chain.filters.iter().map(|filter| filter.name.as_str()).collect();
        places.extend(named(PluginType::Network, "", network_gaps(&chain.filters), names));
    }
    let managers =
        chain.filters.iter().filter_map(|filter| HttpConnectionManager::decode(shape::manager(filter)?).ok());
    for manager in managers {
        let upgrades = manager.upgrade_configs.iter().filter(|upgrade| !upgrade.filters.is_empty());
        let upgrades = upgrades.map(|upgrade| (upgrade.upgrade_type.as_str(), &upgrade.filters));
        for (upgrade, filters) in [("", &manager.http_filters)].into_iter().chain(upgrades) {
            let names = filters.iter().map(|filter| filter.name.as_str()).collect();
            places.extend(named(PluginType::Http, upgrade, http_gaps(filters), names));
        }
    }
    places
}

fn named(plugin_type: PluginType, upgrade: &str, gaps: Vec<Gap>, names: Vec<&str>) -> Vec<Place> {
    let name_at = |gap: &Gap| names.get(gap.at).map(|name| (*name).to_owned());
    let after = |index: usize| name_at(gaps.get(index.checked_sub(1)?)?);
    let place = |(index, gap): (usize, &Gap)| Place {
        plugin_type,
        upgrade: upgrade.to_owned(),
        gap: *gap,
        after: after(index),
        before: name_at(gap),
    };
    gaps.iter().enumerate().map(place).collect()
}
