//! Plugins and templates of one kind of proxy, turned into the resources it is served.
//!
//! Comes in: [`Kind`], chosen by [`select`]. Goes out: [`Compiled`]: a snapshot, what carries each plugin, and problems.
//! Invariant: pure. No clock, no channel, no error return: bad input is a [`Problem`] beside the good output.

mod anchors;
mod applies;
mod carried;
mod content;
mod difference;
mod emit;
mod explain;
mod extensions;
mod fill;
mod filters;
#[cfg(test)]
mod fixtures;
mod key;
mod lua;
mod matches;
mod merge;
mod mode;
mod names;
mod offline;
mod options;
mod order;
mod plan;
#[cfg(test)]
mod properties;
mod select;
mod shape;
mod short_form;
mod size;
mod snapshots;
mod staging;
mod stub;
#[cfg(test)]
mod tests;
mod type_urls;
mod wasm;
mod workloads;

use std::sync::Arc;

pub use applies::{Reason, applies, template_applies};
pub use difference::{Change, Difference, difference};
pub use explain::{ExplainedChain, ExplainedGap, ExplainedListener, ExplainedPlugin, Explanation, explain};
pub use filters::Filters;
pub use matches::matches_listener;
pub use mode::{Mode, capabilities_of};
pub use offline::{Workload, select_offline};
pub use select::select;
pub use snapshots::{compile, compile_with};
pub use staging::{InvalidModulesUrl, ModuleServer};
pub use workloads::{MAX_WORKLOADS, representatives};

use crate::model::{Capabilities, Plugin, PluginId, PluginRevision, ProxyTemplate, Revision, TemplateId};
use crate::snapshot::{Identity, Snapshot};

/// Everything that decides what a proxy is served. Proxies of equal [`KindKey`] share one compiled result.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The proxy's own.
    pub namespace: Arc<str>,
    pub root_namespace: Arc<str>,
    pub capabilities: Capabilities,
    /// Where the proxy fetches modules that it is told by digest; `None` where all travel inline.
    pub by_digest: Option<Arc<ModuleServer>>,
    /// All that select the proxy, in the order in which they win a clash: own namespace before root, older, name.
    pub templates: Vec<Arc<ProxyTemplate>>,
    /// All that apply to the proxy, in the order in which they run.
    pub plugins: Vec<Member>,
}

/// A plugin that applies to a proxy, and what of it runs there.
#[derive(Clone, Debug)]
pub struct Member {
    /// The specification that places it.
    pub plugin: Arc<Plugin>,
    pub run: Run,
    /// What of it some proxy has accepted and may run here, the newest: in a chain that has no room for all, that comes first.
    pub accepted: Option<Arc<PluginRevision>>,
}

impl Member {
    /// The extension configuration that carries it alone.
    fn extension_name(&self) -> String {
        self.plugin.id.extension_name(self.plugin.plugin_type)
    }

    /// What runs of the plugin's own filter.
    fn revision(&self) -> Option<&Arc<PluginRevision>> {
        self.run.revision()
    }

    /// Whether traffic passes where the plugin's own filter does not run.
    fn is_open(&self) -> bool {
        matches!(self.run, Run::Disabled) || self.plugin.fail_strategy.is_open()
    }
}

/// What runs in a plugin's place.
#[derive(Clone, Debug)]
pub enum Run {
    Revision(Arc<PluginRevision>),
    /// An older revision in place of one that this proxy refused, or that its Envoy cannot run, and then why not.
    LastGood(Arc<PluginRevision>, Option<String>),
    /// The fail strategy: nothing where it is open, deny-all where it is closed.
    StandIn {
        reason: String,
    },
    /// The fail strategy, because this Envoy cannot run the plugin.
    Unsupported {
        reason: String,
    },
    /// The fail strategy, or the revision before, because what would carry the plugin's module has no room for it.
    TooLarge {
        reason: String,
    },
    /// Taken out by its operator: everything passes.
    Disabled,
    /// No module yet, and the proxy was running before: nothing of it anywhere.
    Absent,
}

impl Run {
    /// What runs of the plugin's own filter.
    pub fn revision(&self) -> Option<&Arc<PluginRevision>> {
        match self {
            Self::Revision(revision) | Self::LastGood(revision, _) => Some(revision),
            Self::StandIn { .. } | Self::Unsupported { .. } | Self::TooLarge { .. } | Self::Disabled | Self::Absent => {
                None
            }
        }
    }
}

/// What is said of a plugin that its operator took out.
pub const DISABLED: &str = "disabled by wasmplane.io/disabled";

/// Identity of a [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KindKey(pub Arc<str>);

/// What a kind of proxy is served, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Arc<Snapshot>,
    /// One per plugin of the kind, in order.
    pub plugins: Vec<Carried>,
    /// The carriers of all plugins, each once, in order.
    pub carriers: Vec<Arc<Identity>>,
    pub problems: Vec<Problem>,
}

/// What carries a plugin to a kind of proxy.
#[derive(Clone, Debug)]
pub struct Carried {
    pub plugin: PluginId,
    /// The revision that runs; `None` for a stand-in or nothing.
    pub revision: Option<Revision>,
    /// Why it is not the desired revision, if so.
    pub run: Run,
    /// Listeners that it is on, by name.
    pub listeners: Vec<String>,
    /// Every resource whose acceptance makes the plugin programmed: ECDS resources and the listeners that name them.
    pub carriers: Vec<Arc<Identity>>,
}

/// Something wrong with good intentions: a clash of templates, a listener without router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `ProxyTemplate shop/web` or `WasmPlugin shop/auth`.
    pub resource: String,
    pub reason: String,
}

impl Problem {
    fn of_template(template: &TemplateId, reason: String) -> Self {
        Self { resource: format!("ProxyTemplate {template}"), reason }
    }

    fn of_plugin(plugin: &Plugin, reason: String) -> Self {
        let PluginId { namespace, name, kind } = &plugin.id;
        Self { resource: format!("{} {namespace}/{name}", kind.kind()), reason }
    }
}
