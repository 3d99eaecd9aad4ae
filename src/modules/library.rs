//! All modules that are at hand: in memory once each, and on disk.
//!
//! Comes in: bytes. Goes out: a [`Checked`] module, or why it is none. Hashing, inspecting and writing happen on threads
//! for blocking work, a few at a time, so that nothing else waits for a large module. Where a module came from, and the
//! names of new files, are put on disk for all that came meanwhile at once, before any of them is handed out.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::error::FetchError;
use super::image::{self, Extracted, Layout, UnpackLimits};
use super::inspect::{Format, inspect};
use super::memory::{Given, Memory};
use super::pin::{self, Subject};
use super::registry::Unpacked;
use super::store::Store;
use super::together::Together;
use crate::model::{Digest, Module, ModuleRef};

/// A module that some Envoy takes, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Checked {
    pub module: Arc<Module>,
    pub warnings: Arc<[String]>,
}

impl Checked {
    /// Says this as well.
    fn with(mut self, warnings: &[String]) -> Self {
        if !warnings.is_empty() {
            self.warnings = self.warnings.iter().chain(warnings).cloned().collect();
        }
        self
    }
}

/// One entry for each root id that images of the same bytes name.
type Shelf = HashMap<Digest, Vec<Shelved>>;

/// A module as the shelf knows it, without holding it.
struct Shelved {
    module: Weak<Module>,
    warnings: Arc<[String]>,
}

impl Shelved {
    fn held(&self) -> Option<Checked> {
        Some(Checked { module: self.module.upgrade()?, warnings: self.warnings.clone() })
    }
}

pub struct Library {
    pub store: Store,
    pub memory: Memory,
    /// Modules that somebody holds, so that equal bytes exist once.
    shelf: Mutex<Shelf>,
    /// As many inspections at a time as there are cores. A freed desk is given to who waits longest, and held for them
    /// until they look: who waits for one must not leave another future that waits for one unpolled meanwhile.
    desks: Arc<Semaphore>,
    writes: Together,
    /// What is wanted now; `None` before anybody has said so, when nothing may be removed.
    wanted: Mutex<Option<BTreeSet<ModuleRef>>>,
    /// `--module-store-max-bytes`.
    max_bytes: u64,
}

impl Library {
    pub fn open(data_dir: &Path, max_bytes: u64) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            store: Store::open(data_dir),
            memory: Memory::open(data_dir),
            shelf: Mutex::default(),
            desks: Arc::new(Semaphore::new(cores)),
            writes: Together::default(),
            wanted: Mutex::default(),
            max_bytes,
        })
    }

    /// A module that was admitted before, in this process or an earlier one.
    pub async fn load(self: &Arc<Self>, given: &Given) -> Option<Checked> {
        let (digest, root_id) = (given.module, given.root_id.as_deref());
        if let Some(held) = self.held(&digest) {
            return Some(self.with_root_id(held, root_id).with(&given.warnings));
        }
        let read = move |library: &Self| {
            let bytes = library.store.read(&digest)?;
            Some(library.check(bytes))
        };
        let checked = self.aside(read).await.ok().flatten()?.ok()?;
        Some(self.with_root_id(checked, root_id).with(&given.warnings))
    }

    /// Unpacks, verifies, inspects and stores a body or file, and remembers that the reference gave it.
    pub async fn admit(self: &Arc<Self>, reference: &ModuleRef, body: Bytes) -> Result<Checked, FetchError> {
        let reference = reference.clone();
        let taken = self.aside(move |library| {
            let served = Digest::of(&body);
            let Extracted { module, layout, warnings, .. } = image::unwrap(body, &UnpackLimits::default())?;
            let module_digest = Digest::of(&module);
            let is_packed = layout != Layout::Plain;
            let mut digests = vec![(Subject::Module, module_digest)];
            if is_packed {
                digests.insert(0, (Subject::Body, served));
            }
            let served = is_packed.then_some(served);
            let given = Given { module: module_digest, served, chosen: None, root_id: None, warnings };
            library.take_in(&reference, given, &digests, module)
        });
        let checked = taken.await??;
        self.settle().await;
        Ok(checked)
    }

    /// Returns when all that was taken in before is on disk, as well as that can be written.
    async fn settle(self: &Arc<Self>) {
        let library = Arc::clone(self);
        let write = move || {
            library.store.sync();
            library.memory.save();
        };
        self.writes.write(write).await;
    }

    /// These are wanted from now on: neither they nor what their locations gave last are removed.
    pub fn want(&self, refs: &BTreeSet<ModuleRef>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(refs.clone());
    }

    fn collect(&self) {
        let Some(wanted) = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        let of_reference =
            |reference: &ModuleRef| self.memory.recall(reference).map(|given| given.module).or(reference.sha256);
        let awaited: BTreeSet<Digest> = wanted.iter().filter_map(of_reference).collect();
        let is_used = |digest: &Digest| awaited.contains(digest) || self.held(digest).is_some();
        self.store.collect(is_used, SystemTime::now(), self.max_bytes);
        self.memory.retain(|digest| self.store.has(digest) || self.held(digest).is_some());
    }

    /// As [`Library::admit`], of an image.
    pub async fn admit_image(
        self: &Arc<Self>,
        reference: &ModuleRef,
        unpacked: Unpacked,
    ) -> Result<Checked, FetchError> {
        let reference = reference.clone();
        let taken = self.aside(move |library| {
            let Unpacked { extracted, given, room } = unpacked;
            let images = [given.served, given.chosen].into_iter().flatten().map(|digest| (Subject::Image, digest));
            let digests: Vec<_> = images.chain([(Subject::Module, given.module)]).collect();
            let taken = library.take_in(&reference, given, &digests, extracted.module);
            drop(room);
            taken
        });
        let checked = taken.await??;
        self.settle().await;
        Ok(checked)
    }

    /// A module that is stored has come by another way as well.
    pub async fn remember(self: &Arc<Self>, reference: &ModuleRef, given: Given) {
        self.memory.set(reference, given);
        self.settle_memory().await;
    }

    /// A module that was loaded is run, and not asked for again.
    pub async fn keep(self: &Arc<Self>, reference: &ModuleRef, given: Given) {
        self.memory.keep(reference, given);
        self.settle_memory().await;
    }

    /// Mostly nothing has changed.
    async fn settle_memory(self: &Arc<Self>) {
        if !self.memory.is_saved() || !self.store.is_synced() {
            self.settle().await;
        }
    }

    fn take_in(
        &self,
        reference: &ModuleRef,
        given: Given,
        digests: &[(Subject, Digest)],
        module: Bytes,
    ) -> Result<Checked, FetchError> {
        if let Some(pin) = reference.sha256 {
            let subject = pin::compare(pin, digests, Format::of(&module))?;
            tracing::debug!(%pin, %subject, "sha256 compared");
        }
        let checked = self.shelve_and_store(module)?;
        // The warnings last: they are of this packaging, and the shelf is for all that hold the module.
        let checked = self.with_root_id(checked, given.root_id.as_deref()).with(&given.warnings);
        self.memory.set(reference, given);
        if self.store.size() > self.max_bytes {
            self.collect();
        }
        Ok(checked)
    }

    /// Inspects and stores one module.
    fn shelve_and_store(&self, module: Bytes) -> Result<Checked, FetchError> {
        let digest = Digest::of(&module);
        if let Some(held) = self.held(&digest) {
            self.store.write(&digest, &module);
            return Ok(held);
        }
        let checked = self.check(module)?;
        self.store.write(&digest, &checked.module.bytes);
        Ok(checked)
    }

    /// Stores what is in use and not on disk (it may have been full), and removes what nobody has used for long.
    pub async fn tidy_up(self: &Arc<Self>) {
        let tidied = self.aside(|library| {
            let held: Vec<_> = library.shelf().values().flatten().filter_map(Shelved::held).collect();
            for checked in held {
                library.store.write(&checked.module.digest, &checked.module.bytes);
            }
            library.store.sync();
            library.collect();
            library.shelf().retain(|_, place| {
                place.retain(|shelved| shelved.module.strong_count() > 0);
                !place.is_empty()
            });
        });
        if let Err(error) = tidied.await {
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
        let module = Module { digest: report.digest, refusals: report.refusals(), bytes, root_id: None };
        Ok(self.shelve(Checked { module: Arc::new(module), warnings: report.warnings.into() }))
    }

    /// The module as images name it that want this root id. Its bytes are the same ones.
    fn with_root_id(&self, checked: Checked, root_id: Option<&str>) -> Checked {
        let Module { digest, bytes, refusals, root_id: known } = &*checked.module;
        if known.as_deref() == root_id {
            return checked;
        }
        let (bytes, refusals) = (bytes.clone(), refusals.clone());
        let module = Module { digest: *digest, bytes, refusals, root_id: root_id.map(str::to_owned) };
        self.shelve(Checked { module: Arc::new(module), warnings: checked.warnings })
    }

    /// Puts a module on the shelf, or hands out the equal one that is there already.
    fn shelve(&self, checked: Checked) -> Checked {
        let mut shelf = self.shelf();
        let place = shelf.entry(checked.module.digest).or_default();
        let is_equal = |held: &Checked| held.module.root_id == checked.module.root_id;
        if let Some(held) = place.iter().filter_map(Shelved::held).find(is_equal) {
            return Checked { module: held.module, warnings: checked.warnings };
        }
        place.retain(|shelved| shelved.module.strong_count() > 0);
        place.push(Shelved { module: Arc::downgrade(&checked.module), warnings: checked.warnings.clone() });
        checked
    }

    /// All desks, one each.
    #[cfg(test)]
    pub async fn take_desks(&self) -> Vec<tokio::sync::OwnedSemaphorePermit> {
        let desk = || async { Arc::clone(&self.desks).acquire_owned().await.unwrap() };
        futures::future::join_all((0..self.desks.available_permits()).map(|_| desk())).await
    }

    #[cfg(test)]
    pub fn is_held(&self, digest: &Digest) -> bool {
        self.held(digest).is_some()
    }

    /// A module that somebody has in memory.
    pub fn held(&self, digest: &Digest) -> Option<Checked> {
        self.shelf().get(digest)?.iter().find_map(Shelved::held)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModuleLocation, PullPolicy};

    const PLUGIN: &str = r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (i32.const 0)))"#;

    #[tokio::test]
    async fn a_module_that_the_disk_had_no_room_for_is_stored_later() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("data");
        std::fs::write(&data_dir, b"a file is in the way").unwrap();
        let library = Library::open(&data_dir, u64::MAX);
        let location = ModuleLocation::Http("http://modules.test/a.wasm".to_owned());
        let reference = ModuleRef { location, sha256: None, pull_policy: PullPolicy::Unspecified, pull_secret: None };
        let checked = library.admit(&reference, wat::parse_str(PLUGIN).unwrap().into()).await.unwrap();
        std::fs::remove_file(&data_dir).unwrap();
        library.tidy_up().await;
        assert!(library.store.has(&checked.module.digest) && library.store.fault().is_none());
    }

    #[tokio::test]
    async fn images_of_one_module_may_name_different_root_ids_and_its_bytes_are_there_once() {
        let data_dir = tempfile::tempdir().unwrap();
        let library = Library::open(data_dir.path(), u64::MAX);
        let module = Bytes::from(wat::parse_str(PLUGIN).unwrap());
        let given = |root_id: Option<&str>| Given {
            module: Digest::of(&module),
            served: None,
            chosen: None,
            root_id: root_id.map(str::to_owned),
            warnings: Vec::new(),
        };
        library.store.write(&Digest::of(&module), &module);
        let (a, b, none) = (given(Some("a")), given(Some("b")), given(None));
        let [a, again, b, none] = [
            library.load(&a).await.unwrap().module,
            library.load(&a).await.unwrap().module,
            library.load(&b).await.unwrap().module,
            library.load(&none).await.unwrap().module,
        ];
        assert!(Arc::ptr_eq(&a, &again));
        let root_ids = [&a, &b, &none].map(|module| module.root_id.clone());
        assert_eq!(root_ids, [Some("a".to_owned()), Some("b".to_owned()), None]);
        assert!([&b, &none].iter().all(|module| module.bytes.as_ptr() == a.bytes.as_ptr()));
        // Whoever holds one of them keeps the module in the store.
        drop((a, again, none));
        assert!(library.is_held(&b.digest));
        drop(b);
        assert!(!library.is_held(&Digest::of(&module)));
    }
}
