//! What the admin API shows of the plane's state.

use std::collections::HashMap;

use super::module_view::{module_warnings, view_failure};
use super::node_matcher::Matchers;
use super::proxies::{Connected, ProxyKey};
use super::reconcile::Reconciler;
use crate::compile::{Carried, DISABLED, Mode, Run};
use crate::model::{Code, ModuleDelivery, ModuleState, PluginEntry, PluginId, PluginRevision, Proxy};
use crate::protobuf::admin;
use crate::rollout::{Counts, PluginState, PluginSummary, ResourceStatus, StateKind};
use crate::xds::{Protocol, Service, StreamId};

/// What has become of the plugins, over all proxies.
#[derive(Debug, Default)]
pub struct Summaries {
    by_plugin: HashMap<PluginId, PluginSummary>,
    /// Proxies by whose listeners a plugin is passed over.
    off_listeners: HashMap<PluginId, u32>,
}

impl Reconciler {
    pub fn list_proxies(&self) -> Vec<admin::Proxy> {
        let mut proxies: Vec<_> = self.proxies.iter().map(|(_, connected)| self.view_proxy(connected)).collect();
        proxies.sort_by(|one, other| one.id.cmp(&other.id));
        proxies
    }

    /// The streams and the node id of the proxy that is listed with this id.
    pub fn streams_of(&self, id: &str) -> Option<(Vec<StreamId>, String)> {
        let (_, connected) = self.proxies.iter().find(|(_, connected)| connected.id == id)?;
        Some((connected.streams.keys().copied().collect(), connected.proxy.node_id.clone()))
    }

    pub fn matching(&self, matchers: &Matchers) -> Vec<ProxyKey> {
        let meant = self.proxies.iter().filter(|(_, connected)| matchers.matches(&connected.proxy));
        meant.map(|(key, _)| key).collect()
    }

    pub fn resources_of(&self, key: ProxyKey) -> Option<(Proxy, Vec<ResourceStatus>)> {
        let connected = self.proxies.get(key)?;
        Some((connected.proxy.clone(), connected.progress.resources()))
    }

    /// Looks at every plugin of every proxy: the larger the fleet, the longer it takes.
    pub fn summarize(&self) -> Summaries {
        let mut all = Summaries::default();
        for (_, connected) in self.proxies.iter() {
            for carried in connected.progress.expected().iter().flat_map(|compiled| &compiled.plugins) {
                if is_off_listeners(carried) {
                    *all.off_listeners.entry(carried.plugin.clone()).or_default() += 1;
                    continue;
                }
                let state = self.state(connected, carried);
                match all.by_plugin.get_mut(&carried.plugin) {
                    Some(summary) => summary.add(&state),
                    None => all.by_plugin.entry(carried.plugin.clone()).or_default().add(&state),
                }
            }
        }
        all
    }

    pub fn list_plugins(&self, all: &Summaries) -> Vec<admin::Plugin> {
        let view = |entry: &PluginEntry| {
            let id = &entry.desired.id;
            let summary = all.by_plugin.get(id).cloned().unwrap_or_default();
            let warnings = self.warnings(id, all.off_listeners.get(id).copied().unwrap_or(0));
            admin::Plugin {
                module_failure: view_failure(entry, &self.notes),
                image_digest: self.images.view(id),
                ..view_plugin(entry, summary, warnings)
            }
        };
        self.table.entries().map(view).collect()
    }

    /// What was refused at the door, one line each.
    pub fn list_faults(&self) -> Vec<String> {
        let said = |finding: &crate::sources::Finding| {
            let place = format!("{}:{}:{}", finding.file.display(), finding.line, finding.column);
            let parts = [place, finding.resource.clone(), finding.field.clone(), finding.reason.clone()];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        };
        self.loaded.faults.iter().map(said).collect()
    }

    /// Number of proxies per plugin and state, for metrics.
    pub fn count_states(&self, all: &Summaries) -> Vec<(PluginId, Counts)> {
        let ids = self.table.entries().map(|entry| &entry.desired.id);
        ids.map(|id| (id.clone(), all.by_plugin.get(id).map(|summary| summary.counts).unwrap_or_default())).collect()
    }

    /// Resources that were refused at the door.
    pub fn config_errors(&self) -> usize {
        self.loaded.faults.len()
    }

    pub(super) fn state(&self, connected: &Connected, carried: &Carried) -> PluginState {
        let entry = self.table.get(&carried.plugin);
        let desired = entry.and_then(|entry| entry.running.as_ref()).map(|running| running.revision);
        let mut state = connected.progress.state(carried, desired);
        if let (Run::Absent, Some(ModuleState::Failed { reason })) = (&carried.run, entry.map(|entry| &entry.module)) {
            state.message = reason.clone();
        } else if matches!(carried.run, Run::Absent) {
            state.kind = StateKind::Pending;
            state.message = "the module is being fetched".into();
        }
        state
    }

    fn view_proxy(&self, connected: &Connected) -> admin::Proxy {
        let proxy = &connected.proxy;
        let carried = connected.progress.expected().into_iter().flat_map(|compiled| &compiled.plugins);
        admin::Proxy {
            id: connected.id.clone(),
            node_id: proxy.node_id.clone(),
            name: proxy.name.clone(),
            cluster: proxy.cluster.clone(),
            namespace: proxy.namespace.clone(),
            labels: proxy.labels.clone().into_iter().collect(),
            envoy_version: proxy.version.map(|version| version.to_string()).unwrap_or_default(),
            mode: view_mode(Mode::of(proxy.capabilities)).into(),
            streams: connected.streams.values().map(|stream| stream_name(stream.service, stream.protocol)).collect(),
            plugins: carried
                .filter(|carried| !is_off_listeners(carried))
                .map(|carried| {
                    let state = self.state(connected, carried);
                    admin::ProxyPlugin {
                        id: carried.plugin.to_string(),
                        state: view_state(state.kind).into(),
                        revision: state.revision.map(|revision| revision.to_string()).unwrap_or_default(),
                        message: state.message,
                        listeners: carried.listeners.clone(),
                    }
                })
                .collect(),
            errors: connected.progress.errors(),
            module_delivery: view_delivery(connected.facts.delivery).into(),
            module_delivery_reason: connected.delivery_reason.into(),
        }
    }

    fn warnings(&self, id: &PluginId, off_listeners: u32) -> Vec<String> {
        let of_plugin = |finding: &&crate::sources::Finding| finding.plugin.as_ref() == Some(id);
        let said = |finding: &crate::sources::Finding| format!("{}: {}", finding.field, finding.reason);
        let mut warnings: Vec<_> =
            self.loaded.warnings.iter().chain(&self.together).filter(of_plugin).map(said).collect();
        // A resource that was edited into something wrong goes on running as it was.
        let kept = |finding: &crate::sources::Finding| format!("not taken over: {}: {}", finding.field, finding.reason);
        warnings.extend(self.loaded.faults.iter().filter(of_plugin).map(kept));
        warnings.extend(self.table.get(id).into_iter().flat_map(|entry| module_warnings(entry, &self.notes)));
        if off_listeners > 0 {
            warnings.push(format!("match fits no listener of {off_listeners} proxies that it selects"));
        }
        warnings
    }
}

/// Selected, but on none of the proxy's listeners.
fn is_off_listeners(carried: &Carried) -> bool {
    carried.carriers.is_empty() && matches!(carried.run, Run::Revision(_) | Run::LastGood(..))
}

fn view_plugin(entry: &PluginEntry, summary: PluginSummary, mut warnings: Vec<String>) -> admin::Plugin {
    let id = &entry.desired.id;
    if summary.counts.total() == 0 {
        warnings.push("applies to no listener of any proxy that is connected now".into());
    }
    let running = entry.running.as_deref();
    let module_error = match &entry.module {
        ModuleState::Failed { reason } => reason.clone(),
        ModuleState::Pending | ModuleState::Ready(_) => String::new(),
    };
    admin::Plugin {
        id: id.to_string(),
        kind: id.kind.kind().into(),
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        url: entry.desired.module().map(|module| module.location.to_string()).unwrap_or_default(),
        desired_revision: desired(entry).map(|revision| revision.revision.to_string()).unwrap_or_default(),
        running_revision: running.map(|running| running.revision.to_string()).unwrap_or_default(),
        module_digest: running.and_then(digest).unwrap_or_default(),
        conditions: conditions(entry, &summary, &module_error),
        module_error,
        counts: Some(counts(&summary)),
        messages: summary.messages,
        warnings,
        module_failure: None,
        image_digest: String::new(),
    }
}

/// The revision of what the operator wrote last, once its module is known.
fn desired(entry: &PluginEntry) -> Option<&PluginRevision> {
    entry.running.as_deref().filter(|running| running.plugin == entry.desired)
}

fn digest(revision: &PluginRevision) -> Option<String> {
    match &revision.code {
        Code::Module(module) => Some(module.digest.to_string()),
        Code::OnProxy(_) | Code::InSpecification => None,
    }
}

fn counts(summary: &PluginSummary) -> admin::Counts {
    let counts = &summary.counts;
    admin::Counts {
        total: counts.total(),
        not_loaded: counts.of(StateKind::NotLoaded),
        pending: counts.of(StateKind::Pending),
        programmed: counts.of(StateKind::Programmed),
        rejected: counts.of(StateKind::Rejected),
        stand_in: counts.of(StateKind::StandIn),
        unsupported: counts.of(StateKind::Unsupported),
    }
}

fn conditions(entry: &PluginEntry, summary: &PluginSummary, module_error: &str) -> Vec<admin::Condition> {
    let condition = |name: &str, status: &str, reason: &str, message: String| admin::Condition {
        r#type: name.into(),
        status: status.into(),
        reason: reason.into(),
        message,
    };
    let module = match &entry.module {
        ModuleState::Ready(_) => condition("ModuleReady", "True", "Ready", String::new()),
        ModuleState::Pending => condition("ModuleReady", "Unknown", "Fetching", String::new()),
        ModuleState::Failed { .. } => condition("ModuleReady", "False", "NotLoaded", module_error.into()),
    };
    let (total, programmed) = (summary.counts.total(), summary.counts.of(StateKind::Programmed));
    let said = format!("{programmed} of {total} proxies");
    let programmed = match () {
        () if entry.desired.is_disabled => condition("Programmed", "False", "Disabled", DISABLED.into()),
        () if total == 0 => condition("Programmed", "Unknown", "NoProxies", String::new()),
        () if programmed == total => condition("Programmed", "True", "Programmed", said),
        () if summary.counts.of(StateKind::Rejected) > 0 => condition("Programmed", "False", "Rejected", said),
        () if summary.counts.of(StateKind::Pending) > 0 => condition("Programmed", "False", "Pending", said),
        () => condition("Programmed", "False", "NotRunning", said),
    };
    vec![condition("Accepted", "True", "Valid", String::new()), module, programmed]
}

pub(super) fn view_mode(mode: Mode) -> admin::Mode {
    match mode {
        Mode::Chain => admin::Mode::Chain,
        Mode::Filter => admin::Mode::Filter,
        Mode::NoWasm => admin::Mode::NoWasm,
    }
}

fn view_delivery(delivery: ModuleDelivery) -> admin::ModuleDelivery {
    match delivery {
        ModuleDelivery::Inline => admin::ModuleDelivery::Inline,
        ModuleDelivery::Digest => admin::ModuleDelivery::Digest,
    }
}

pub(super) fn view_state(kind: StateKind) -> admin::State {
    match kind {
        StateKind::NotLoaded => admin::State::NotLoaded,
        StateKind::Pending => admin::State::Pending,
        StateKind::Programmed => admin::State::Programmed,
        StateKind::Rejected => admin::State::Rejected,
        StateKind::StandIn => admin::State::StandIn,
        StateKind::Unsupported => admin::State::Unsupported,
    }
}

pub(super) fn stream_name(service: Service, protocol: Protocol) -> String {
    use crate::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};
    let service = match service {
        Service::Ads => "ADS",
        Service::Single(Listener) => "LDS",
        Service::Single(Route) => "RDS",
        Service::Single(Cluster) => "CDS",
        Service::Single(Endpoint) => "EDS",
        Service::Single(ExtensionConfig) => "ECDS",
    };
    let protocol = match protocol {
        Protocol::Sotw => "sotw",
        Protocol::Delta => "delta",
    };
    format!("{service} {protocol}")
}
