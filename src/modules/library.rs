//! All modules that are at hand: in memory once each, and on disk.
//!
//! Comes in: bytes. Goes out: a [`Checked`] module, or why it is none. Hashing, inspecting and writing happen on threads
//! for blocking work, a few at a time, so that nothing else waits for a large module.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::error::FetchError;
use super::inspect::inspect;
use super::memory::Memory;
use super::store::Store;
use crate::model::{Digest, Module};

/// A module that some Envoy takes, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Checked {
    pub module: Arc<Module>,
    pub warnings: Arc<[String]>,
}

pub struct Library {
    pub store: Store,
    pub memory: Memory,
    /// Modules that somebody holds, so that equal bytes exist once.
    shelf: Mutex<HashMap<Digest, (Weak<Module>, Arc<[String]>)>>,
    /// As many inspections at a time as there are cores.
    desks: Arc<Semaphore>,
}

impl Library {
    pub fn open(data_dir: &Path) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            store: Store::open(data_dir),
            memory: Memory::open(data_dir),
            shelf: Mutex::default(),
            desks: Arc::new(Semaphore::new(cores)),
        })
    }

    /// A module that was admitted before, in this process or an earlier one.
    pub async fn load(self: &Arc<Self>, digest: Digest) -> Option<Checked> {
        if let Some(held) = self.held(&digest) {
            return Some(held);
        }
        let read = move |library: &Self| {
            let bytes = library.store.read(&digest)?;
            Some(library.check(bytes))
        };
        self.aside(read).await.ok().flatten()?.ok()
    }

    /// Verifies, inspects and stores what was fetched.
    pub async fn admit(self: &Arc<Self>, bytes: Bytes, pin: Option<Digest>) -> Result<Checked, FetchError> {
        self.aside(move |library| {
            let actual = Digest::of(&bytes);
            if let Some(expected) = pin.filter(|pin| *pin != actual) {
                return Err(FetchError::DigestMismatch { expected, actual });
            }
            if let Some(held) = library.held(&actual) {
                library.store.write(&actual, &bytes);
                return Ok(held);
            }
            let checked = library.check(bytes)?;
            library.store.write(&actual, &checked.module.bytes);
            Ok(checked)
        })
        .await?
    }

    /// Removes what nobody has used for long, from disk and memory.
    pub async fn remove_unused(self: &Arc<Self>) {
        let removed = self.aside(|library| {
            library.store.remove_unused(|digest| library.held(digest).is_some(), SystemTime::now());
            library.memory.retain(|digest| library.store.has(digest) || library.held(digest).is_some());
            library.shelf().retain(|_, (module, _)| module.strong_count() > 0);
        });
        if let Err(error) = removed.await {
            tracing::error!(%error, "module store could not be tidied up");
        }
    }

    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, FetchError> {
        let library = Arc::clone(self);
        let desk = Arc::clone(&self.desks).acquire_owned().await.expect("the semaphore is never closed");
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&library);
            drop(desk);
            done
        });
        worked.await.map_err(|error| FetchError::Crashed { cause: error.to_string() })
    }

    fn check(&self, bytes: Bytes) -> Result<Checked, FetchError> {
        let report = inspect(&bytes);
        if let Some(reason) = report.refusal_by_all() {
            return Err(FetchError::Refused { reason: reason.to_owned() });
        }
        let module = Module { digest: report.digest, refusals: report.refusals(), bytes };
        Ok(self.shelve(Checked { module: Arc::new(module), warnings: report.warnings.into() }))
    }

    /// Puts a module on the shelf, or hands out the equal one that is there already.
    fn shelve(&self, checked: Checked) -> Checked {
        let mut shelf = self.shelf();
        let place = shelf.entry(checked.module.digest).or_default();
        if let Some(module) = place.0.upgrade() {
            return Checked { module, warnings: place.1.clone() };
        }
        *place = (Arc::downgrade(&checked.module), checked.warnings.clone());
        checked
    }

    fn held(&self, digest: &Digest) -> Option<Checked> {
        let shelf = self.shelf();
        let (module, warnings) = shelf.get(digest)?;
        Some(Checked { module: module.upgrade()?, warnings: warnings.clone() })
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (Weak<Module>, Arc<[String]>)>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
