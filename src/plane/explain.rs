//! Explanations as the admin API says them, and those of connected proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reconcile::Reconciler;
use super::view::{view_mode, view_state};
use crate::compile::{
    self, DISABLED, ExplainedChain, ExplainedGap, ExplainedListener, ExplainedPlugin, Explanation, Kind, Run,
};
use crate::model::{PluginId, Proxy};
use crate::protobuf::admin;
use crate::rollout::PluginState;
use crate::sources::{Finding, Loaded};

/// All that it takes to explain a connected proxy. Cheap to make: the answer compiles, and is for another thread.
#[derive(Debug)]
pub struct Question {
    id: String,
    proxy: Proxy,
    kind: Kind,
    /// What became of the plugins that it was sent.
    states: BTreeMap<PluginId, PluginState>,
    loaded: Arc<Loaded>,
    together: Vec<Finding>,
}

impl Reconciler {
    /// What the proxy of that id gets and why, with what became of it.
    pub fn question(&self, id: &str) -> Option<Question> {
        let (key, connected) = self.proxies.iter().find(|(_, connected)| connected.id == id)?;
        let carried = connected.progress.expected().into_iter().flat_map(|compiled| &compiled.plugins);
        Some(Question {
            id: id.to_owned(),
            proxy: connected.proxy.clone(),
            kind: self.select(key)?,
            states: carried.map(|it| (it.plugin.clone(), self.state(connected, it))).collect(),
            loaded: self.loaded.clone(),
            together: self.together.clone(),
        })
    }
}

impl Question {
    pub fn answer(self) -> admin::Explanation {
        let Self { id, proxy, kind, states, loaded, together } = self;
        let explanation = compile::explain(&kind, &proxy, loaded.plugins.values());
        let mut view = view(&explanation, &proxy);
        view.id = id;
        for (plugin, explained) in view.plugins.iter_mut().zip(&explanation.plugins) {
            add_state(plugin, states.get(&explained.plugin.id));
        }
        let warnings = loaded.warnings.iter().chain(&together).filter(|it| is_of(it, &kind));
        view.warnings.extend(warnings.map(warning));
        say_once(&mut view.warnings);
        view.rejected.extend(loaded.faults.iter().filter(|it| is_in_reach(it, &kind)).map(fault));
        view
    }
}

fn add_state(plugin: &mut admin::ExplainedPlugin, state: Option<&PluginState>) {
    let Some(state) = state else {
        plugin.set_state(admin::State::Pending);
        plugin.message = "nothing was sent to this proxy yet".into();
        return;
    };
    plugin.set_state(view_state(state.kind));
    plugin.revision = state.revision.map(|revision| revision.to_string()).unwrap_or_default();
    plugin.message = state.message.clone();
}

/// Whether the finding is about a resource that the kind is made of.
fn is_of(finding: &Finding, kind: &Kind) -> bool {
    match &finding.plugin {
        Some(id) => kind.plugins.iter().any(|member| member.plugin.id == *id),
        None => kind.templates.iter().any(|template| finding.resource == format!("ProxyTemplate {}", template.id)),
    }
}

/// Whether the resource could be one of the kind's, if it were not refused.
fn is_in_reach(finding: &Finding, kind: &Kind) -> bool {
    let in_reach = |namespace: &str| *namespace == *kind.namespace || *namespace == *kind.root_namespace;
    let name = finding.resource.split_once(' ').map_or("", |(_, name)| name);
    match (&finding.plugin, name.split_once('/')) {
        (Some(id), _) => in_reach(&id.namespace),
        (None, Some((namespace, _))) => in_reach(namespace),
        (None, None) => true,
    }
}

/// The explanation of a proxy that is only thought of.
pub fn view(explanation: &Explanation, proxy: &Proxy) -> admin::Explanation {
    let problem = |it: &compile::Problem| admin::Remark { resource: it.resource.clone(), reason: it.reason.clone() };
    admin::Explanation {
        id: String::new(),
        namespace: proxy.namespace.clone(),
        labels: proxy.labels.clone().into_iter().collect(),
        envoy_version: proxy.version.map(|version| version.to_string()).unwrap_or_default(),
        mode: view_mode(explanation.mode).into(),
        mode_reason: explanation.mode_reason.clone(),
        plugins: explanation.plugins.iter().map(view_plugin).collect(),
        listeners: explanation.listeners.iter().map(view_listener).collect(),
        skipped: view_skipped(&explanation.skipped),
        warnings: explanation.problems.iter().map(problem).collect(),
        rejected: Vec::new(),
    }
}

/// A warning says at which field, unless its words begin with what it is about.
pub fn warning(finding: &Finding) -> admin::Remark {
    let last = finding.field.rsplit(['.', '[']).next().unwrap_or_default();
    let is_plain = [last, "listener "].into_iter().any(|start| !start.is_empty() && finding.reason.starts_with(start));
    if is_plain { admin::Remark { reason: finding.reason.clone(), ..fault(finding) } } else { fault(finding) }
}

/// A fault is about the resource, or else the file, and says at which field.
pub fn fault(finding: &Finding) -> admin::Remark {
    let Finding { file, resource, field, reason, .. } = finding;
    let resource = if resource.is_empty() { file.display().to_string() } else { resource.clone() };
    let reason = if field.is_empty() { reason.clone() } else { format!("{field}: {reason}") };
    admin::Remark { resource, reason }
}

/// What the file shows and the proxy too is said once.
pub fn say_once(remarks: &mut Vec<admin::Remark>) {
    let mut said = BTreeSet::new();
    remarks.retain(|remark| said.insert((remark.resource.clone(), remark.reason.clone())));
}

fn view_plugin(explained: &ExplainedPlugin) -> admin::ExplainedPlugin {
    let ExplainedPlugin { plugin, run, after, resources } = explained;
    let (state, message) = match run {
        Run::Unsupported { reason } | Run::LastGood(_, Some(reason)) => (admin::State::Unsupported, reason.clone()),
        Run::Disabled => (admin::State::StandIn, DISABLED.to_owned()),
        _ => (admin::State::Unspecified, String::new()),
    };
    let (after, order) = after.as_ref().map(|(id, why)| (id.to_string(), why.clone())).unwrap_or_default();
    admin::ExplainedPlugin {
        id: plugin.id.to_string(),
        r#type: plugin.plugin_type.as_str().into(),
        position: plugin.position.as_str().into(),
        priority: plugin.priority,
        created: plugin.created.map(|created| created.to_string()).unwrap_or_default(),
        after,
        order,
        resources: resources.clone(),
        state: state.into(),
        revision: String::new(),
        message,
    }
}

fn view_listener(listener: &ExplainedListener) -> admin::ExplainedListener {
    admin::ExplainedListener {
        name: listener.name.clone(),
        direction: listener.direction.as_str().into(),
        port: listener.port.into(),
        protocol: listener.protocol.as_str().into(),
        http: ids(&listener.http),
        network: ids(&listener.network),
        chains: listener.chains.iter().map(view_chain).collect(),
        skipped: view_skipped(&listener.skipped),
    }
}

fn view_chain(chain: &ExplainedChain) -> admin::ExplainedChain {
    admin::ExplainedChain {
        name: chain.name.clone(),
        http: ids(&chain.http),
        network: ids(&chain.network),
        gaps: chain.gaps.iter().map(view_gap).collect(),
    }
}

fn view_gap(gap: &ExplainedGap) -> admin::ExplainedGap {
    admin::ExplainedGap {
        r#type: gap.plugin_type.as_str().into(),
        upgrade: gap.upgrade.clone(),
        first: gap.first.as_str().into(),
        last: gap.last.as_str().into(),
        after: gap.after.clone().unwrap_or_default(),
        before: gap.before.clone().unwrap_or_default(),
        plugins: ids(&gap.plugins),
        resources: gap.resources.clone(),
    }
}

fn view_skipped(skipped: &[(PluginId, String)]) -> Vec<admin::SkippedPlugin> {
    let view =
        |(id, reason): &(PluginId, String)| admin::SkippedPlugin { plugin: id.to_string(), reason: reason.clone() };
    skipped.iter().map(view).collect()
}

fn ids(ids: &[PluginId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
