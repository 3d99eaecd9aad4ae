//! Manifests as operators write them, turned into the model once, at the door.
//!
//! Comes in: YAML and JSON files. Goes out: [`Loaded`], plugins and templates beside the faults of the rest.
//! Invariant: one file's fault never takes another resource away; nothing here fetches a module.
//!
//! ```text
//! disk ─ listing ─ scanner ─┐            which files there are, which are ready to be read
//! inotify ─ inbox ──────────┴─ directory  when to look, and at what; publishes what became of it
//!   bytes ─ manifest ─ yaml               a file's text as trees that know their lines
//!     document ┬ wasm_plugin              a tree as a resource, field by field (fields, report),
//!              ├ traffic_extension        with every fault of it at once
//!              ├ proxy_template ─ native
//!              └ pull_secret
//!   memory ─ merge                        the last good content of each file, made one
//!   cross                                 what only shows where all of it is looked at together
//!   share                                 texts without credentials, for a control plane to judge
//! ```
//!
//! A file is read when it was closed after writing or renamed into place. What is broken, has turned empty, is refused
//! or cannot be looked at keeps its last good content and is reported. Only a deleted file deletes, or a document that
//! is gone from a sound file; a `--config` folder that vanishes as a whole deletes nothing.

mod annotations;
mod cross;
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
mod metadata;
mod module_url;
mod names;
mod native;
mod native_sense;
mod proxy_template;
mod pull_secret;
mod report;
mod scanner;
mod share;
mod traffic;
mod traffic_extension;
#[cfg(test)]
mod vectors;
mod vm_config;
mod wasm_block;
mod wasm_plugin;
mod workload;
mod yaml;
mod yaml_value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::cross::cross_check;
pub use self::directory::{Directory, missing};
use self::memory::{Memory, Scan, Seen};
use self::report::about_file;
use self::scanner::{Scanner, Writes};
pub use self::share::{Shared, share};
use self::yaml::{Node, Place};
use crate::model::{Plugin, PluginId, ProxyTemplate, PullSecret, TemplateId};

/// All resources of all files at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub plugins: BTreeMap<PluginId, Arc<Plugin>>,
    pub templates: BTreeMap<TemplateId, Arc<ProxyTemplate>>,
    /// By namespace and name.
    pub secrets: BTreeMap<(String, String), Arc<PullSecret>>,
    /// What was refused; the last good content of it stays in `plugins` and `templates`.
    pub faults: Vec<Finding>,
    /// What was accepted and yet has no or a surprising effect.
    pub warnings: Vec<Finding>,
    /// Where each resource stands, by its kind and name, such as `WasmPlugin shop/auth`.
    pub origins: BTreeMap<String, Origin>,
    /// What a restart needs so that a file broken by then takes nothing away; to be kept on disk.
    pub last_good: LastGood,
}

impl Loaded {
    /// What plugins may name: the secrets, and those that are there and broken.
    pub fn pull_secrets(&self) -> BTreeMap<(String, String), Arc<PullSecret>> {
        let mut secrets = self.secrets.clone();
        for fault in &self.faults {
            let name = fault.resource.strip_prefix("Secret ").and_then(|name| name.split_once('/'));
            let Some((namespace, name)) = name else { continue };
            let reason = format!("{}: {}", fault.field, fault.reason);
            let broken = || Arc::new(PullSecret::Broken(reason.trim_start_matches(": ").to_owned()));
            secrets.entry((namespace.to_owned(), name.to_owned())).or_insert_with(broken);
        }
        secrets
    }
}

/// Per file, the text of its last good resources; see [`Directory::open`].
pub type LastGood = BTreeMap<PathBuf, Arc<str>>;

/// Where a resource stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: PathBuf,
    outline: Arc<Node>,
}

impl Origin {
    /// Line and column of what is nearest to the field.
    pub fn locate(&self, field: &str) -> (usize, usize) {
        let Place { line, column } = self.outline.locate(field);
        (line, column)
    }
}

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
    Arc::unwrap_or_clone(Memory::default().update(scan(paths)))
}

/// The texts of all files of `paths`, to be judged elsewhere, and what could not be read.
pub fn read(paths: &[PathBuf]) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<Finding>) {
    let scan = scan(paths);
    let (mut texts, mut faults) = (BTreeMap::new(), Vec::new());
    for (path, seen) in scan.files {
        match seen {
            Seen::Read(bytes) => _ = texts.insert(path, bytes),
            Seen::Unreadable(reason) => faults.push(about_file(&path, reason)),
            Seen::Same => {}
        }
    }
    faults.extend(scan.hidden.iter().map(|hidden| about_file(&hidden.path, hidden.reason.as_str())));
    (texts, faults)
}

fn scan(paths: &[PathBuf]) -> Scan {
    let scanned = Scanner::new(paths.to_vec()).scan(Writes::default(), SystemTime::now());
    scanned.scan.expect("all is new at first")
}

/// As [`load`], of texts that were read elsewhere.
pub fn load_texts(texts: BTreeMap<PathBuf, Vec<u8>>) -> Loaded {
    let files = texts.into_iter().map(|(path, bytes)| (path, Seen::Read(bytes))).collect();
    Arc::unwrap_or_clone(Memory::default().update(Scan { files, ..Scan::default() }))
}
