//! Every plugin with its module: what the operator wants, and what proxies are to run until that is ready.
//!
//! Pure. One writer: the reconciler.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{Code, ModuleRef, ModuleState, Plugin, PluginEntry, PluginId, PluginKind, PluginRevision, Revision};

/// Accepted revisions kept per plugin: the one that runs and the one before, for proxies that refuse the newer.
const GOOD_REVISIONS: usize = 2;

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
}

/// All plugins.
#[derive(Debug, Default)]
pub struct PluginTable {
    rows: BTreeMap<PluginId, Row>,
}

impl PluginTable {
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
                Some(row) if row.entry.desired == *plugin => {}
                Some(row) => {
                    let before = row.entry.scopes();
                    row.entry.desired = plugin.clone();
                    row.entry.take_module(modules);
                    touched.push(Touched { id: id.clone(), scopes: [before, row.entry.scopes()].concat() });
                }
                None => {
                    let mut entry = PluginEntry {
                        desired: plugin.clone(),
                        module: ModuleState::Pending,
                        running: None,
                        good: Vec::new(),
                    };
                    entry.take_module(modules);
                    touched.push(Touched { id: id.clone(), scopes: entry.scopes() });
                    self.rows.insert(id.clone(), Row { entry, first_seen: now });
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
            if row.entry.take_module(modules) {
                touched.push(Touched { id: id.clone(), scopes: [before, row.entry.scopes()].concat() });
            }
        }
        touched
    }

    /// Some proxy accepted this revision.
    pub fn record_good(&mut self, id: &PluginId, revision: Revision) {
        let Some(row) = self.rows.get_mut(id) else { return };
        let PluginEntry { running, good, .. } = &mut row.entry;
        let Some(running) = running.as_ref().filter(|running| running.revision == revision) else { return };
        if good.first().is_none_or(|newest| newest.revision != revision) {
            good.retain(|older| older.revision != revision);
            good.insert(0, running.clone());
            good.truncate(GOOD_REVISIONS);
        }
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
        if let ModuleState::Ready(code) = &state {
            let next = PluginRevision::new(self.desired.clone(), code.clone());
            let is_running = self
                .running
                .as_ref()
                .is_some_and(|running| running.revision == next.revision && running.plugin == next.plugin);
            if !is_running {
                self.running = Some(Arc::new(next));
                is_new = true;
            }
        }
        self.module = state;
        is_new
    }

    fn scopes(&self) -> Vec<Arc<Plugin>> {
        self.running.iter().map(|running| &running.plugin).chain([&self.desired]).cloned().collect()
    }
}

fn is_same_state(one: &ModuleState, other: &ModuleState) -> bool {
    match (one, other) {
        (ModuleState::Pending, ModuleState::Pending) | (ModuleState::Ready(_), ModuleState::Ready(_)) => true,
        (ModuleState::Failed { reason: one }, ModuleState::Failed { reason: other }) => one == other,
        _ => false,
    }
}
