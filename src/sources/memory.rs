//! What every file said when it last made sense.
//!
//! Comes in: one [`Scan`] after the other. Goes out: [`Loaded`]. Pure: the disk is another file's job. A file that is
//! broken, unreadable or has turned empty keeps its last good content, and so does a resource that is refused; only a
//! file that is gone, or a document that is gone from a sound file, takes something away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Content, Declaration, Identity};
use super::merge::merge;
use super::report::about_file;
use super::yaml::{Node, Place};
use super::{Finding, LastGood, Loaded, manifest};
use crate::model::Digest;

/// What the disk showed at one moment.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub files: BTreeMap<PathBuf, Seen>,
    /// Paths that could not be looked at.
    pub hidden: Vec<Hidden>,
    /// Only these files were looked at; all else is as before.
    pub is_partial: bool,
}

/// One file, as a scan saw it.
#[derive(Debug)]
pub(super) enum Seen {
    /// As before, or not ready to be read.
    Same,
    Read(Vec<u8>),
    /// It is there, and that is all; with the reason.
    Unreadable(String),
}

/// A file or folder that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    pub path: PathBuf,
    pub reason: String,
    /// Whether it is known to be gone, as the folder is there that held it.
    pub is_gone: bool,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    files: BTreeMap<PathBuf, FileMemory>,
    /// What could not be looked at last time.
    hidden: Vec<Hidden>,
    /// What all this amounts to.
    loaded: Arc<Loaded>,
}

/// One file: its good resources, and what is to say about it.
#[derive(Debug, Default)]
pub(super) struct FileMemory {
    /// Of the bytes that were read last.
    digest: Option<Digest>,
    pub good: Vec<Good>,
    /// All texts of `good`, for a restart to read back.
    pub text: Arc<str>,
    pub faults: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// A resource as it was when it was last accepted.
#[derive(Clone, Debug)]
pub(super) struct Good {
    pub identity: Identity,
    pub content: Content,
    pub text: String,
    pub place: Place,
    pub outline: Arc<Node>,
    /// The file says something else by now, which is refused.
    pub is_stale: bool,
}

impl Hidden {
    /// A file that is gone was deleted; a folder that is gone with all its files is more likely an accident.
    fn may_hide(&self, path: &Path) -> bool {
        path.starts_with(&self.path) && !(self.is_gone && path == self.path)
    }
}

impl Memory {
    /// As it was before a restart.
    pub(super) fn recall(last_good: &LastGood) -> Self {
        let recall_file = |(path, text): (&PathBuf, &Arc<str>)| {
            let mut file = FileMemory::default();
            match manifest::parse_text(path, text) {
                Ok(manifest) => file.take(manifest.declarations),
                Err(broken) => tracing::warn!(file = %path.display(), reason = broken.reason, "memory unreadable"),
            }
            file.keep_all();
            (path.clone(), file)
        };
        let mut memory = Self { files: last_good.iter().map(recall_file).collect(), ..Self::default() };
        memory.loaded = merge(&memory.files, Vec::new()).into();
        memory
    }

    /// Folds `scan` in. Where it says nothing new, the value is the same one as before.
    pub(super) fn update(&mut self, scan: Scan) -> Arc<Loaded> {
        let mut is_changed = !scan.is_partial && self.forget(&scan);
        for (path, seen) in scan.files {
            match seen {
                Seen::Same => {}
                Seen::Read(bytes) => {
                    let is_new = !self.files.contains_key(&path);
                    is_changed |= self.files.entry(path.clone()).or_default().read(&path, &bytes) || is_new;
                }
                Seen::Unreadable(reason) => {
                    self.files.entry(path.clone()).or_default().lose(&path, reason);
                    is_changed = true;
                }
            }
        }
        if is_changed {
            let hidden = self.hidden.iter().map(|hidden| about_file(&hidden.path, hidden.reason.as_str()));
            let loaded = merge(&self.files, hidden.collect());
            if loaded != *self.loaded {
                self.loaded = loaded.into();
            }
        }
        self.loaded.clone()
    }

    /// Forgets the files that are gone. Whether that, or what could not be looked at, is news.
    fn forget(&mut self, scan: &Scan) -> bool {
        let before = self.files.len();
        let may_be_there = |path: &Path| scan.hidden.iter().any(|hidden| hidden.may_hide(path));
        self.files.retain(|path, _| scan.files.contains_key(path) || may_be_there(path));
        let is_news = self.files.len() != before || scan.hidden != self.hidden;
        self.hidden.clone_from(&scan.hidden);
        is_news
    }

    /// What all scans so far amount to.
    pub(super) fn loaded(&self) -> Arc<Loaded> {
        self.loaded.clone()
    }
}

impl FileMemory {
    /// Whether the bytes are others than before.
    fn read(&mut self, path: &Path, bytes: &[u8]) -> bool {
        let digest = Digest::of(bytes);
        if self.digest.replace(digest) == Some(digest) {
            return false;
        }
        (self.faults, self.warnings) = (Vec::new(), Vec::new());
        match manifest::parse(path, bytes) {
            Ok(manifest) if manifest.is_empty && !self.good.is_empty() => {
                self.keep_all();
                self.faults.push(about_file(
                    path,
                    "has turned empty: its last good content stays; delete the file to remove it",
                ));
            }
            Ok(manifest) => self.take(manifest.declarations),
            Err(broken) => {
                self.keep_all();
                let Place { line, column } = broken.place;
                self.faults.push(Finding { line, column, ..about_file(path, broken.reason) });
            }
        }
        true
    }

    fn lose(&mut self, path: &Path, reason: String) {
        self.digest = None;
        self.keep_all();
        (self.faults, self.warnings) = (vec![about_file(path, reason)], Vec::new());
    }

    fn keep_all(&mut self) {
        for good in &mut self.good {
            good.is_stale = true;
        }
    }

    /// Takes what a sound file declares; what is refused in it stays as it was.
    fn take(&mut self, declarations: Vec<Declaration>) {
        // A document that does not say which resource it is may be any of those that are missing now.
        let has_nameless = declarations.iter().any(|found| found.identity.is_none() && !found.faults.is_empty());
        let mut before = std::mem::take(&mut self.good);
        for declaration in declarations {
            self.faults.extend(declaration.faults);
            self.warnings.extend(declaration.warnings);
            let Some(identity) = declaration.identity else { continue };
            let old = before.iter().position(|good| good.identity == identity).map(|index| before.remove(index));
            let fresh = declaration.content.map(|content| Good {
                // An equal value stays the same value, so that others see at a glance that nothing changed.
                content: old
                    .as_ref()
                    .map(|old| &old.content)
                    .filter(|old| **old == content)
                    .cloned()
                    .unwrap_or(content),
                identity,
                text: declaration.text,
                place: declaration.place,
                outline: declaration.outline,
                is_stale: false,
            });
            self.good.extend(fresh.or(old.map(|old| Good { is_stale: true, ..old })));
        }
        if has_nameless {
            self.good.extend(before.into_iter().map(|old| Good { is_stale: true, ..old }));
        }
        let texts = self.good.iter().map(|good| good.text.as_str()).filter(|text| !text.is_empty());
        self.text = texts.map(|text| format!("---\n{text}\n")).collect::<String>().into();
    }
}
