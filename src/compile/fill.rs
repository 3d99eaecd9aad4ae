//! Puts stubs of plugins into a listener: at their place in every chain, everything else kept as the user wrote it.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use prost::Message as _;

use super::anchors::{Gap, has_router, http_gaps, is_manager, network_gaps};
use super::stub::Stub;
use super::{names, shape};
use crate::model::{Position, WithoutConfig};

/// What goes into a listener.
#[derive(Debug)]
pub struct Filling {
    pub http: HttpFilling,
    /// In the order in which they run.
    pub network: Vec<(Position, Stub)>,
}

/// How HTTP plugins go into a listener.
#[derive(Debug)]
pub enum HttpFilling {
    /// Chain mode: one filter per gap, with or without plugins, so that plugins never change the listener.
    PerGap(WithoutConfig),
    /// Filter mode: one filter per plugin, in the order in which they run.
    PerPlugin(Vec<(Position, Stub)>),
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// ECDS names that the listener now uses.
    pub names: BTreeSet<String>,
    /// What is wrong with the listener, in words.
    pub faults: BTreeSet<String>,
}

/// Fills every chain of `listener`.
pub fn fill(listener: &mut Listener, filling: &Filling) -> Filled {
    let is_quic = shape::is_quic_listener(listener);
    let mut fill = Fill { listener: listener.name.clone(), filling, filled: Filled::default() };
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        fill.managers(chain);
        if !is_quic && !shape::is_quic(chain) {
            fill.network(chain);
        }
    }
    fill.filled
}

struct Fill<'a> {
    listener: String,
    filling: &'a Filling,
    filled: Filled,
}

impl Fill<'_> {
    fn managers(&mut self, chain: &mut FilterChain) {
        for filter in &mut chain.filters {
            let Some(value) = shape::manager(filter) else {
                if is_manager(filter) {
                    // Silence here would be an authentication that is not there.
                    self.fault(format!("no plugin reaches filter {}: write it as plain typed_config", filter.name));
                }
                continue;
            };
            match HttpConnectionManager::decode(value) {
                Ok(manager) => self.manager(filter, manager),
                Err(error) => self.fault(format!("an HTTP connection manager does not decode: {error}")),
            }
        }
    }

    fn manager(&mut self, filter: &mut Filter, mut manager: HttpConnectionManager) {
        let mut is_changed = self.http(&mut manager.http_filters);
        for upgrade in manager.upgrade_configs.iter_mut().filter(|upgrade| !upgrade.filters.is_empty()) {
            is_changed |= self.http(&mut upgrade.filters);
        }
        if let (true, Some(filter::ConfigType::TypedConfig(any))) = (is_changed, &mut filter.config_type) {
            any.value = manager.encode_to_vec();
        }
    }

    fn http(&mut self, filters: &mut Vec<HttpFilter>) -> bool {
        if !has_router(filters) {
            self.fault("an HTTP filter chain does not end with a router".into());
        }
        let before = filters.len();
        // From the last gap to the first, so that the indexes of the others hold.
        for gap in http_gaps(filters).iter().rev() {
            let stubs = self.stubs(gap).into_iter().map(Stub::into_http).collect::<Vec<_>>();
            self.filled.names.extend(stubs.iter().map(|stub| stub.name.clone()));
            filters.splice(gap.at..gap.at, stubs);
        }
        filters.len() > before
    }

    fn stubs(&self, gap: &Gap) -> Vec<Stub> {
        match &self.filling.http {
            HttpFilling::PerGap(without_config) => {
                let name = names::chain(&self.listener, gap.first, gap.last);
                vec![Stub::chain(name, *without_config)]
            }
            HttpFilling::PerPlugin(stubs) => in_gap(stubs, gap),
        }
    }

    fn network(&mut self, chain: &mut FilterChain) {
        for gap in network_gaps(&chain.filters).iter().rev() {
            let stubs = in_gap(&self.filling.network, gap).into_iter().map(Stub::into_network).collect::<Vec<_>>();
            self.filled.names.extend(stubs.iter().map(|stub| stub.name.clone()));
            chain.filters.splice(gap.at..gap.at, stubs);
        }
    }

    fn fault(&mut self, reason: String) {
        self.filled.faults.insert(format!("listener {}: {reason}", self.listener));
    }
}

fn in_gap(stubs: &[(Position, Stub)], gap: &Gap) -> Vec<Stub> {
    stubs.iter().filter(|(position, _)| gap.holds(*position)).map(|(_, stub)| stub.clone()).collect()
}
