//! Explanations as the admin API says them, and those of connected proxies.

use super::proxies::Connected;
use super::reconcile::Reconciler;
use super::view::{view_mode, view_state};
use crate::compile::{
    self, DISABLED, ExplainedChain, ExplainedGap, ExplainedListener, ExplainedPlugin, Explanation, Kind, Run,
};
use crate::model::{PluginId, PluginType, Proxy};
use crate::protobuf::admin;
use crate::sources::Finding;

impl Reconciler {
    /// What the proxy of that id gets and why, with what became of it.
    pub fn explain_proxy(&self, id: &str) -> Option<admin::Explanation> {
        let (key, connected) = self.proxies.iter().find(|(_, connected)| connected.id == id)?;
        let kind = self.select(key)?;
        let explanation = compile::explain(&kind, &connected.proxy, self.loaded.plugins.values());
        let mut view = view(&explanation, &connected.proxy);
        view.id = id.to_owned();
        for (plugin, explained) in view.plugins.iter_mut().zip(&explanation.plugins) {
            self.add_state(plugin, connected, &explained.plugin.id);
        }
        let warnings = self.loaded.warnings.iter().filter(|it| is_of(it, &kind));
        view.warnings.extend(warnings.map(warning));
        view.rejected.extend(self.loaded.faults.iter().filter(|it| is_in_reach(it, &kind)).map(fault));
        Some(view)
    }

    fn add_state(&self, plugin: &mut admin::ExplainedPlugin, connected: &Connected, id: &PluginId) {
        let mut carried = connected.progress.expected().into_iter().flat_map(|compiled| &compiled.plugins);
        let Some(carried) = carried.find(|carried| carried.plugin == *id) else {
            plugin.set_state(admin::State::Pending);
            plugin.message = "nothing was sent to this proxy yet".into();
            return;
        };
        let state = self.state(connected, carried);
        plugin.set_state(view_state(state.kind));
        plugin.revision = state.revision.map(|revision| revision.to_string()).unwrap_or_default();
        plugin.message = state.message;
    }
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

/// A warning is about the resource, or else the file.
pub fn warning(finding: &Finding) -> admin::Remark {
    let Finding { file, resource, reason, .. } = finding;
    let resource = if resource.is_empty() { file.display().to_string() } else { resource.clone() };
    admin::Remark { resource, reason: reason.clone() }
}

/// A fault says at which field.
pub fn fault(finding: &Finding) -> admin::Remark {
    let mut remark = warning(finding);
    if !finding.field.is_empty() {
        remark.reason = format!("{}: {}", finding.field, finding.reason);
    }
    remark
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
        r#type: type_word(plugin.plugin_type).into(),
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
        r#type: type_word(gap.plugin_type).into(),
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

fn type_word(plugin_type: PluginType) -> &'static str {
    match plugin_type {
        PluginType::Http => "HTTP",
        PluginType::Network => "NETWORK",
    }
}
