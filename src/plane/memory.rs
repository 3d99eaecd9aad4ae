//! The plane's memory across restarts: what config sources last said that made sense, and which revisions were good.
//!
//! Read before the first stream is answered, so that a restart with a broken file, a refused edit or a dead module
//! server takes nothing away (design, section 4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::keepsakes::Keepsakes;
use super::scribe::{Scribe, Ticket};
use super::table::Remembered;
use crate::model::PluginId;
use crate::sources::{LastGood, Loaded};

#[derive(Debug)]
pub struct Memory {
    sources: Keepsakes,
    plugins: Keepsakes,
    recalled: BTreeMap<PluginId, Vec<Remembered>>,
    /// What has to be on the disk before anything is pushed.
    due: Ticket,
    written: watch::Receiver<Ticket>,
}

impl Memory {
    /// Reads what was kept; the sources' last good texts come beside it.
    pub fn open(data_dir: &Path, scribe: &Scribe) -> (Self, LastGood) {
        let (sources, texts) = Keepsakes::open::<String>(data_dir.join("sources"), scribe);
        let (plugins, recalled) = Keepsakes::open(data_dir.join("plugins"), scribe);
        let recalled = recalled.into_iter().filter_map(|(id, revisions)| Some((id.parse().ok()?, revisions))).collect();
        let last_good = texts.into_iter().map(|(path, text)| (PathBuf::from(path), Arc::from(text))).collect();
        let (due, written) = (Ticket::default(), scribe.written());
        (Self { sources, plugins, recalled, due, written }, last_good)
    }

    /// The good revisions from before the restart.
    pub fn take_plugins(&mut self) -> BTreeMap<PluginId, Vec<Remembered>> {
        std::mem::take(&mut self.recalled)
    }

    /// Keeps what the files say now, and forgets the files and plugins that are gone.
    pub fn keep_sources(&mut self, loaded: &Loaded) {
        // A path that is no text is not remembered: its file is read anew.
        let texts: BTreeMap<_, _> =
            loaded.last_good.iter().filter_map(|(path, text)| Some((path.to_str()?, text))).collect();
        for (path, text) in &texts {
            self.due = self.sources.put(path, text).unwrap_or(self.due);
        }
        self.sources.retain(|path| texts.contains_key(path));
        let ids: std::collections::BTreeSet<_> = loaded.plugins.keys().map(ToString::to_string).collect();
        self.plugins.retain(|id| ids.contains(id));
    }

    pub fn keep_plugin(&mut self, id: &PluginId, revisions: &[Remembered]) {
        self.due = self.plugins.put(&id.to_string(), &revisions).unwrap_or(self.due);
    }

    /// Whether all that has to be on the disk before a push is there.
    pub fn is_written(&self) -> bool {
        *self.written.borrow() >= self.due
    }

    /// Tells when more of it is there.
    pub fn written(&self) -> watch::Receiver<Ticket> {
        self.written.clone()
    }
}
