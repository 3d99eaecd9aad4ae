//! Modules on disk: `<data-dir>/modules/sha256/<hex>.wasm`.
//!
//! Comes in: bytes and their digest. Goes out: the same bytes, or nothing. A file is believed only if its content has
//! the digest that its name says, so that neither a crash nor a bad disk hands out something else. A folder that cannot
//! be written is a fault to report, never a reason to stop: modules then live in memory only.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::disk::{UNFINISHED, write_whole};
use crate::model::Digest;

/// A module that nobody has used for so long is removed.
const KEEP_UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// An unfinished file of that age is left over from a crash; a younger one may be another process at work.
const KEEP_UNFINISHED: Duration = Duration::from_secs(3600);

pub struct Store {
    folder: PathBuf,
    /// Why the last write failed; `None` after one that succeeded.
    fault: Mutex<Option<String>>,
}

impl Store {
    /// Never fails: see [`Store::fault`].
    pub fn open(data_dir: &Path) -> Self {
        let store = Self { folder: data_dir.join("modules/sha256"), fault: Mutex::default() };
        store.note(store.check_writable());
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

    /// Stores a module. A failure is noted, and the module is used from memory.
    pub fn write(&self, digest: &Digest, content: &[u8]) {
        let path = self.path(digest);
        if self.has(digest) {
            touch(&path);
        } else {
            self.note(write_whole(&path, content));
        }
    }

    /// The bytes of all stored modules.
    pub fn size(&self) -> u64 {
        self.entries().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Removes what has not been used for long. A module in use counts as used now.
    pub fn remove_unused(&self, is_used: impl Fn(&Digest) -> bool, now: SystemTime) {
        for entry in self.entries() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let limit = match name.strip_suffix(".wasm").and_then(|hex| hex.parse().ok()) {
                Some(digest) if is_used(&digest) => {
                    touch(&path);
                    continue;
                }
                Some(_) => KEEP_UNUSED,
                None if name.starts_with(UNFINISHED) => KEEP_UNFINISHED,
                // Somebody else's file.
                None => continue,
            };
            if age(&entry, now).is_some_and(|age| age > limit) && fs::remove_file(&path).is_ok() {
                tracing::info!(path = %path.display(), "unused file removed from the module store");
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = DirEntry> {
        fs::read_dir(&self.folder).into_iter().flatten().flatten()
    }
}

/// The time of last use is the file's modification time. Failing to set it costs a download at worst.
fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let touched = file.set_modified(SystemTime::now());
        tracing::trace!(path = %path.display(), ?touched, "stored module used");
    }
}

fn age(entry: &DirEntry, now: SystemTime) -> Option<Duration> {
    now.duration_since(entry.metadata().ok()?.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn stored(data_dir: &Path, content: &[u8]) -> (Store, Digest) {
        let store = Store::open(data_dir);
        let digest = Digest::of(content);
        store.write(&digest, content);
        (store, digest)
    }

    #[test]
    fn a_module_survives_a_restart() {
        let data_dir = tempfile::tempdir().unwrap();
        let (_, digest) = stored(data_dir.path(), b"module");
        let store = Store::open(data_dir.path());
        assert_eq!(store.read(&digest).unwrap(), "module");
        assert_eq!((store.size(), store.fault()), (6, None));
        assert!(data_dir.path().join(format!("modules/sha256/{digest}.wasm")).exists());
    }

    #[test]
    fn a_damaged_file_is_removed_and_not_believed() {
        let data_dir = tempfile::tempdir().unwrap();
        let (store, digest) = stored(data_dir.path(), b"module");
        fs::write(store.path(&digest), b"modul").unwrap();
        assert_eq!(store.read(&digest), None);
        assert!(!store.path(&digest).exists());
        store.write(&digest, b"module");
        assert_eq!(store.read(&digest).unwrap(), "module");
    }

    #[test]
    fn what_a_crash_left_behind_is_not_believed_and_goes_after_an_hour() {
        let data_dir = tempfile::tempdir().unwrap();
        let (store, digest) = stored(data_dir.path(), b"module");
        let leftover = store.folder.join(format!("{UNFINISHED}abc"));
        fs::write(&leftover, b"mod").unwrap();
        let foreign = store.folder.join("README");
        fs::write(&foreign, b"").unwrap();
        store.remove_unused(|_| false, SystemTime::now() + KEEP_UNFINISHED / 2);
        assert!(leftover.exists());
        store.remove_unused(|_| false, SystemTime::now() + KEEP_UNFINISHED * 2);
        assert!(!leftover.exists() && foreign.exists());
        assert!(store.read(&digest).is_some());
    }

    #[test]
    fn what_nobody_used_for_a_week_is_removed() {
        let data_dir = tempfile::tempdir().unwrap();
        let (store, used) = stored(data_dir.path(), b"used");
        let (_, unused) = stored(data_dir.path(), b"unused");
        store.remove_unused(|digest| *digest == used, SystemTime::now() + 6 * DAY);
        assert!(store.path(&unused).exists());
        store.remove_unused(|digest| *digest == used, SystemTime::now() + 8 * DAY);
        assert!(store.path(&used).exists() && !store.path(&unused).exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_fault_that_names_it_and_heals() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("data");
        fs::write(&data_dir, b"a file is in the way").unwrap();
        let (store, digest) = stored(&data_dir, b"module");
        let fault = store.fault().unwrap();
        assert!(fault.starts_with(&format!("{}/modules/sha256: ", data_dir.display())), "{fault}");
        assert_eq!((store.read(&digest), store.size()), (None, 0));
        store.remove_unused(|_| false, SystemTime::now());
        fs::remove_file(&data_dir).unwrap();
        store.write(&digest, b"module");
        assert_eq!(store.fault(), None);
        assert!(store.read(&digest).is_some());
    }
}
