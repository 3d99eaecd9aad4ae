//! The one writer of all state: takes in changes, decides which proxies they touch, and hands those new snapshots.

mod flush;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::compile::{Compiled, Filters, KindKey};
use crate::model::{ModuleDelivery, ModuleRef, ModuleState, PluginId, ProxyTemplate, Revision, TemplateId};
use crate::modules::NotesByModule;
use crate::plane::delivery::Deliveries;
use crate::plane::fleet::Arrival;
use crate::plane::memory::Memory;
use crate::plane::module_view::Images;
use crate::plane::proxies::{Proxies, ProxyKey};
use crate::plane::pushes::Pushes;
use crate::plane::refusals::{Refusal, Refusals};
use crate::plane::table::{PluginTable, Touched};
use crate::rollout::Folded;
use crate::snapshot::{Resource, ResourceType, Version};
use crate::sources::{Finding, Loaded, cross_check};
use crate::xds::{Delivery, Outcome, Report};

/// How long proxies wait for modules: all of them after the control plane's start, so that none of them is told to do
/// without a plugin that it runs; an Envoy that starts, so that it need not begin with a stand-in (design, section 4).
pub const MODULES_WITHIN: Duration = Duration::from_secs(10);

/// All state of the plane.
#[derive(Debug)]
pub struct Reconciler {
    pub(in crate::plane) root_namespace: String,
    pub(in crate::plane) loaded: Arc<Loaded>,
    /// What the resources mean together that none of them shows alone.
    pub(in crate::plane) together: Vec<Finding>,
    pub(in crate::plane) table: PluginTable,
    pub(in crate::plane) proxies: Proxies,
    modules: Arc<BTreeMap<ModuleRef, ModuleState>>,
    pub(in crate::plane) notes: NotesByModule,
    pub(in crate::plane) images: Images,
    refusals: Refusals,
    pub(in crate::plane) memory: Memory,
    kinds: HashMap<KindKey, Weak<Compiled>>,
    /// What the kinds are made of and share.
    filters: Filters,
    /// ECDS resources whose plugins are in the table as good; until the table changes.
    proven: HashSet<Version>,
    /// There may be good revisions that nobody needs any more.
    has_spare_revisions: bool,
    /// Proxies to be looked at in the next flush.
    touched: HashSet<ProxyKey>,
    /// Nothing is served before the sources are loaded and the modules had their time (design, section 5, rule 9).
    opens_at: Instant,
    is_loaded: bool,
    is_open: bool,
    /// When a starting proxy has waited long enough.
    deadlines: BTreeMap<Instant, HashSet<ProxyKey>>,
    /// Problems in the log that are still there.
    pub(in crate::plane) reported_problems: HashSet<String>,
    pub(in crate::plane) pushes: Pushes,
    deliveries: Deliveries,
}

impl Reconciler {
    pub fn new(
        root_namespace: String,
        refusals: Refusals,
        mut memory: Memory,
        pushes: Pushes,
        deliveries: Deliveries,
    ) -> Self {
        Self {
            root_namespace,
            loaded: Arc::default(),
            together: Vec::new(),
            table: PluginTable::recall(memory.take_plugins()),
            proxies: Proxies::default(),
            modules: Arc::default(),
            notes: Arc::default(),
            images: Images::default(),
            refusals,
            memory,
            kinds: HashMap::new(),
            filters: Filters::default(),
            proven: HashSet::new(),
            has_spare_revisions: false,
            touched: HashSet::new(),
            opens_at: Instant::now() + MODULES_WITHIN,
            is_loaded: false,
            is_open: false,
            deadlines: BTreeMap::new(),
            reported_problems: HashSet::new(),
            pushes,
            deliveries,
        }
    }

    /// Whether proxies are being served.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// When [`Reconciler::flush`] has something to do although nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        if let Some(until) = self.memory.holds_until() {
            return Some(until);
        }
        if !self.is_open {
            return self.is_loaded.then_some(self.opens_at);
        }
        self.deadlines.keys().next().copied()
    }

    /// Takes over the sources; returns the modules that are wanted now, and those of plugins that have changed.
    pub fn on_loaded(&mut self, loaded: Arc<Loaded>) -> (BTreeSet<ModuleRef>, BTreeSet<ModuleRef>) {
        let touched = self.table.set_desired(&loaded.plugins, &self.modules, Instant::now().into_std());
        self.forget_plugins(&loaded);
        let entries = touched.iter().filter_map(|touched| self.table.get(&touched.id));
        let changed = entries.filter_map(|entry| entry.desired.module().cloned()).collect();
        self.touch_plugins(touched);
        for template in changed_templates(&self.loaded, &loaded) {
            self.touched.extend(self.proxies.touched_by_template(&template, &self.root_namespace));
        }
        self.memory.keep_sources(&loaded);
        self.together = cross_check(&loaded, &self.root_namespace);
        self.loaded = loaded;
        self.is_loaded = true;
        self.ask_for_labels();
        (self.table.wanted(), changed)
    }

    /// What is known of plugins that are gone would be kept for ever. One that comes again is another one.
    fn forget_plugins(&mut self, loaded: &Loaded) {
        let gone = self.loaded.plugins.keys().filter(|id| !loaded.plugins.contains_key(*id));
        for plugin in gone {
            self.refusals.forget_plugin(plugin);
            for key in self.proxies.iter().map(|(key, _)| key).collect::<Vec<_>>() {
                if let Some(connected) = self.proxies.get_mut(key)
                    && connected.progress.forget(plugin)
                {
                    connected.regroup();
                }
            }
        }
    }

    pub fn on_modules(&mut self, modules: Arc<BTreeMap<ModuleRef, ModuleState>>, notes: NotesByModule) {
        let touched = self.table.set_modules(&modules);
        self.modules = modules;
        self.touch_plugins(touched);
        self.ask_for_labels();
        self.on_notes(notes);
    }

    /// What is said of modules has changed, and no module has.
    pub fn on_notes(&mut self, notes: NotesByModule) {
        self.images.note(self.table.entries(), &notes);
        self.notes = notes;
    }

    pub fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { stream, hello, snapshots } = arrival;
        let (proxy, is_new_process) = (hello.proxy.clone(), hello.is_new_process);
        let peer = hello.peer.map(|peer| peer.ip());
        tracing::info!(
            node = proxy.node_id,
            namespace = proxy.namespace,
            version = proxy.version.map(tracing::field::display),
            peer = hello.peer.map(tracing::field::display),
            "proxy connected"
        );
        let key = self.proxies.connect(stream, hello, snapshots);
        let is_several = self.proxies.are_several(&proxy.node_id);
        let Some(connected) = self.proxies.get_mut(key) else { return };
        // Of an Envoy's separate services, a later one may hold nothing yet: only the first tells whether it starts.
        let is_first = connected.streams.len() == 1;
        if is_several {
            // What one of them did is not to be told of the others.
            self.refusals.share(&proxy);
            self.deliveries.forget(&proxy);
        } else if is_first && is_new_process {
            self.refusals.forget(&proxy);
            self.deliveries.forget(&proxy);
        } else if is_first {
            for Refusal { plugin, revision, message, last_good } in self.refusals.of(&proxy) {
                connected.progress.recall_refusal(plugin, revision, message, last_good);
            }
        }
        let services = connected.streams.values().map(|stream| stream.service);
        let (delivery, why_inline) = self.deliveries.choose(&connected.proxy, services, peer);
        connected.facts.delivery = delivery;
        connected.delivery_reason = why_inline;
        connected.regroup();
        // A further stream of a known proxy gets what the others have.
        if let Some(compiled) = connected.progress.expected().filter(|_| connected.kind.is_some()) {
            connected.serve(&compiled.snapshot.clone());
        }
        self.touched.insert(key);
    }

    pub fn on_report(&mut self, report: Report) {
        match report {
            Report::Gone(stream) => {
                let key = self.proxies.of_stream(stream);
                if let Some(connected) = self.proxies.disconnect(stream) {
                    tracing::info!(node = connected.id, "proxy disconnected");
                    self.has_spare_revisions = true;
                    key.into_iter().for_each(|key| self.pushes.gone(key));
                }
            }
            Report::FellBack(stream, reason) => {
                let Some(key) = self.proxies.of_stream(stream) else { return };
                let is_several = self.proxies.get(key).is_some_and(|it| self.proxies.are_several(&it.proxy.node_id));
                let Some(connected) = self.proxies.get_mut(key) else { return };
                if !is_several {
                    self.deliveries.fell_back(&connected.proxy, reason);
                }
                connected.facts.delivery = ModuleDelivery::Inline;
                connected.delivery_reason = reason;
                connected.regroup();
                self.touched.insert(key);
            }
            Report::Stuck(stream, reason) => {
                let connected = self.proxies.of_stream(stream).and_then(|key| self.proxies.get_mut(key));
                if let Some(connected) = connected.filter(|it| it.facts.delivery == ModuleDelivery::Digest) {
                    connected.delivery_reason = reason;
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
        if delivery.outcome == Outcome::Accepted && delivery.resource.resource_type == ResourceType::ExtensionConfig {
            self.prove(&delivery.resource);
        }
        let Some(connected) = self.proxies.get_mut(key) else { return };
        let Folded { refused, cleared, has_new_facts } = connected.progress.fold(delivery);
        if connected.progress.is_settled() {
            self.pushes.settled(key);
        }
        for (plugin, revision) in refused {
            let message = connected.progress.refusal(&plugin, revision).unwrap_or_default();
            tracing::warn!(node = connected.id, %plugin, %revision, error = message, "plugin refused");
            let last_good = connected.progress.last_good(&plugin);
            let refusal = Refusal { plugin, revision, message: message.into(), last_good };
            self.refusals.record(&connected.proxy, refusal);
        }
        for (plugin, revision) in cleared {
            tracing::info!(node = connected.id, %plugin, %revision, "plugin accepted after all");
            self.refusals.clear(&connected.proxy, &plugin, revision);
        }
        if has_new_facts {
            connected.regroup();
            self.touched.insert(key);
        }
    }

    /// Some proxy accepted this: what it is made of is good.
    fn prove(&mut self, resource: &Resource) {
        if !self.proven.insert(resource.version.clone()) {
            return;
        }
        for part in resource.parts.iter() {
            let (Ok(plugin), Some(revision)) = (part.owner.parse::<PluginId>(), Revision::parse(&part.revision)) else {
                continue;
            };
            if self.table.record_good(&plugin, revision) {
                self.has_spare_revisions = true;
                self.proxies.forget_selected();
                self.memory.keep_plugin(&plugin, &self.table.remember(&plugin));
            }
        }
    }

    /// Labels that no selector asks for do not tell proxies apart.
    fn ask_for_labels(&mut self) {
        let templates = self.loaded.templates.values().filter_map(|template| template.selector.as_ref());
        let of_templates = templates.flat_map(|selector| selector.0.keys()).map(String::as_str);
        self.proxies.ask_for(&self.table.labels().chain(of_templates).collect());
    }

    fn touch_plugins(&mut self, touched: Vec<Touched>) {
        self.proven.clear();
        self.proxies.forget_selected();
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

/// Templates that came, went or changed: both versions.
fn changed_templates(old: &Loaded, new: &Loaded) -> Vec<Arc<ProxyTemplate>> {
    let differs = |other: &Loaded, id: &TemplateId, template: &Arc<ProxyTemplate>| {
        other.templates.get(id).is_none_or(|it| !Arc::ptr_eq(it, template) && it != template)
    };
    let gone = old.templates.iter().filter(|(id, template)| differs(new, id, template));
    let come = new.templates.iter().filter(|(id, template)| differs(old, id, template));
    gone.chain(come).map(|(_, template)| template.clone()).collect()
}
