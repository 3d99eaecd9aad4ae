//! Answers for every ECDS name that a kind of proxy may ask for, built when asked and kept.
//!
//! Names in use, names that a listener used before an anchor came or went, and names that a static listener chose.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;

use super::content::{Content, chain, rbac};
use super::{Kind, Member, Run, lua, names, size, wasm};
use crate::model::{Plugin, PluginId, PluginRevision, PluginType, Position, Program, WithoutConfig};
use crate::snapshot::{Extension, Extensions, Resource};

/// All that the extensions of one kind of proxy are made of.
pub struct Catalog {
    namespace: Arc<str>,
    root_namespace: Arc<str>,
    plugins: Vec<Member>,
    /// Where each plugin stands in `plugins`.
    indexes: HashMap<(PluginId, PluginType), usize>,
    /// The Wasm filter of each plugin, encoded once and shared by all that carry it.
    filters: Vec<OnceLock<Content>>,
    listeners: BTreeMap<String, HttpPlugins>,
    known: DashMap<String, Arc<Resource>>,
}

/// The HTTP plugins of a listener.
#[derive(Debug)]
pub struct HttpPlugins {
    pub without_config: WithoutConfig,
    /// Indexes into the plugins of the kind, in the order in which they run.
    pub plugins: Vec<usize>,
}

impl Catalog {
    pub fn new(kind: &Kind, listeners: BTreeMap<String, HttpPlugins>) -> Self {
        let plugins = kind.plugins.iter().map(|member| &member.plugin).enumerate();
        Self {
            namespace: kind.namespace.clone(),
            root_namespace: kind.root_namespace.clone(),
            filters: kind.plugins.iter().map(|_| OnceLock::new()).collect(),
            plugins: kind.plugins.clone(),
            indexes: plugins.map(|(index, plugin)| ((plugin.id.clone(), plugin.plugin_type), index)).collect(),
            listeners,
            known: DashMap::new(),
        }
    }

    /// The resource of a name that applies; silence is `None`.
    pub fn known(&self, name: &str) -> Option<Arc<Resource>> {
        match self.resolve(name)? {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(_) => None,
        }
    }

    fn keep(&self, name: &str, build: impl FnOnce() -> Resource) -> Extension {
        let resource = self.known.entry(name.to_owned()).or_insert_with(|| Arc::new(build()));
        Extension::Known(resource.clone())
    }

    fn chain(&self, name: &str, listener: &str, positions: &RangeInclusive<Position>) -> Extension {
        match self.listeners.get(listener) {
            Some(plugins) => self.keep(name, || self.gap(name, plugins, |it| positions.contains(&it.position))),
            None => Extension::PassThrough(Arc::new(chain(Vec::new()).into_resource(name))),
        }
    }

    fn gap(&self, name: &str, on: &HttpPlugins, is_in: impl Fn(&Plugin) -> bool) -> Resource {
        let in_gap: Vec<_> = on.plugins.iter().filter(|index| is_in(&self.plugins[**index].plugin)).copied().collect();
        let left_out = size::left_out(&self.plugins, &in_gap);
        let members = in_gap.iter().filter_map(|index| {
            let content = if left_out.contains(index) { self.closed(*index) } else { self.member(*index) };
            Some((self.plugins[*index].plugin.id.to_string(), content?))
        });
        let stand_in = match on.without_config {
            WithoutConfig::Deny => rbac(PluginType::Http, false),
            WithoutConfig::Allow => chain(Vec::new()),
        };
        chain(members.collect()).into_resource_or(name, stand_in)
    }

    /// What a plugin is inside a chain; an open stand-in is left out.
    fn member(&self, index: usize) -> Option<Content> {
        let member = &self.plugins[index];
        let is_nothing = matches!(member.run, Run::Absent) || (!member.is_running() && member.is_open());
        (!is_nothing).then(|| self.filter(index).unwrap_or_else(|| rbac(member.plugin.plugin_type, false)))
    }

    /// What stands in for a plugin inside a chain: nothing where its fail strategy is open.
    fn closed(&self, index: usize) -> Option<Content> {
        let member = &self.plugins[index];
        (!member.is_open()).then(|| rbac(member.plugin.plugin_type, false))
    }

    /// Whether the resource of that name has no room for the plugin.
    pub fn leaves_out(&self, name: &str, index: usize) -> bool {
        let Some((listener, positions)) = names::parse_chain(name) else {
            return !size::left_out(&self.plugins, &[index]).is_empty();
        };
        let on = self.listeners.get(listener).map_or(&[][..], |on| &on.plugins);
        let is_in = |index: &&usize| positions.contains(&self.plugins[**index].plugin.position);
        size::left_out(&self.plugins, &on.iter().filter(is_in).copied().collect::<Vec<_>>()).contains(&index)
    }

    fn plugin(&self, name: &str, id: PluginId, plugin_type: PluginType) -> Option<Extension> {
        let Some(index) = self.indexes.get(&(id, plugin_type)).copied() else {
            return Some(Extension::PassThrough(Arc::new(rbac(plugin_type, true).into_resource(name))));
        };
        let member = &self.plugins[index];
        if matches!(member.run, Run::Absent) {
            // Neither open nor closed before it is known: a proxy that holds something keeps it.
            return None;
        }
        let stand_in = || rbac(plugin_type, member.is_open());
        let filter = || self.filter(index).filter(|_| !self.leaves_out(name, index));
        Some(self.keep(name, || filter().unwrap_or_else(stand_in).into_resource_or(name, stand_in())))
    }

    fn filter(&self, index: usize) -> Option<Content> {
        match &self.plugins[index].run {
            Run::Revision(revision) | Run::LastGood(revision, _) => {
                Some(self.filters[index].get_or_init(|| filter_of(revision)).clone())
            }
            _ => None,
        }
    }
}

fn filter_of(revision: &PluginRevision) -> Content {
    match &revision.plugin.program {
        Program::Wasm(program) => wasm::filter(revision, program),
        Program::Lua(program) => lua::filter(revision, program),
    }
}

impl Extensions for Catalog {
    fn resolve(&self, name: &str) -> Option<Extension> {
        // Every proxy of the kind asks for the same names: what was found once is not looked for again.
        if let Some(resource) = self.known.get(name) {
            return Some(Extension::Known(resource.clone()));
        }
        if let Some((listener, positions)) = names::parse_chain(name) {
            return Some(self.chain(name, listener, &positions));
        }
        let (id, plugin_type) = PluginId::from_extension_name(name)?;
        let is_ours = id.namespace == self.namespace || id.namespace == self.root_namespace;
        is_ours.then(|| self.plugin(name, id, plugin_type)).flatten()
    }

    fn resolve_with(&self, name: &str, owners: &[&str]) -> Option<Arc<Resource>> {
        let (listener, positions) = names::parse_chain(name)?;
        let is_in = |it: &Plugin| positions.contains(&it.position) || owners.contains(&&*it.id.to_string());
        Some(Arc::new(self.gap(name, self.listeners.get(listener)?, is_in)))
    }
}

impl fmt::Debug for Catalog {
    /// Without the modules' bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
