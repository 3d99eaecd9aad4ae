//! The plane's memory across restarts: what config sources last said that made sense, and which revisions were good.
//!
//! Read before the first stream is answered, so that a restart with a broken file, a refused edit or a dead module
//! server takes nothing away (design, section 4).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::keepsakes::Keepsakes;
use super::scribe::{Scribe, Ticket};
use super::table::Remembered;
use crate::model::PluginId;
use crate::sources::{LastGood, Loaded};

/// How long a push waits for the disk. One that takes longer must not keep a change from proxies: a restart in this very
/// moment would then know less.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Memory {
    sources: Keepsakes,
    plugins: Keepsakes,
    recalled: BTreeMap<PluginId, Vec<Remembered>>,
    /// What is kept of the sources, once they were loaded.
    kept: Option<Arc<Loaded>>,
    /// What has to be on the disk before anything is pushed.
    due: Ticket,
    /// Since when some of it is not.
    waits_since: Instant,
    written: watch::Receiver<Ticket>,
}

impl Memory {
    /// Reads what was kept; the sources' last good texts come beside it.
    pub fn open(data_dir: &Path, scribe: &Scribe) -> (Self, LastGood) {
        let (sources, texts) = Keepsakes::open::<String>(data_dir.join("sources"), scribe);
        let (plugins, recalled) = Keepsakes::open(data_dir.join("plugins"), scribe);
        let recalled = recalled.into_iter().filter_map(|(id, revisions)| Some((id.parse().ok()?, revisions))).collect();
        let last_good = texts.into_iter().map(|(path, text)| (PathBuf::from(path), Arc::from(text))).collect();
        let (due, waits_since, written) = (Ticket::default(), Instant::now(), scribe.written());
        (Self { sources, plugins, recalled, kept: None, due, waits_since, written }, last_good)
    }

    /// The good revisions from before the restart.
    pub fn take_plugins(&mut self) -> BTreeMap<PluginId, Vec<Remembered>> {
        std::mem::take(&mut self.recalled)
    }

    /// Keeps what the files say now, and forgets the files and plugins that are gone.
    pub fn keep_sources(&mut self, loaded: &Arc<Loaded>) {
        let before = self.kept.replace(loaded.clone());
        let kept = before.as_ref().map(|before| &before.last_good);
        if let Some(kept) = kept.filter(|kept| kept.keys().eq(loaded.last_good.keys())) {
            let both = kept.values().zip(&loaded.last_good);
            both.filter(|(kept, (_, text))| !Arc::ptr_eq(kept, text))
                .for_each(|(_, (path, text))| self.keep(path, text));
        } else {
            loaded.last_good.iter().for_each(|(path, text)| self.keep(path, text));
            let paths: BTreeSet<_> = loaded.last_good.keys().filter_map(|path| path.to_str()).collect();
            self.sources.retain(|path| paths.contains(path));
        }
        if before.is_none_or(|before| !before.plugins.keys().eq(loaded.plugins.keys())) {
            let ids: BTreeSet<_> = loaded.plugins.keys().map(ToString::to_string).collect();
            self.plugins.retain(|id| ids.contains(id));
        }
    }

    /// A path that is no text is not remembered: its file is read anew.
    fn keep(&mut self, path: &Path, text: &Arc<str>) {
        let Some(path) = path.to_str() else { return };
        let ticket = self.sources.put(path, text);
        self.wait_for(ticket);
    }

    pub fn keep_plugin(&mut self, id: &PluginId, revisions: &[Remembered]) {
        let ticket = self.plugins.put(&id.to_string(), &revisions);
        self.wait_for(ticket);
    }

    fn wait_for(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        // Asked after the order: it may have been carried out at once.
        if *self.written.borrow() >= self.due {
            self.waits_since = Instant::now();
        }
        self.due = ticket;
    }

    /// Until when a push has to wait for the disk; `None` where it need not.
    pub fn holds_until(&self) -> Option<Instant> {
        let until = self.waits_since + WRITTEN_WITHIN;
        (*self.written.borrow() < self.due && Instant::now() < until).then_some(until)
    }

    /// Tells when more of it is there.
    pub fn written(&self) -> watch::Receiver<Ticket> {
        self.written.clone()
    }
}
