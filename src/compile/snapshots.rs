//! From a kind of proxy to all that it is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;

use super::carried::{Served, carried};
use super::extensions::{Catalog, HttpPlugins};
use super::fill::{Filling, HttpFilling, fill};
use super::filters::Filters;
use super::merge::{Merged, MergedListener, merge};
use super::plan::Plan;
use super::stub::Stub;
use super::{Compiled, Kind, Member, Mode, Problem, Run, emit, staging};
use crate::model::{Plugin, Position};
use crate::snapshot::{Resource, ResourceType, STAGING, Snapshot};

/// Compiles a kind of proxy. Bad input is a problem beside the good output.
pub fn compile(kind: &Kind) -> Compiled {
    compile_with(kind, &Filters::default())
}

/// The same from filters that are there already, and leaves there those that are not; the result does not show which.
pub fn compile_with(kind: &Kind, filters: &Filters) -> Compiled {
    let mut merged = merge(&kind.templates);
    let mut problems = std::mem::take(&mut merged.problems);
    let plugins: Vec<&Plugin> = kind.plugins.iter().map(|member| &*member.plugin).collect();
    let plans: Vec<_> = merged.listeners.iter().map(|listener| Plan::of(&listener.shape, &plugins)).collect();
    let catalog = Arc::new(Catalog::new(kind, http_plugins(&merged, &plans), filters));
    let mut served = Vec::new();
    for (listener, plan) in merged.listeners.iter().zip(plans).filter(|(listener, _)| !listener.is_shadowed) {
        served.push(serve(kind, listener, plan, &merged, &mut problems));
    }
    problems.extend(unheeded_matches(kind));
    let mut listeners: BTreeMap<_, _> =
        served.iter().map(|it| (it.resource.name.to_string(), it.resource.clone())).collect();
    if let Some(server) = &kind.by_digest {
        merged.clusters.extend(server.cluster().map(|it| (it.name.clone(), it.encode_to_vec().into())));
        listeners.insert(STAGING.into(), Arc::new(staging_listener(&merged)));
    }
    let snapshot = Snapshot {
        listeners,
        clusters: emit::resources(ResourceType::Cluster, &merged.clusters, &merged),
        routes: emit::resources(ResourceType::Route, &merged.routes, &merged),
        endpoints: emit::resources(ResourceType::Endpoint, &merged.endpoints, &merged),
        extensions: catalog.clone(),
    };
    let plugins = carried(kind, &served, &catalog);
    // All plugins of a chain have the same ones.
    let carriers: BTreeMap<_, _> =
        plugins.iter().flat_map(|plugin| &plugin.carriers).map(|carrier| (carrier.key(), carrier)).collect();
    let carriers = carriers.into_values().cloned().collect();
    Compiled { snapshot: Arc::new(snapshot), plugins, carriers, problems }
}

fn staging_listener(merged: &Merged) -> Resource {
    let bytes = staging::listener().encode_to_vec().into();
    let mut listener = emit::resource(ResourceType::Listener, STAGING, bytes, merged);
    listener.references.push((ResourceType::ExtensionConfig, STAGING.into()));
    listener
}

fn http_plugins(merged: &Merged, plans: &[Plan]) -> BTreeMap<String, HttpPlugins> {
    let of = |(listener, plan): (&MergedListener, &Plan)| {
        let plugins = HttpPlugins { without_config: listener.without_config, plugins: plan.http.clone() };
        (listener.shape.name.clone(), plugins)
    };
    merged.listeners.iter().zip(plans).map(of).collect()
}

fn serve(kind: &Kind, listener: &MergedListener, plan: Plan, merged: &Merged, problems: &mut Vec<Problem>) -> Served {
    let mut message = listener.message.clone();
    let filled = fill(&mut message, &filling(kind, listener, &plan));
    problems.extend(filled.faults.into_iter().map(|reason| Problem::of_template(&listener.template, reason)));
    let name = &listener.shape.name;
    let mut resource = emit::resource(ResourceType::Listener, name, message.encode_to_vec().into(), merged);
    resource.references.extend(filled.names.into_iter().map(|name| (ResourceType::ExtensionConfig, name.into())));
    resource.is_partial = lacks_filter(kind, &plan);
    Served { plan, resource: Arc::new(resource) }
}

fn filling(kind: &Kind, listener: &MergedListener, plan: &Plan) -> Filling {
    let stubs = |indexes: &[usize]| indexes.iter().filter_map(|index| stub(kind, &kind.plugins[*index])).collect();
    let http = match Mode::of(kind.capabilities) {
        Mode::Chain => HttpFilling::PerGap(listener.without_config),
        Mode::Filter | Mode::NoWasm => HttpFilling::PerPlugin(stubs(&plan.http)),
    };
    Filling { http, network: stubs(&plan.network) }
}

/// Whether a plugin that has a filter of its own here has none for want of a module.
fn lacks_filter(kind: &Kind, plan: &Plan) -> bool {
    let http = plan.http.iter().filter(|_| Mode::of(kind.capabilities) != Mode::Chain);
    http.chain(&plan.network).any(|index| matches!(kind.plugins[*index].run, Run::Absent))
}

/// The filter of a plugin of its own. It stays through a stand-in and while the plugin is disabled, so that the listener
/// does not change with it.
fn stub(kind: &Kind, member: &Member) -> Option<(Position, Stub)> {
    let (plugin, has_wasm) = (&member.plugin, kind.capabilities.wasm);
    let is_left_out = !has_wasm && plugin.wasm().is_some() && plugin.fail_strategy.is_open();
    let is_nothing = matches!(member.run, Run::Absent) || is_left_out;
    (!is_nothing).then(|| (plugin.position, Stub::plugin(plugin, has_wasm)))
}

/// Without a template nothing says which listener has which port and direction.
fn unheeded_matches(kind: &Kind) -> impl Iterator<Item = Problem> {
    let members = kind.plugins.iter().filter(|_| kind.templates.is_empty());
    members.filter(|member| !member.plugin.matches.is_empty()).map(|member| {
        Problem::of_plugin(&member.plugin, "match is ignored: no ProxyTemplate describes the proxy's listeners".into())
    })
}
