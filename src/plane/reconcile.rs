//! The one writer of all state: takes in changes, decides which proxies they touch, and hands those new snapshots.
//!
//! Work per change is per group of like proxies, not per proxy: the touched ones come out of an index, proxies that
//! agree in all that decides are selected for once, and kinds that are equal are compiled once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::fleet::Arrival;
use super::memory::Memory;
use super::proxies::{GroupKey, Proxies, ProxyKey};
use super::pushes::Pushes;
use super::refusals::Refusals;
use super::table::{PluginTable, Touched};
use crate::compile::{Compiled, Kind, KindKey, Run, compile, select};
use crate::model::{ModuleRef, ModuleState, PluginId, ProxyTemplate, Revision, TemplateId};
use crate::modules::{NotesByModule, releases};
use crate::snapshot::{ResourceType, Version};
use crate::sources::{Finding, Loaded, cross_check};
use crate::xds::{Delivery, Outcome, Report};

/// How long proxies wait for modules: all of them after the control plane's start, so that none of them is told to do
/// without a plugin that it runs; an Envoy that starts, so that it need not begin with a stand-in (design, section 4).
pub const MODULES_WITHIN: Duration = Duration::from_secs(10);

/// All state of the plane.
#[derive(Debug)]
pub struct Reconciler {
    pub(super) root_namespace: String,
    pub(super) loaded: Arc<Loaded>,
    /// What the resources mean together that none of them shows alone.
    pub(super) together: Vec<Finding>,
    pub(super) table: PluginTable,
    pub(super) proxies: Proxies,
    modules: Arc<BTreeMap<ModuleRef, ModuleState>>,
    pub(super) notes: NotesByModule,
    refusals: Refusals,
    memory: Memory,
    kinds: HashMap<KindKey, Weak<Compiled>>,
    /// ECDS resources whose plugins are in the table as good; until the table changes.
    proven: HashSet<Version>,
    /// Proxies to be looked at in the next flush.
    touched: HashSet<ProxyKey>,
    /// Nothing is served before the sources are loaded and the modules had their time (design, section 5, rule 9).
    opens_at: Instant,
    is_open: bool,
    /// When a starting proxy has waited long enough.
    deadlines: BTreeMap<Instant, HashSet<ProxyKey>>,
    reported_problems: HashSet<String>,
    pub(super) pushes: Pushes,
}

impl Reconciler {
    pub fn new(root_namespace: String, refusals: Refusals, mut memory: Memory, pushes: Pushes) -> Self {
        Self {
            root_namespace,
            loaded: Arc::default(),
            together: Vec::new(),
            table: PluginTable::recall(memory.take_plugins()),
            proxies: Proxies::default(),
            modules: Arc::default(),
            notes: Arc::default(),
            refusals,
            memory,
            kinds: HashMap::new(),
            proven: HashSet::new(),
            touched: HashSet::new(),
            opens_at: Instant::now() + MODULES_WITHIN,
            is_open: false,
            deadlines: BTreeMap::new(),
            reported_problems: HashSet::new(),
            pushes,
        }
    }

    /// Whether proxies are being served.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// When [`Reconciler::flush`] has something to do although nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.is_open {
            return Some(self.opens_at);
        }
        self.deadlines.keys().next().copied()
    }

    /// Takes over the sources; returns the modules that are wanted now, and those of plugins that have changed.
    pub fn on_loaded(&mut self, loaded: Arc<Loaded>) -> (BTreeSet<ModuleRef>, BTreeSet<ModuleRef>) {
        let touched = self.table.set_desired(&loaded.plugins, &self.modules, Instant::now().into_std());
        let entries = touched.iter().filter_map(|touched| self.table.get(&touched.id));
        let changed = entries.filter_map(|entry| entry.desired.module().cloned()).collect();
        self.touch_plugins(touched);
        for template in changed_templates(&self.loaded, &loaded) {
            self.touched.extend(self.proxies.touched_by_template(&template, &self.root_namespace));
        }
        self.memory.keep_sources(&loaded);
        self.together = cross_check(&loaded, &self.root_namespace);
        self.loaded = loaded;
        (self.table.wanted(), changed)
    }

    pub fn on_modules(&mut self, modules: Arc<BTreeMap<ModuleRef, ModuleState>>, notes: NotesByModule) {
        self.notes = notes;
        let touched = self.table.set_modules(&modules);
        self.modules = modules;
        self.touch_plugins(touched);
    }

    pub fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { stream, hello, snapshots } = arrival;
        let (proxy, is_new_process) = (hello.proxy.clone(), hello.is_new_process);
        tracing::info!(
            node = proxy.node_id,
            namespace = proxy.namespace,
            version = proxy.version.map(tracing::field::display),
            peer = hello.peer.map(tracing::field::display),
            "proxy connected"
        );
        let key = self.proxies.connect(stream, hello, snapshots);
        let Some(connected) = self.proxies.get_mut(key) else { return };
        if is_new_process {
            self.refusals.forget(&proxy);
        } else {
            for (plugin, revision, message) in self.refusals.of(&proxy) {
                connected.facts.refused.insert((plugin.clone(), revision));
                connected.progress.recall_refusal(plugin, revision, message);
            }
            connected.regroup();
        }
        // A further stream of a known proxy gets what the others have.
        if let Some(compiled) = connected.progress.expected().filter(|_| connected.kind.is_some()) {
            connected.serve(&compiled.snapshot.clone());
        }
        self.touched.insert(key);
    }

    pub fn on_report(&mut self, report: Report) {
        match report {
            Report::Gone(stream) => {
                if let Some(connected) = self.proxies.disconnect(stream) {
                    tracing::info!(node = connected.id, "proxy disconnected");
                }
            }
            Report::Delivered(stream, delivery) => {
                if let Some(key) = self.proxies.of_stream(stream) {
                    self.on_delivery(key, delivery);
                }
            }
        }
    }

    fn on_delivery(&mut self, key: ProxyKey, delivery: Delivery) {
        let Some(connected) = self.proxies.get_mut(key) else { return };
        let is_accepted_extension =
            delivery.outcome == Outcome::Accepted && delivery.resource.resource_type == ResourceType::ExtensionConfig;
        if is_accepted_extension && self.proven.insert(delivery.resource.version.clone()) {
            for part in &delivery.resource.parts {
                let (Ok(plugin), Some(revision)) = (part.owner.parse::<PluginId>(), Revision::parse(&part.revision))
                else {
                    continue;
                };
                if self.table.record_good(&plugin, revision) {
                    self.memory.keep_plugin(&plugin, &self.table.remember(&plugin));
                }
            }
        }
        let refused = connected.progress.fold(delivery);
        if connected.progress.is_settled() {
            self.pushes.settled(key);
        }
        for (plugin, revision) in refused {
            let message = connected.progress.refusal(&plugin, revision).unwrap_or_default();
            tracing::warn!(node = connected.id, %plugin, %revision, error = message, "plugin refused");
            self.refusals.record(&connected.proxy, &plugin, revision, message);
            connected.facts.refused.insert((plugin, revision));
            connected.regroup();
            self.touched.insert(key);
        }
    }

    /// Gives every touched proxy what it is to run now.
    pub fn flush(&mut self) {
        let now = Instant::now();
        if !self.is_open {
            if self.table.is_loading() && now < self.opens_at {
                return;
            }
            self.is_open = true;
            self.touched = self.proxies.iter().map(|(key, _)| key).collect();
        }
        while let Some(first) = self.deadlines.first_entry().filter(|first| *first.key() <= now) {
            self.touched.extend(first.remove());
        }
        // A proxy whose facts change on the way comes round again.
        while !self.touched.is_empty() {
            let mut groups: HashMap<(Arc<GroupKey>, bool), Vec<ProxyKey>> = HashMap::new();
            for key in std::mem::take(&mut self.touched) {
                if let Some(connected) = self.proxies.get(key) {
                    groups.entry((connected.group.clone(), connected.is_starting)).or_default().push(key);
                }
            }
            for ((_, is_starting), members) in groups {
                self.flush_group(&members, is_starting, now);
            }
        }
        self.kinds.retain(|_, compiled| compiled.strong_count() > 0);
    }

    fn flush_group(&mut self, members: &[ProxyKey], is_starting: bool, now: Instant) {
        let Some(kind) = members.first().and_then(|key| self.select(*key)) else { return };
        if is_starting {
            let absent = absent(&kind);
            if let Some(until) = self.waits_until(&absent).filter(|until| now < *until) {
                self.deadlines.entry(until).or_default().extend(members);
                return;
            }
            for key in members {
                let Some(connected) = self.proxies.get_mut(*key) else { continue };
                connected.is_starting = false;
                connected.facts.stand_ins = absent.clone();
                connected.regroup();
            }
            if !absent.is_empty() {
                self.touched.extend(members);
                return;
            }
        }
        let key = kind.key();
        let changed: Vec<_> = members
            .iter()
            .filter(|member| self.proxies.get(**member).is_some_and(|it| it.kind.as_ref() != Some(&key)))
            .copied()
            .collect();
        if changed.is_empty() {
            return;
        }
        let compiled = self.compiled(&key, &kind);
        for member in &changed {
            let Some(connected) = self.proxies.get_mut(*member) else { continue };
            let is_new = connected.kind.replace(key.clone()).is_none();
            connected.progress.expect(compiled.clone());
            connected.serve(&compiled.snapshot);
            // A proxy that has just come does not make the last change slow.
            if !is_new && !connected.progress.is_settled() {
                self.pushes.sent(*member);
            }
        }
        tracing::debug!(proxies = changed.len(), "snapshot published");
    }

    pub(super) fn select(&self, key: ProxyKey) -> Option<Kind> {
        let connected = self.proxies.get(key)?;
        let own = &*connected.proxy.namespace;
        let root = (self.root_namespace != own).then_some(&*self.root_namespace);
        let plugins = [Some(own), root].into_iter().flatten().flat_map(|namespace| self.table.in_namespace(namespace));
        let in_reach = |id: &TemplateId| *id.namespace == *own || *id.namespace == *self.root_namespace;
        let templates = self.loaded.templates.iter().filter(|(id, _)| in_reach(id)).map(|(_, template)| template);
        Some(select(&connected.proxy, &connected.facts, &self.root_namespace, plugins, templates, releases()))
    }

    fn compiled(&mut self, key: &KindKey, kind: &Kind) -> Arc<Compiled> {
        if let Some(compiled) = self.kinds.get(key).and_then(Weak::upgrade) {
            return compiled;
        }
        let compiled = Arc::new(compile(kind));
        for problem in &compiled.problems {
            if self.reported_problems.insert(format!("{problem:?}")) {
                tracing::warn!(resource = problem.resource, reason = problem.reason, "problem found");
            }
        }
        self.kinds.insert(key.clone(), Arc::downgrade(&compiled));
        compiled
    }

    /// Until when a starting proxy waits for these plugins: for those that are new, not for those that failed long ago.
    fn waits_until(&self, absent: &BTreeSet<PluginId>) -> Option<Instant> {
        let first_seen = absent.iter().filter_map(|id| self.table.first_seen(id)).max()?;
        Some(Instant::from_std(first_seen) + MODULES_WITHIN)
    }

    fn touch_plugins(&mut self, touched: Vec<Touched>) {
        self.proven.clear();
        for Touched { id, scopes } in touched {
            if let Some(entry) = self.table.get(&id) {
                log_module(&id, &entry.module);
            }
            for plugin in scopes {
                self.touched.extend(self.proxies.touched_by_plugin(&plugin, &self.root_namespace));
            }
        }
    }
}

fn log_module(id: &PluginId, module: &ModuleState) {
    match module {
        ModuleState::Ready(_) => tracing::info!(plugin = %id, "plugin ready"),
        ModuleState::Failed { reason } => tracing::warn!(plugin = %id, error = reason, "module not loaded"),
        ModuleState::Pending => {}
    }
}

/// Plugins that would be nowhere on this kind for want of a module.
fn absent(kind: &Kind) -> BTreeSet<PluginId> {
    let is_absent = |run: &Run| matches!(run, Run::Absent);
    kind.plugins.iter().filter(|member| is_absent(&member.run)).map(|member| member.plugin.id.clone()).collect()
}

/// Templates that came, went or changed: both versions.
fn changed_templates(old: &Loaded, new: &Loaded) -> Vec<Arc<ProxyTemplate>> {
    let differs = |other: &Loaded, id: &TemplateId, template: &Arc<ProxyTemplate>| {
        other.templates.get(id).is_none_or(|it| !Arc::ptr_eq(it, template) && it != template)
    };
    let gone = old.templates.iter().filter(|(id, template)| differs(new, id, template));
    let come = new.templates.iter().filter(|(id, template)| differs(old, id, template));
    gone.chain(come).map(|(_, template)| template.clone()).collect()
}
