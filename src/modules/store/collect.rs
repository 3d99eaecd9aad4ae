//! Which stored modules go: those that nobody has used for a week, and the longest unused where there is no room.
//!
//! A module in use is never removed.

use std::fs::{self, DirEntry};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Store, touch};
use crate::disk::UNFINISHED;
use crate::model::Digest;

/// A module that nobody has used for so long is removed.
pub const KEEP_UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// An unfinished file of that age is left over from a crash; a younger one may be written at this moment.
pub const KEEP_UNFINISHED: Duration = Duration::from_secs(3600);

/// A stored module that nobody uses here.
struct Unused {
    path: PathBuf,
    bytes: u64,
    since: SystemTime,
}

impl Store {
    /// Removes what has not been used for long, and more until what is stored takes at most `most` bytes. A module in
    /// use counts as used now, and stays even if there is no room.
    pub fn collect(&self, is_used: impl Fn(&Digest) -> bool, now: SystemTime, most: u64) {
        let mut unused = Vec::new();
        for entry in self.entries() {
            match module(&entry) {
                Some(digest) if is_used(&digest) => touch(&entry.path()),
                Some(_) => unused.extend(Unused::of(&entry)),
                None => self.forget_unfinished(&entry, now),
            }
        }
        let mut stored = self.count();
        unused.sort_by_key(|module| module.since);
        for module in unused {
            let age = now.duration_since(module.since).unwrap_or_default();
            if (age > KEEP_UNUSED || stored > most) && fs::remove_file(&module.path).is_ok() {
                tracing::info!(path = %module.path.display(), ?age, stored, most, "unused module removed from the store");
                stored = stored.saturating_sub(module.bytes);
                self.removed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.bytes.store(stored, Ordering::Relaxed);
        if stored > most {
            tracing::warn!(
                stored,
                most,
                advice = "raise --module-store-max-bytes",
                "the modules in use take more room than the store is given"
            );
        }
    }

    /// Counts anew: people remove files, too.
    pub(super) fn count(&self) -> u64 {
        let modules = self.entries().filter(|entry| module(entry).is_some());
        let bytes = modules.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    fn forget_unfinished(&self, entry: &DirEntry, now: SystemTime) {
        // Anything else is somebody else's file.
        let is_ours = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let is_old = || Some(now.duration_since(entry.metadata().ok()?.modified().ok()?).ok()? > KEEP_UNFINISHED);
        if is_ours && is_old() == Some(true) && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(path = %entry.path().display(), "unfinished file removed from the module store");
        }
    }

    fn entries(&self) -> impl Iterator<Item = DirEntry> {
        fs::read_dir(&self.folder).into_iter().flatten().flatten()
    }
}

impl Unused {
    fn of(entry: &DirEntry) -> Option<Self> {
        let metadata = entry.metadata().ok()?;
        Some(Self { path: entry.path(), bytes: metadata.len(), since: metadata.modified().ok()? })
    }
}

/// The module that a file of the folder is, by its name.
fn module(entry: &DirEntry) -> Option<Digest> {
    entry.file_name().to_str()?.strip_suffix(".wasm")?.parse().ok()
}
