//! Modules on disk: `<data-dir>/modules/sha256/<hex>.wasm`.
//!
//! Comes in: bytes and their digest. Goes out: the same bytes, or nothing. A file is believed only if its content has
//! the digest that its name says, so that neither a crash nor a bad disk hands out something else. A folder that cannot
//! be written is a fault to report, never a reason to stop: modules then live in memory only. One process has the folder
//! (`plane::lock`). Everything here blocks.

mod collect;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use crate::disk::{UNFINISHED, replace, sync_folder};
use crate::model::Digest;

pub struct Store {
    folder: PathBuf,
    /// Why the last write failed; `None` after one that succeeded.
    fault: Mutex<Option<String>>,
    /// Whether files came under names that a power cut may take back.
    is_unsynced: AtomicBool,
    /// As last counted, and what this process has written since.
    bytes: AtomicU64,
    hits: AtomicU64,
    removed: AtomicU64,
}

impl Store {
    /// Never fails: see [`Store::fault`].
    pub fn open(data_dir: &Path) -> Self {
        let store = Self {
            folder: data_dir.join("modules/sha256"),
            fault: Mutex::default(),
            is_unsynced: AtomicBool::default(),
            bytes: AtomicU64::default(),
            hits: AtomicU64::default(),
            removed: AtomicU64::default(),
        };
        store.note(store.check_writable());
        store.count();
        store
    }

    fn check_writable(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder).map(drop)
    }

    /// Why nothing can be written at present.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs the first of a row of failures, and the end of the row.
    fn note(&self, result: io::Result<()>) {
        let fault = result.err().map(|error| format!("{}: {error}", self.folder.display()));
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*last, &fault) {
            (None, Some(_)) => tracing::error!(
                folder = %self.folder.display(),
                error = fault,
                advice = "make room, make the folder writable, or name another one with --data-dir",
                "module store cannot be written: modules are kept in memory only and fetched again after a restart"
            ),
            (Some(_), None) => tracing::info!(folder = %self.folder.display(), "module store can be written again"),
            _ => {}
        }
        *last = fault;
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The module, if it is here and whole. One that is not is removed.
    pub fn read(&self, digest: &Digest) -> Option<Bytes> {
        let content = self.verified(digest)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(content)
    }

    fn verified(&self, digest: &Digest) -> Option<Bytes> {
        let path = self.path(digest);
        let content = fs::read(&path).ok()?;
        if Digest::of(&content) != *digest {
            let removed = fs::remove_file(&path);
            tracing::warn!(path = %path.display(), ?removed, "stored module is damaged and will be fetched again");
            return None;
        }
        touch(&path);
        Some(content.into())
    }

    /// Stores a module; after the next [`Store::sync`] it is there whatever happens. A failure is noted, and the module is
    /// used from memory.
    pub fn write(&self, digest: &Digest, content: &[u8]) {
        if self.verified(digest).is_none() {
            let written = replace(&self.path(digest), content);
            if written.is_ok() {
                self.is_unsynced.store(true, Ordering::SeqCst);
                self.bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
            }
            self.note(written);
        }
    }

    /// Whether a power cut would take nothing back.
    pub fn is_synced(&self) -> bool {
        !self.is_unsynced.load(Ordering::SeqCst)
    }

    /// What was stored survives a power cut from now on.
    pub fn sync(&self) {
        if self.is_unsynced.swap(false, Ordering::SeqCst)
            && let Err(error) = sync_folder(&self.folder)
        {
            self.note(Err(error));
        }
    }

    /// The bytes of all stored modules.
    pub fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Modules that were read back, and needed no source.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Modules that this process has removed because nobody used them.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }
}

/// The time of last use is the file's modification time. Failing to set it costs a download at worst.
fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let touched = file.set_modified(SystemTime::now());
        tracing::trace!(path = %path.display(), ?touched, "stored module used");
    }
}
