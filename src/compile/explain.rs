//! Which plugins a proxy gets, where and in which order, and why the others do not apply. From manifests alone.
//!
//! Comes in: all plugins and templates, and one workload. Goes out: [`Explanation`]. The same rules and the same code
//! as for real proxies; only modules and capabilities are left out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::applies::{applies, template_applies};
use super::fill::{Filling, HttpFilling, fill};
use super::merge::{Merged, MergedListener, merge};
use super::plan::Plan;
use super::{Problem, order};
use crate::model::{Direction, ListenerProtocol, Plugin, PluginId, PluginType, ProxyTemplate};

/// The proxy that is asked about.
#[derive(Clone, Debug)]
pub struct Workload {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub root_namespace: String,
}

/// What a workload gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub listeners: Vec<ExplainedListener>,
    /// Plugins that are on no listener, with the reason.
    pub skipped: Vec<(PluginId, String)>,
    /// Of the templates that select the workload.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedListener {
    pub name: String,
    pub direction: Direction,
    /// 0 where the address has no port.
    pub port: u16,
    pub protocol: ListenerProtocol,
    /// The union over the chains, in the order in which they run; so is `network`.
    pub http: Vec<PluginId>,
    pub network: Vec<PluginId>,
    pub chains: Vec<ExplainedChain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedChain {
    pub name: String,
    pub http: Vec<PluginId>,
    pub network: Vec<PluginId>,
}

/// Explains `workload`.
pub fn explain<'a>(
    workload: &Workload,
    plugins: impl Iterator<Item = &'a Arc<Plugin>>,
    templates: impl Iterator<Item = &'a Arc<ProxyTemplate>>,
) -> Explanation {
    let Workload { namespace, labels, root_namespace } = workload;
    let mut templates: Vec<_> =
        templates.filter(|it| template_applies(it, namespace, labels, root_namespace)).cloned().collect();
    templates.sort_by(|a, b| order::by_precedence(a, b, namespace));
    let mut members = Vec::new();
    let mut skipped = Vec::new();
    for plugin in plugins {
        match applies(plugin, namespace, labels, root_namespace) {
            Ok(()) => members.push(plugin.clone()),
            Err(reason) => skipped.push((plugin.id.clone(), reason.to_string())),
        }
    }
    members.sort_by(|a, b| order::by_run(a, b, namespace));

    let merged = merge(&templates);
    let plans: Vec<_> = merged.listeners.iter().map(|listener| Plan::of(&listener.shape, &members)).collect();
    for (index, plugin) in members.iter().enumerate() {
        if !plans.iter().any(|plan| plan.has(index)) {
            skipped.push((plugin.id.clone(), why_nowhere(plugin, &merged)));
        }
    }
    skipped.sort();
    let listeners = merged.listeners.iter().zip(&plans).map(|(listener, plan)| listed(listener, plan, &members));
    Explanation { listeners: listeners.collect(), skipped, problems: problems(&merged) }
}

/// Clashes, and what is wrong with each listener.
fn problems(merged: &Merged) -> Vec<Problem> {
    let nothing = Filling { http: HttpFilling::PerPlugin(Vec::new()), network: Vec::new() };
    let faults = merged.listeners.iter().flat_map(|listener| {
        let filled = fill(&mut listener.message.clone(), &nothing);
        filled.faults.into_iter().map(|reason| Problem::of_template(&listener.template, reason))
    });
    merged.problems.iter().cloned().chain(faults).collect()
}

fn listed(listener: &MergedListener, plan: &Plan, plugins: &[Arc<Plugin>]) -> ExplainedListener {
    let ids = |indexes: &[usize]| indexes.iter().map(|index| plugins[*index].id.clone()).collect();
    let shape = &listener.shape;
    let chains = shape.chains.iter().map(|chain| {
        let plan = plan.on(chain);
        ExplainedChain { name: chain.name.clone(), http: ids(&plan.http), network: ids(&plan.network) }
    });
    ExplainedListener {
        name: shape.name.clone(),
        direction: shape.direction,
        port: shape.port,
        protocol: shape.protocol(),
        http: ids(&plan.http),
        network: ids(&plan.network),
        chains: chains.collect(),
    }
}

fn why_nowhere(plugin: &Plugin, merged: &Merged) -> String {
    let is_carried = |listener: &&MergedListener| match plugin.plugin_type {
        PluginType::Http => listener.shape.chains.iter().any(|chain| chain.is_http),
        PluginType::Network => listener.shape.chains.iter().any(|chain| chain.is_network),
    };
    if merged.listeners.is_empty() {
        let name = plugin.id.extension_name(plugin.plugin_type);
        return format!("no ProxyTemplate describes a listener of this proxy: only a static listener can name {name}");
    }
    if !merged.listeners.iter().any(|listener| is_carried(&listener)) {
        return match plugin.plugin_type {
            PluginType::Http => "no listener speaks HTTP".into(),
            PluginType::Network => "no listener has a network filter chain".into(),
        };
    }
    let listeners = merged.listeners.iter().filter(is_carried).map(|listener| {
        let shape = &listener.shape;
        format!("{} ({} {})", shape.name, shape.direction.as_str(), shape.port)
    });
    format!("match does not fit any listener: {}", listeners.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::{labels, listener, plugin, template};
    use crate::model::{Selector, TrafficMatch, WorkloadMode, WorkloadTarget};

    fn explained(plugins: Vec<Plugin>, listeners: Vec<crate::model::ListenerSpec>) -> Explanation {
        let workload =
            Workload { namespace: "shop".into(), labels: labels(&[("app", "web")]), root_namespace: "root".into() };
        let plugins: Vec<_> = plugins.into_iter().map(Arc::new).collect();
        let templates = [Arc::new(ProxyTemplate { listeners, ..template("shop/web") })];
        explain(&workload, plugins.iter(), templates.iter().filter(|template| !template.listeners.is_empty()))
    }

    fn spelled(ids: &[PluginId]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plugins_are_listed_by_listener_in_the_order_in_which_they_run() {
        let (mut second, mut first, mut net) = (plugin("shop/second"), plugin("root/first"), plugin("shop/net"));
        (second.priority, first.priority) = (1, 2);
        net.plugin_type = PluginType::Network;
        let listeners = vec![listener("in", 1, ListenerProtocol::Http), listener("tcp", 2, ListenerProtocol::Tcp)];
        let explanation = explained(vec![second, first, net], listeners);

        let [http, tcp] = &explanation.listeners[..] else { panic!("{explanation:?}") };
        assert_eq!(spelled(&http.http), ["root/first", "shop/second"]);
        assert_eq!(
            http.chains[0],
            ExplainedChain { name: "in".into(), http: http.http.clone(), network: http.network.clone() }
        );
        assert_eq!(
            (tcp.protocol, tcp.http.len(), spelled(&tcp.network)),
            (ListenerProtocol::Tcp, 0, vec!["shop/net".to_owned()])
        );
        assert_eq!(explanation.skipped, []);
    }

    #[test]
    fn a_plugin_on_no_listener_is_skipped_with_the_reason() {
        let mut labelled = plugin("shop/labelled");
        labelled.target = WorkloadTarget::Labels(Selector(labels(&[("app", "api")])));
        let mut client = plugin("shop/client");
        client.matches = vec![TrafficMatch { mode: WorkloadMode::Client, ports: Vec::new() }];
        let plugins = vec![plugin("other/x"), labelled, client];
        let reasons = |explanation: Explanation| -> Vec<_> {
            explanation.skipped.into_iter().map(|(id, reason)| format!("{id}: {reason}")).collect()
        };

        assert_eq!(
            reasons(explained(plugins, vec![listener("in", 1, ListenerProtocol::Http)])),
            [
                "other/x: namespace other is neither the proxy's nor the root namespace",
                "shop/client: match does not fit any listener: in (INBOUND 1)",
                "shop/labelled: selector does not match: app=api",
            ]
        );
        assert_eq!(
            reasons(explained(vec![plugin("shop/a")], vec![listener("in", 1, ListenerProtocol::Tcp)])),
            ["shop/a: no listener speaks HTTP"]
        );
        assert_eq!(
            reasons(explained(vec![plugin("shop/a")], vec![])),
            ["shop/a: no ProxyTemplate describes a listener of this proxy: only a static listener can name \
             extensions.istio.io/wasmplugin/shop.a"]
        );
    }
}
