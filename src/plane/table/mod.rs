//! Every plugin with its module: what the operator wants, and what proxies are to run until that is ready.
//!
//! Pure. One writer: the reconciler.

mod remembered;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

pub use remembered::Remembered;

use remembered::{RememberedCode, digest};

use crate::model::{Code, ModuleRef, ModuleState, Plugin, PluginEntry, PluginId, PluginKind, PluginRevision, Revision};

/// Accepted revisions kept per plugin whoever runs them: the one that runs and the one before, for proxies that refuse
/// the newer.
const GOOD_REVISIONS: usize = 2;

/// Accepted revisions kept per plugin where proxies still run older ones: each has a module in memory.
const MOST_GOOD_REVISIONS: usize = 8;

/// Former revisions kept per plugin that some proxy may be loading yet: a long compilation, and edits meanwhile.
const UNPROVEN_REVISIONS: usize = 4;

/// A plugin whose running revision or module state is another than before.
#[derive(Debug)]
pub struct Touched {
    pub id: PluginId,
    /// Specifications, old and new, whose proxies have to be looked at again.
    pub scopes: Vec<Arc<Plugin>>,
}

#[derive(Debug)]
struct Row {
    entry: PluginEntry,
    first_seen: Instant,
    /// Revisions that were to run before the running one, newest first, as long as neither they nor a later one was
    /// accepted. Who accepts one of them late has it to go back to.
    unproven: Vec<Arc<PluginRevision>>,
    /// Good revisions from before a restart, newest first, until their modules are read back.
    remembered: Vec<Remembered>,
}

/// All plugins.
#[derive(Debug, Default)]
pub struct PluginTable {
    rows: BTreeMap<PluginId, Row>,
    /// From before a restart, until the plugin is loaded.
    remembered: BTreeMap<PluginId, Vec<Remembered>>,
}

impl PluginTable {
    /// Begins with the good revisions from before a restart.
    pub fn recall(remembered: BTreeMap<PluginId, Vec<Remembered>>) -> Self {
        Self { rows: BTreeMap::new(), remembered }
    }

    /// What [`PluginTable::recall`] needs of a plugin.
    pub fn remember(&self, id: &PluginId) -> Vec<Remembered> {
        let row = self.rows.get(id);
        let good = row.into_iter().flat_map(|row| &row.entry.good).map(|good| Remembered::of(good));
        let older = row.into_iter().flat_map(|row| row.remembered.iter().cloned());
        good.chain(older).take(MOST_GOOD_REVISIONS).collect()
    }

    /// Modules of what is to run, and of what is to run where that is refused.
    pub fn wanted(&self) -> BTreeSet<ModuleRef> {
        let of = |row: &Row| {
            let running = row.entry.running.as_ref().and_then(|running| digest(&running.code));
            let good = row.entry.good.iter().map(|good| Remembered::of(good));
            let good = good.chain(row.remembered.iter().cloned());
            let good = good.filter(|good| running.is_none() || good.digest() != running);
            let pinned: Vec<_> = good.filter_map(|good| good.module()).collect();
            pinned.into_iter().chain(row.entry.desired.module().cloned())
        };
        self.rows.values().flat_map(of).collect()
    }

    /// Keys of labels that selection looks at.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let specifications = self
            .entries()
            .flat_map(|entry| entry.running.iter().map(|running| &running.plugin).chain([&entry.desired]));
        specifications.flat_map(|plugin| plugin.target.labels())
    }

    /// Whether some plugin may still come to a module that it waits for.
    pub fn is_loading(&self) -> bool {
        self.rows.values().any(|row| matches!(row.entry.module, ModuleState::Pending) || !row.remembered.is_empty())
    }

    pub fn get(&self, id: &PluginId) -> Option<&PluginEntry> {
        self.rows.get(id).map(|row| &row.entry)
    }

    pub fn entries(&self) -> impl Iterator<Item = &PluginEntry> {
        self.rows.values().map(|row| &row.entry)
    }

    /// The plugins of one namespace. Ids are ordered by namespace first.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a PluginEntry> {
        let first = PluginId::new(PluginKind::WasmPlugin, namespace, "");
        self.rows
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(id, _)| *id.namespace == *namespace)
            .map(|(_, row)| &row.entry)
    }

    pub fn first_seen(&self, id: &PluginId) -> Option<Instant> {
        self.rows.get(id).map(|row| row.first_seen)
    }

    /// Takes over what the operator wants now.
    pub fn set_desired(
        &mut self,
        plugins: &BTreeMap<PluginId, Arc<Plugin>>,
        modules: &BTreeMap<ModuleRef, ModuleState>,
        now: Instant,
    ) -> Vec<Touched> {
        let gone: Vec<_> = self.rows.keys().filter(|id| !plugins.contains_key(id)).cloned().collect();
        let mut touched: Vec<_> = gone
            .into_iter()
            .filter_map(|id| {
                let row = self.rows.remove(&id)?;
                Some(Touched { id, scopes: row.entry.scopes() })
            })
            .collect();
        for (id, plugin) in plugins {
            match self.rows.get_mut(id) {
                Some(row) if is_same_plugin(&row.entry.desired, plugin) => {}
                Some(row) => {
                    let before = row.entry.scopes();
                    row.entry.desired = plugin.clone();
                    row.follow(modules);
                    touched.push(Touched { id: id.clone(), scopes: [before, row.entry.scopes()].concat() });
                }
                None => {
                    let entry = PluginEntry {
                        desired: plugin.clone(),
                        module: ModuleState::Pending,
                        running: None,
                        good: Vec::new(),
                    };
                    let remembered = self.remembered.remove(id).unwrap_or_default();
                    let mut row = Row { entry, first_seen: now, unproven: Vec::new(), remembered };
                    row.follow(modules);
                    touched.push(Touched { id: id.clone(), scopes: row.entry.scopes() });
                    self.rows.insert(id.clone(), row);
                }
            }
        }
        touched
    }

    /// Takes over what the modules have come to.
    pub fn set_modules(&mut self, modules: &BTreeMap<ModuleRef, ModuleState>) -> Vec<Touched> {
        let mut touched = Vec::new();
        for (id, row) in &mut self.rows {
            let before = row.entry.scopes();
            if row.follow(modules) {
                touched.push(Touched { id: id.clone(), scopes: [before, row.entry.scopes()].concat() });
            }
        }
        touched
    }

    /// Some proxy accepted this revision. Whether that is news, to be remembered.
    pub fn record_good(&mut self, id: &PluginId, revision: Revision) -> bool {
        let Some(row) = self.rows.get_mut(id) else { return false };
        let PluginEntry { running, good, .. } = &mut row.entry;
        let accepted = if running.as_ref().is_some_and(|running| running.revision == revision) {
            row.unproven.clear();
            running.clone().expect("its revision was just compared")
        } else {
            let Some(place) = row.unproven.iter().position(|former| former.revision == revision) else { return false };
            let accepted = row.unproven[place].clone();
            row.unproven.truncate(place);
            accepted
        };
        if good
            .first()
            .is_some_and(|newest| newest.revision == revision && is_same_plugin(&newest.plugin, &accepted.plugin))
        {
            return false;
        }
        good.retain(|older| older.revision != revision);
        good.insert(0, accepted);
        good.truncate(MOST_GOOD_REVISIONS);
        true
    }

    /// Plugins that have more good revisions than are kept whoever runs them.
    pub fn spare(&self) -> impl Iterator<Item = &PluginId> {
        self.rows.iter().filter(|(_, row)| row.entry.good.len() > GOOD_REVISIONS).map(|(id, _)| id)
    }

    /// Lets go of older good revisions that are not in use; returns the plugins that had some.
    pub fn let_go(&mut self, in_use: &HashSet<(PluginId, Revision)>) -> Vec<PluginId> {
        let lets_go = |(id, row): (&PluginId, &mut Row)| {
            let good = &mut row.entry.good;
            let (before, mut newest) = (good.len(), 0..GOOD_REVISIONS);
            good.retain(|good| newest.next().is_some() || in_use.contains(&(id.clone(), good.revision)));
            (good.len() < before).then(|| id.clone())
        };
        self.rows.iter_mut().filter(|(_, row)| row.entry.good.len() > GOOD_REVISIONS).filter_map(lets_go).collect()
    }
}

impl Row {
    /// Takes over what the modules have come to; returns whether anything is different now.
    fn follow(&mut self, modules: &BTreeMap<ModuleRef, ModuleState>) -> bool {
        let is_remembered = self.take_remembered(modules);
        let before = self.entry.running.clone();
        let is_new = self.entry.take_module(modules);
        self.set_aside(before);
        // The module that runs now may be the one that an older revision waits for.
        self.take_remembered(modules) | is_remembered | is_new
    }

    /// Keeps what was to run before, if that has been replaced and no proxy has accepted it so far.
    fn set_aside(&mut self, before: Option<Arc<PluginRevision>>) {
        let Some(before) = before else { return };
        let is_replaced = self.entry.running.as_ref().is_some_and(|running| running.revision != before.revision);
        if is_replaced && self.entry.good.iter().all(|good| good.revision != before.revision) {
            self.unproven.retain(|former| former.revision != before.revision);
            self.unproven.insert(0, before);
            self.unproven.truncate(UNPROVEN_REVISIONS);
        }
    }

    /// Turns what is remembered into revisions again as their modules come; what has none any more is forgotten.
    fn take_remembered(&mut self, modules: &BTreeMap<ModuleRef, ModuleState>) -> bool {
        let before = self.remembered.len();
        let entry = &mut self.entry;
        let running = entry.running.as_ref().map(|running| running.code.clone());
        self.remembered.retain(|remembered| {
            let code = match &remembered.code {
                RememberedCode::OnProxy(path) => Code::OnProxy(path.clone()),
                RememberedCode::InSpecification => Code::InSpecification,
                // What runs is not asked for a second time.
                RememberedCode::Module(wanted) if running.as_ref().and_then(digest) == Some(*wanted) => {
                    running.clone().expect("its digest was just compared")
                }
                RememberedCode::Module(_) => match remembered.module().and_then(|module| modules.get(&module)) {
                    Some(ModuleState::Ready(code)) => code.clone(),
                    Some(ModuleState::Failed { .. }) => return false,
                    Some(ModuleState::Pending) | None => return true,
                },
            };
            let revision = PluginRevision::new(remembered.plugin.clone(), code);
            if entry.good.len() < MOST_GOOD_REVISIONS
                && entry.good.iter().all(|good| good.revision != revision.revision)
            {
                entry.good.push(Arc::new(revision));
            }
            false
        });
        self.remembered.len() != before
    }
}

/// How an entry changes.
trait Follow {
    fn take_module(&mut self, modules: &BTreeMap<ModuleRef, ModuleState>) -> bool;
    fn scopes(&self) -> Vec<Arc<Plugin>>;
}

impl Follow for PluginEntry {
    /// Looks at the module that is wanted; returns whether anything is different now. Until the module is ready the
    /// revision before goes on running: a failure never replaces a working plugin.
    fn take_module(&mut self, modules: &BTreeMap<ModuleRef, ModuleState>) -> bool {
        let state = match self.desired.module() {
            Some(module) => modules.get(module).cloned().unwrap_or(ModuleState::Pending),
            None => ModuleState::Ready(Code::InSpecification),
        };
        let mut is_new = !is_same_state(&self.module, &state);
        if let ModuleState::Ready(code) = &state
            && !self.running.as_ref().is_some_and(|running| is_made_of(running, &self.desired, code))
        {
            let next = PluginRevision::new(self.desired.clone(), code.clone());
            let is_running = self
                .running
                .as_ref()
                .is_some_and(|running| running.revision == next.revision && running.plugin == next.plugin);
            if !is_running {
                self.running = Some(Arc::new(next));
                is_new = true;
            }
        } else if self.running.is_none() && !self.good.is_empty() {
            // After a restart: what ran before it goes on.
            self.running = self.good.first().cloned();
            is_new = true;
        }
        self.module = state;
        is_new
    }

    fn scopes(&self) -> Vec<Arc<Plugin>> {
        self.running.iter().map(|running| &running.plugin).chain([&self.desired]).cloned().collect()
    }
}

/// Whether a revision was made of these very two: what they are is not to be hashed again for every module that comes.
fn is_made_of(revision: &PluginRevision, plugin: &Arc<Plugin>, code: &Code) -> bool {
    let is_same_code = match (&revision.code, code) {
        (Code::Module(one), Code::Module(other)) => Arc::ptr_eq(one, other),
        (Code::OnProxy(one), Code::OnProxy(other)) => one == other,
        (Code::InSpecification, Code::InSpecification) => true,
        _ => false,
    };
    is_same_code && Arc::ptr_eq(&revision.plugin, plugin)
}

/// Equal ones are nearly always the very same, and the others are long.
fn is_same_plugin(one: &Arc<Plugin>, other: &Arc<Plugin>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

fn is_same_state(one: &ModuleState, other: &ModuleState) -> bool {
    match (one, other) {
        (ModuleState::Pending, ModuleState::Pending) | (ModuleState::Ready(_), ModuleState::Ready(_)) => true,
        (ModuleState::Failed { reason: one }, ModuleState::Failed { reason: other }) => one == other,
        _ => false,
    }
}
