//! Manifests as operators write them, turned into the model once, at the door.
//!
//! Comes in: YAML and JSON files. Goes out: [`Loaded`], plugins and templates beside the faults of the rest.
//! Invariant: one file's fault never takes another resource away; nothing here fetches a module.

mod directory;
#[cfg(test)]
mod directory_tests;
mod document;
mod fields;
mod inbox;
mod listing;
mod manifest;
mod memory;
#[cfg(test)]
mod memory_tests;
mod merge;
mod module_url;
mod names;
mod native;
mod proxy_template;
mod report;
mod scanner;
#[cfg(test)]
mod vectors;
mod wasm_plugin;
mod workload;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::directory::Directory;
use self::memory::Memory;
use self::scanner::{Scanner, Writes};
use crate::model::{Plugin, PluginId, ProxyTemplate, TemplateId};

/// All resources of all files at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub plugins: BTreeMap<PluginId, Arc<Plugin>>,
    pub templates: BTreeMap<TemplateId, Arc<ProxyTemplate>>,
    /// What was refused; the last good content of it stays in `plugins` and `templates`.
    pub faults: Vec<Finding>,
    /// What was accepted and yet has no or a surprising effect.
    pub warnings: Vec<Finding>,
    /// What a restart needs so that a file broken by then takes nothing away; to be kept on disk.
    pub last_good: LastGood,
}

/// Per file, the text of its last good resources; see [`Directory::open_with`].
pub type LastGood = BTreeMap<PathBuf, Arc<str>>;

/// One thing to say about one place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub file: PathBuf,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// From 1; 0 where the whole line is meant.
    pub column: usize,
    /// Such as `WasmPlugin shop/auth`; empty where the file is no resource at all.
    pub resource: String,
    /// The plugin's id, where the resource is one.
    pub plugin: Option<PluginId>,
    /// Such as `spec.match[0].ports[1].number`.
    pub field: String,
    /// What is wrong, the offending value and what is allowed. Lower case, no full stop.
    pub reason: String,
}

/// Reads `paths` (files and folders) once, offline.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let scanned = Scanner::new(paths.to_vec()).scan(&Writes::default(), SystemTime::now());
    Memory::default().update(scanned.scan)
}
