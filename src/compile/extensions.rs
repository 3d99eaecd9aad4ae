//! Answers for every ECDS name that a kind of proxy may ask for, built when asked and kept.
//!
//! Names in use, names that a listener used before an anchor came or went, and names that a static listener chose.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;

use super::content::{Filter, chain, rbac};
use super::filters::{Filters, Place};
use super::size::Misfit;
use super::{Kind, Member, ModuleServer, Run, lua, names, size, wasm};
use crate::model::{Plugin, PluginId, PluginRevision, PluginType, Position, Program, WithoutConfig};
use crate::snapshot::{Attempt, Extension, Extensions, Resource, STAGING};

/// All that the extensions of one kind of proxy are made of.
pub struct Catalog {
    namespace: Arc<str>,
    root_namespace: Arc<str>,
    plugins: Vec<Member>,
    /// Where each plugin stands in `plugins`.
    indexes: HashMap<(PluginId, PluginType), usize>,
    by_digest: Option<Arc<ModuleServer>>,
    listeners: BTreeMap<String, HttpPlugins>,
    usual: Carriage,
    /// For proxies that cannot fetch modules by digest, or not yet; absent where that is the usual.
    inline: Option<Carriage>,
    /// The last answer of [`Extensions::changed`]: all clients of a kind go to the next together.
    difference: Mutex<Option<Difference>>,
}

/// Names that the usual carriage knew, and another catalog says something else of.
#[derive(Clone)]
struct Difference {
    now: Weak<dyn Extensions>,
    /// How many names were known then. They become more and never fewer.
    known: usize,
    names: Arc<[Arc<str>]>,
}

/// The resources of a catalog, with their modules one way or the other.
struct Carriage {
    /// Where modules are fetched that are named by digest; `None` where all are inside.
    by_digest: Option<Arc<ModuleServer>>,
    /// The filter of each plugin that runs.
    filters: Vec<Option<Place>>,
    known: DashMap<String, Arc<Resource>>,
}

impl Carriage {
    fn new(by_digest: Option<Arc<ModuleServer>>, plugins: &[Member], filters: &Filters) -> Self {
        let revisions = plugins.iter().map(|member| member.revision().map(|revision| revision.revision));
        Self { filters: filters.places(revisions, by_digest.is_some()), by_digest, known: DashMap::new() }
    }

    fn keep(&self, name: &str, build: impl FnOnce() -> Resource) -> Arc<Resource> {
        self.known.entry(name.to_owned()).or_insert_with(|| Arc::new(build())).clone()
    }

    fn filter(&self, index: usize, member: &Member) -> Option<&Arc<Filter>> {
        let revision = member.revision()?;
        Some(self.filters[index].as_ref()?.get_or_init(|| Arc::new(self.build(revision))))
    }

    fn build(&self, revision: &PluginRevision) -> Filter {
        let content = match &revision.plugin.program {
            Program::Wasm(program) => wasm::filter(revision, program, self.by_digest.as_deref()),
            Program::Lua(program) => lua::filter(revision, program),
        };
        Filter::new(revision.id().to_string(), content)
    }
}

/// The HTTP plugins of a listener.
#[derive(Debug)]
pub struct HttpPlugins {
    pub without_config: WithoutConfig,
    /// Indexes into the plugins of the kind, in the order in which they run.
    pub plugins: Vec<usize>,
}

impl Catalog {
    pub fn new(kind: &Kind, listeners: BTreeMap<String, HttpPlugins>, filters: &Filters) -> Self {
        let plugins = kind.plugins.iter().map(|member| &member.plugin).enumerate();
        Self {
            namespace: kind.namespace.clone(),
            root_namespace: kind.root_namespace.clone(),
            by_digest: kind.by_digest.clone(),
            plugins: kind.plugins.clone(),
            indexes: plugins.map(|(index, plugin)| ((plugin.id.clone(), plugin.plugin_type), index)).collect(),
            listeners,
            usual: Carriage::new(kind.by_digest.clone(), &kind.plugins, filters),
            inline: kind.by_digest.as_ref().map(|_| Carriage::new(None, &kind.plugins, filters)),
            difference: Mutex::default(),
        }
    }

    /// The resource of a name that applies; silence is `None`.
    pub fn known(&self, name: &str) -> Option<Arc<Resource>> {
        match self.resolve(name)? {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(_) => None,
        }
    }

    /// The answer for a name, with modules in this carriage.
    fn answer(&self, name: &str, carriage: &Carriage) -> Option<Extension> {
        // Every proxy of the kind asks for the same names: what was found once is not looked for again.
        if let Some(resource) = carriage.known.get(name) {
            return Some(Extension::Known(resource.clone()));
        }
        if name == STAGING {
            let nothing = || rbac(PluginType::Http, true).into_resource(name);
            return Some(Extension::Known(carriage.keep(name, nothing)));
        }
        if let Some((listener, positions)) = names::parse_chain(name) {
            return Some(self.chain(name, listener, &positions, carriage));
        }
        let (id, plugin_type) = PluginId::from_extension_name(name)?;
        let is_ours = id.namespace == self.namespace || id.namespace == self.root_namespace;
        is_ours.then(|| self.plugin(name, id, plugin_type, carriage)).flatten()
    }

    fn chain(
        &self,
        name: &str,
        listener: &str,
        positions: &RangeInclusive<Position>,
        carriage: &Carriage,
    ) -> Extension {
        let is_in = |it: &Plugin| positions.contains(&it.position);
        match self.listeners.get(listener) {
            Some(plugins) => Extension::Known(carriage.keep(name, || self.gap(name, plugins, is_in, carriage))),
            None => Extension::PassThrough(Arc::new(chain(&[]).into_resource(name))),
        }
    }

    fn gap(&self, name: &str, on: &HttpPlugins, is_in: impl Fn(&Plugin) -> bool, carriage: &Carriage) -> Resource {
        let in_gap: Vec<_> = on.plugins.iter().filter(|index| is_in(&self.plugins[**index].plugin)).copied().collect();
        let misfits = size::misfits(&self.plugins, &in_gap, carriage.by_digest.as_deref());
        let filters: Vec<_> = in_gap
            .iter()
            .filter_map(|index| match misfits.get(index) {
                None => self.filter(*index, carriage),
                Some(Misfit::Before(revision)) => Some(Arc::new(carriage.build(revision))),
                Some(Misfit::LeftOut) => self.closed(*index),
            })
            .collect();
        let stand_in = match on.without_config {
            WithoutConfig::Deny => rbac(PluginType::Http, false),
            WithoutConfig::Allow => chain(&[]),
        };
        let mut resource = chain(&filters).into_resource_or(name, stand_in);
        resource.is_partial = in_gap.iter().any(|index| matches!(self.plugins[*index].run, Run::Absent));
        resource
    }

    /// What a plugin is inside a chain; an open stand-in is left out.
    fn filter(&self, index: usize, carriage: &Carriage) -> Option<Arc<Filter>> {
        let member = &self.plugins[index];
        match carriage.filter(index, member) {
            Some(filter) => Some(filter.clone()),
            None if matches!(member.run, Run::Absent) => None,
            None => self.closed(index),
        }
    }

    /// What stands in for a plugin inside a chain: nothing where its fail strategy is open.
    fn closed(&self, index: usize) -> Option<Arc<Filter>> {
        let member = &self.plugins[index];
        let deny = || Filter::new(member.plugin.id.to_string(), rbac(member.plugin.plugin_type, false));
        (!member.is_open()).then(|| Arc::new(deny()))
    }

    /// What the chain of that listener and these positions has no room for.
    pub fn misfits(&self, listener: &str, positions: &RangeInclusive<Position>) -> BTreeMap<usize, Misfit> {
        let on = self.listeners.get(listener).map_or(&[][..], |on| &on.plugins);
        let is_in = |index: &&usize| positions.contains(&self.plugins[**index].plugin.position);
        let in_gap: Vec<_> = on.iter().filter(is_in).copied().collect();
        size::misfits(&self.plugins, &in_gap, self.by_digest.as_deref())
    }

    /// What the plugin is in a resource of its own, where that has no room for what is to run.
    pub fn misfit(&self, index: usize) -> Option<Misfit> {
        self.misfit_in(index, &self.usual)
    }

    fn misfit_in(&self, index: usize, carriage: &Carriage) -> Option<Misfit> {
        size::misfits(&self.plugins, &[index], carriage.by_digest.as_deref()).remove(&index)
    }

    fn plugin(&self, name: &str, id: PluginId, plugin_type: PluginType, carriage: &Carriage) -> Option<Extension> {
        let Some(index) = self.indexes.get(&(id, plugin_type)).copied() else {
            return Some(Extension::PassThrough(Arc::new(rbac(plugin_type, true).into_resource(name))));
        };
        let member = &self.plugins[index];
        if matches!(member.run, Run::Absent) {
            // Neither open nor closed before it is known: a proxy that holds something keeps it.
            return None;
        }
        let stand_in = || rbac(plugin_type, member.is_open());
        let filter = || match self.misfit_in(index, carriage) {
            None => carriage.filter(index, member).map(|filter| filter.content.clone()),
            Some(Misfit::Before(revision)) => Some(carriage.build(&revision).content),
            Some(Misfit::LeftOut) => None,
        };
        let build = || filter().unwrap_or_else(stand_in).into_resource_or(name, stand_in());
        Some(Extension::Known(carriage.keep(name, build)))
    }
}

impl Extensions for Catalog {
    fn resolve(&self, name: &str) -> Option<Extension> {
        self.answer(name, &self.usual)
    }

    fn changed(&self, now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        let (known, other) = (self.usual.known.len(), Arc::downgrade(now));
        let lock = || self.difference.lock().unwrap_or_else(PoisonError::into_inner);
        let last = lock().clone();
        if let Some(last) = last.filter(|last| last.known == known && last.now.ptr_eq(&other)) {
            return Some(last.names);
        }
        // Nothing is locked while the other one is asked: it may be asking here.
        let known_here: Vec<_> = self.usual.known.iter().map(|entry| entry.value().clone()).collect();
        let changed = known_here.iter().filter(|known| !now.still_says(known));
        let names: Arc<[_]> = changed.map(|known| known.name.clone()).collect();
        *lock() = Some(Difference { now: other, known, names: names.clone() });
        Some(names)
    }

    fn resolve_with(&self, name: &str, owners: &[&str]) -> Option<Arc<Resource>> {
        let (listener, positions) = names::parse_chain(name)?;
        let is_in = |it: &Plugin| positions.contains(&it.position) || owners.contains(&&*it.id.to_string());
        Some(Arc::new(self.gap(name, self.listeners.get(listener)?, is_in, &self.usual)))
    }

    fn inline(&self, name: &str) -> Option<Arc<Resource>> {
        match self.answer(name, self.inline.as_ref().unwrap_or(&self.usual))? {
            Extension::Known(resource) => Some(resource),
            Extension::PassThrough(_) => None,
        }
    }

    fn staged(&self, attempt: &Attempt) -> Option<Arc<Resource>> {
        let server = self.by_digest.as_ref()?;
        let (revision, program) = self.plugins.iter().find_map(|member| {
            let revision = member.revision()?;
            let is_meant = revision.module().is_some_and(|module| module.digest == attempt.digest);
            is_meant.then_some(revision).zip(revision.plugin.wasm())
        })?;
        Some(Arc::new(wasm::staged(revision, program, server, attempt).into_resource(STAGING)))
    }
}

impl fmt::Debug for Catalog {
    /// Without the modules' bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::compile::fixtures::{kind, listener, revision, template};
    use crate::model::{ListenerProtocol, ProxyTemplate};

    fn extensions(plugins: [(&str, &str); 2]) -> Arc<dyn Extensions> {
        let listeners = vec![listener("l", 8080, ListenerProtocol::Http)];
        let template = ProxyTemplate { listeners, ..template("shop/web") };
        let revisions = plugins.map(|(id, module)| revision(id, module));
        compile(&kind(vec![template], revisions.into())).snapshot.extensions.clone()
    }

    #[test]
    fn what_changes_is_told_of_all_names_that_were_ever_asked_for() {
        let before = extensions([("shop/one", "1"), ("shop/two", "1")]);
        let now = extensions([("shop/one", "1"), ("shop/two", "2")]);
        let name = |id: &str| id.parse::<PluginId>().unwrap().extension_name(PluginType::Http);
        let changed = |before: &Arc<dyn Extensions>| -> Vec<String> {
            before.changed(&now).unwrap().iter().map(ToString::to_string).collect()
        };
        let mut all = vec![names::chain("l", Position::PreAuthN, Position::BeforeRouter)];
        assert_eq!(changed(&before), all, "the chain of its listener");
        // What is the same, and what is nothing.
        before.resolve(&name("shop/one"));
        before.resolve(&name("shop/new"));
        assert_eq!(changed(&before), all);
        before.resolve(&name("shop/two"));
        all.insert(0, name("shop/two"));
        let mut found = changed(&before);
        found.sort();
        assert_eq!(found, all);
        assert_eq!(changed(&now), [""; 0], "nothing has changed since");
    }
}
