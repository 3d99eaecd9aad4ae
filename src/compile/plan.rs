//! Which plugins stand on a listener and on each of its chains, in order. No bytes, no modules.

use std::borrow::Borrow;

use super::matches::matches_listener;
use super::shape::{ChainShape, Shape};
use crate::model::{Plugin, PluginType};

/// The plugins of one listener, as indexes into the plugins of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// On every chain that has an HTTP connection manager.
    pub http: Vec<usize>,
    /// On every chain but QUIC.
    pub network: Vec<usize>,
}

impl Plan {
    /// Plans a listener for `plugins` in the order in which they run.
    pub fn of<P: Borrow<Plugin>>(shape: &Shape, plugins: &[P]) -> Self {
        let mut plan = Self::default();
        for (index, plugin) in plugins.iter().enumerate() {
            let plugin = plugin.borrow();
            let is_here = matches_listener(plugin, shape.direction, shape.port);
            match plugin.plugin_type {
                PluginType::Http if is_here && shape.chains.iter().any(|chain| chain.is_http) => plan.http.push(index),
                PluginType::Network if is_here && shape.chains.iter().any(|chain| chain.is_network) => {
                    plan.network.push(index);
                }
                _ => {}
            }
        }
        plan
    }

    /// The part of the plan that falls on one chain.
    pub fn on(&self, chain: &ChainShape) -> Self {
        let keep = |plugins: &Vec<usize>, is_carried: bool| if is_carried { plugins.clone() } else { Vec::new() };
        Self { http: keep(&self.http, chain.is_http), network: keep(&self.network, chain.is_network) }
    }

    /// Every plugin on the listener.
    pub fn has(&self, plugin: usize) -> bool {
        // Both are in order.
        self.http.binary_search(&plugin).is_ok() || self.network.binary_search(&plugin).is_ok()
    }
}
