//! Why a plugin that applies to a proxy is not on a listener of it, or on none.

use crate::compile::matches::{matches_listener, why_no_match};
use crate::compile::merge::{Merged, MergedListener};
use crate::compile::shape::Shape;
use crate::model::{Plugin, PluginType};

/// Why the plugin is on no listener at all.
pub fn why_nowhere(plugin: &Plugin, merged: &Merged) -> String {
    if merged.listeners.is_empty() {
        let name = plugin.id.extension_name(plugin.plugin_type);
        return format!("no ProxyTemplate describes a listener of this proxy: only a static listener can name {name}");
    }
    let is_fit = |listener: &&MergedListener| is_carried(plugin, &listener.shape);
    if !merged.listeners.iter().any(|listener| is_fit(&listener)) {
        return match plugin.plugin_type {
            PluginType::Http => "no listener speaks HTTP".into(),
            PluginType::Network => "no listener has a network filter chain".into(),
        };
    }
    let listeners = merged.listeners.iter().filter(is_fit).map(|listener| {
        let shape = &listener.shape;
        format!("{} ({} {})", shape.name, shape.direction.as_str(), shape.port)
    });
    format!("match does not fit any listener: {}", listeners.collect::<Vec<_>>().join(", "))
}

/// Why the plugin is not on this listener.
pub fn why_not_on(plugin: &Plugin, shape: &Shape) -> String {
    match plugin.plugin_type {
        _ if !matches_listener(plugin, shape.direction, shape.port) => {
            why_no_match(plugin, shape.direction, shape.port)
        }
        PluginType::Http => "the listener does not speak HTTP".into(),
        PluginType::Network => "QUIC has no network filters".into(),
    }
}

fn is_carried(plugin: &Plugin, shape: &Shape) -> bool {
    shape.chains.iter().any(|chain| match plugin.plugin_type {
        PluginType::Http => chain.is_http,
        PluginType::Network => chain.is_network,
    })
}
