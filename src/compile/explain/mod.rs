//! Which plugins a proxy gets, where and in which order, and why the others do not apply.
//!
//! Comes in: the kind of a proxy, and all plugins. Goes out: [`Explanation`]. The same rules and the same code as for
//! what is served: the order is the kind's, the places are those that listeners are filled at.

mod places;
mod reasons;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::places::{Place, places};
use self::reasons::{why_not_on, why_nowhere};
use super::fill::{Filling, HttpFilling, fill};
use super::merge::{Merged, MergedListener, merge};
use super::plan::Plan;
use super::{Compiled, DISABLED, Kind, Member, Mode, Problem, Run, applies, compile, names, order};
use crate::model::{Direction, ListenerProtocol, Plugin, PluginId, PluginType, Position, Proxy};
use crate::snapshot::ResourceType;

/// What a proxy gets.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub mode: Mode,
    /// What of the Envoy decided the mode.
    pub mode_reason: String,
    /// All that apply to the proxy, in the order in which they run.
    pub plugins: Vec<ExplainedPlugin>,
    pub listeners: Vec<ExplainedListener>,
    /// Plugins that run on no listener, with the reason.
    pub skipped: Vec<(PluginId, String)>,
    /// Of the templates that select the proxy, and of plugins that its Envoy cannot run.
    pub problems: Vec<Problem>,
}

/// A plugin that applies to the proxy.
#[derive(Clone, Debug)]
pub struct ExplainedPlugin {
    pub plugin: Arc<Plugin>,
    pub run: Run,
    /// The one of its type that runs before it, and why in this order; absent for the first.
    pub after: Option<(PluginId, String)>,
    /// The extension configurations that carry it, by name.
    pub resources: Vec<String>,
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
    /// Plugins that apply to the proxy and not to this listener, with the reason.
    pub skipped: Vec<(PluginId, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedChain {
    pub name: String,
    pub http: Vec<PluginId>,
    pub network: Vec<PluginId>,
    /// Where something of ours stands, as traffic meets it.
    pub gaps: Vec<ExplainedGap>,
}

/// A run of plugins between two anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedGap {
    pub plugin_type: PluginType,
    /// The upgrade whose own filters these are; empty for those of the connection manager.
    pub upgrade: String,
    pub first: Position,
    pub last: Position,
    /// The filter that the gap stands behind, if one bounds it.
    pub after: Option<String>,
    /// The filter that the gap stands directly before.
    pub before: Option<String>,
    pub plugins: Vec<PluginId>,
    /// The extension configurations that the listener names here.
    pub resources: Vec<String>,
}

/// Explains what `proxy`, whose kind is `kind`, gets of `plugins`.
pub fn explain<'a>(kind: &Kind, proxy: &Proxy, plugins: impl Iterator<Item = &'a Arc<Plugin>>) -> Explanation {
    let merged = merge(&kind.templates);
    let members: Vec<_> = kind.plugins.iter().map(|member| member.plugin.clone()).collect();
    let plans: Vec<_> = merged.listeners.iter().map(|listener| Plan::of(&listener.shape, &members)).collect();
    let compiled = compile(kind);
    let explaining = Explaining { kind, compiled: &compiled };
    let mode = Mode::of(kind.capabilities);

    let foreign = plugins.filter_map(|plugin| {
        let is_member = members.iter().any(|member| member.id == plugin.id);
        (!is_member).then(|| (plugin.id.clone(), why_foreign(plugin, proxy, kind)))
    });
    let mut skipped: Vec<_> = foreign.collect();
    for (index, member) in kind.plugins.iter().enumerate() {
        let reason = match &member.run {
            Run::Disabled => Some(DISABLED.to_owned()),
            _ if !plans.iter().any(|plan| plan.has(index)) => Some(why_nowhere(&member.plugin, &merged)),
            _ => None,
        };
        skipped.extend(reason.map(|reason| (member.plugin.id.clone(), reason)));
    }
    skipped.sort();
    Explanation {
        mode,
        mode_reason: mode.reason(proxy.version),
        plugins: (0..kind.plugins.len()).map(|index| explaining.plugin(index)).collect(),
        listeners: merged.listeners.iter().zip(&plans).map(|(it, plan)| explaining.listener(it, plan)).collect(),
        skipped,
        problems: problems(&merged, kind),
    }
}

fn why_foreign(plugin: &Plugin, proxy: &Proxy, kind: &Kind) -> String {
    match applies(plugin, &proxy.namespace, &proxy.labels, &kind.root_namespace) {
        Err(reason) => reason.to_string(),
        Ok(()) => "its new specification applies here once its module is ready".into(),
    }
}

/// Clashes, what is wrong with each listener, and what the Envoy cannot run.
fn problems(merged: &Merged, kind: &Kind) -> Vec<Problem> {
    let nothing = Filling { http: HttpFilling::PerPlugin(Vec::new()), network: Vec::new() };
    let faults = merged.listeners.iter().flat_map(|listener| {
        let filled = fill(&mut listener.message.clone(), &nothing);
        filled.faults.into_iter().map(|reason| Problem::of_template(&listener.template, reason))
    });
    let unsupported = kind.plugins.iter().filter_map(|member| match &member.run {
        Run::Unsupported { reason } | Run::LastGood(_, Some(reason)) => {
            Some(Problem::of_plugin(&member.plugin, reason.clone()))
        }
        _ => None,
    });
    merged.problems.iter().cloned().chain(faults).chain(unsupported).collect()
}

struct Explaining<'a> {
    kind: &'a Kind,
    compiled: &'a Compiled,
}

impl Explaining<'_> {
    fn plugin(&self, index: usize) -> ExplainedPlugin {
        let Member { plugin, run, .. } = &self.kind.plugins[index];
        let mut before = self.kind.plugins[..index].iter().rev().map(|member| &member.plugin);
        let before = before.find(|before| before.plugin_type == plugin.plugin_type);
        let why = |before: &Arc<Plugin>| (before.id.clone(), order::why_after(before, plugin, &self.kind.namespace));
        let carriers = self.compiled.plugins.get(index).map_or(&[][..], |carried| &carried.carriers);
        let resources = carriers.iter().filter(|carrier| carrier.resource_type == ResourceType::ExtensionConfig);
        ExplainedPlugin {
            plugin: plugin.clone(),
            run: run.clone(),
            after: before.map(why),
            resources: resources.map(|carrier| carrier.name.to_string()).collect(),
        }
    }

    fn listener(&self, listener: &MergedListener, plan: &Plan) -> ExplainedListener {
        let shape = &listener.shape;
        let chains = shape.chains.iter().zip(places(&listener.message)).map(|(chain, places)| {
            let plan = plan.on(chain);
            let gaps = places.into_iter().map(|place| self.gap(&shape.name, place, &plan));
            ExplainedChain {
                name: chain.name.clone(),
                http: self.ids(&plan.http),
                network: self.ids(&plan.network),
                gaps: gaps.filter(|gap| !gap.plugins.is_empty() || !gap.resources.is_empty()).collect(),
            }
        });
        let others = self.kind.plugins.iter().enumerate().filter(|(index, _)| !plan.has(*index));
        ExplainedListener {
            name: shape.name.clone(),
            direction: shape.direction,
            port: shape.port,
            protocol: shape.protocol(),
            http: self.ids(&plan.http),
            network: self.ids(&plan.network),
            chains: chains.collect(),
            skipped: others.map(|(_, other)| (other.plugin.id.clone(), why_not_on(&other.plugin, shape))).collect(),
        }
    }

    fn gap(&self, listener: &str, place: Place, plan: &Plan) -> ExplainedGap {
        let Place { plugin_type, upgrade, gap, after, before } = place;
        let indexes = match plugin_type {
            PluginType::Http => &plan.http,
            PluginType::Network => &plan.network,
        };
        let here: Vec<_> =
            indexes.iter().copied().filter(|index| gap.holds(self.kind.plugins[*index].plugin.position)).collect();
        let is_chain = plugin_type == PluginType::Http && Mode::of(self.kind.capabilities) == Mode::Chain;
        let resources = match is_chain {
            true => vec![names::chain(listener, gap.first, gap.last)],
            false => here.iter().map(|index| self.kind.plugins[*index].extension_name()).collect(),
        };
        ExplainedGap {
            plugin_type,
            upgrade,
            first: gap.first,
            last: gap.last,
            after,
            before,
            plugins: self.ids(&here),
            resources: resources.into_iter().filter(|name| self.is_named_by(listener, name)).collect(),
        }
    }

    /// A listener that is not served names nothing.
    fn is_named_by(&self, listener: &str, name: &str) -> bool {
        let listener = self.compiled.snapshot.listeners.get(listener);
        listener.is_some_and(|it| {
            it.references.iter().any(|(kind, it)| *kind == ResourceType::ExtensionConfig && **it == *name)
        })
    }

    fn ids(&self, indexes: &[usize]) -> Vec<PluginId> {
        let members = indexes.iter().map(|index| &self.kind.plugins[*index]);
        members.filter(|member| !matches!(member.run, Run::Disabled)).map(|it| it.plugin.id.clone()).collect()
    }
}
