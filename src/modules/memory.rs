//! What each location gave, and to whom: `<data-dir>/modules/digests.json`.
//!
//! Written before a module is handed out ([`Memory::save`], for many at a time), read at the start, so that a restart
//! needs no server. What a location gave
//! with one pull secret is found again with that secret only: nobody gets a private module out of the store by knowing
//! its tag or its digest. Readable by its owner only. A URL that holds user, password or query is kept without them, and
//! with the digest of all of it: other credentials are another URL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::pull::is_asked_always;
use crate::disk::write_whole;
use crate::model::{Digest, ImageReference, ModuleLocation, ModuleRef, shown_url};

/// Modules of one location, newest first: those that some proxy may still have to go back to, and a good many more.
const PER_LOCATION: usize = 64;

/// One thing that a location gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub module: Digest,
    /// What was served: the image that the reference named, or the body with the module in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Digest>,
    /// The image's own manifest, where `served` is an index of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Digest>,
    /// What the image wants as the root id of plugins that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
    /// What was odd about the packaging, and harmless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Given {
    pub fn is(&self, pin: &Digest) -> bool {
        self.module == *pin || self.served.as_ref() == Some(pin) || self.chosen.as_ref() == Some(pin)
    }
}

/// A location, and with whose credentials it was asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Asked {
    /// As logs may show it.
    location: String,
    /// The digest of all of it, where `location` leaves something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<Digest>,
    /// Namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<(String, String)>,
}

impl Asked {
    fn of(reference: &ModuleRef) -> Self {
        // A secret is for images only.
        let secret = reference.pull_secret.clone().filter(|_| matches!(reference.location, ModuleLocation::Oci(_)));
        let (location, whole) = (reference.location.to_string(), reference.location.whole());
        let whole = (location != whole).then(|| Digest::of(whole.as_bytes()));
        Self { location, whole, secret }
    }

    /// Whether it is as [`Asked::of`] makes it. Older files hold URLs as they were written.
    fn is_sound(&self) -> bool {
        self.whole.is_some() || !self.location.starts_with("http") || shown_url(&self.location) == self.location
    }
}

/// What a location gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// What came last is first.
    given: Vec<Given>,
    /// What plugins run that are not to ask again, whatever came since for those that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<Given>,
}

impl Known {
    fn all(&self) -> impl Iterator<Item = &Given> {
        self.given.iter().chain(&self.kept)
    }
}

/// The file's form.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    asked: Asked,
    #[serde(flatten)]
    known: Known,
}

pub struct Memory {
    path: PathBuf,
    known: Mutex<BTreeMap<Asked, Known>>,
    /// Changes so far.
    changes: AtomicU64,
    /// Those that are on disk. Held while the file is written, so that an older text never replaces a newer one, and
    /// nobody who reads waits.
    saved: Mutex<u64>,
}

impl Memory {
    /// What cannot be read is logged and begun anew: it costs downloads, nothing else.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("modules/digests.json");
        let known = match fs::read(&path) {
            Ok(text) => parse(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "memory of module digests is damaged and begun anew");
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(path = %path.display(), %error, "no memory of module digests");
                }
                BTreeMap::new()
            }
        };
        Self { path, known: Mutex::new(known), changes: AtomicU64::default(), saved: Mutex::default() }
    }

    /// What the reference stands for as far as is known: what is pinned, what is kept, or what came last.
    pub fn recall(&self, reference: &ModuleRef) -> Option<Given> {
        let known = self.known();
        let known = known.get(&Asked::of(reference))?;
        match reference.sha256 {
            Some(pin) => known.all().find(|it| it.is(&pin)).cloned(),
            None => known.kept.as_ref().filter(|_| is_kept(reference)).or(known.given.first()).cloned(),
        }
    }

    /// The module of an image that this repository gave to anybody. For those whom the registry has just given the
    /// image's manifest with their own credentials.
    pub fn of_image(&self, home: &str, image: &Digest) -> Option<Given> {
        let is_of_home = |asked: &Asked| {
            let reference = asked.location.strip_prefix("oci://").and_then(|text| text.parse::<ImageReference>().ok());
            reference.is_some_and(|reference| reference.home() == home)
        };
        let known = self.known();
        let mut of_home = known.iter().filter(|(asked, _)| is_of_home(asked)).flat_map(|(_, known)| known.all());
        of_home.find(|it| it.served.as_ref() == Some(image) || it.chosen.as_ref() == Some(image)).cloned()
    }

    /// On disk after the next [`Memory::save`].
    pub fn set(&self, reference: &ModuleRef, new: Given) {
        self.change(reference, |known| {
            if is_kept(reference) {
                known.kept = Some(new.clone());
            }
            if known.given.first() != Some(&new) {
                known.given.retain(|older| *older != new);
                known.given.insert(0, new);
                known.given.truncate(PER_LOCATION);
            }
        });
    }

    /// It is run, and not asked for again. On disk after the next [`Memory::save`].
    pub fn keep(&self, reference: &ModuleRef, given: Given) {
        if is_kept(reference) {
            self.change(reference, |known| known.kept = Some(given));
        }
    }

    fn change(&self, reference: &ModuleRef, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let known = known.entry(Asked::of(reference)).or_default();
        let before = known.clone();
        change(known);
        if *known != before {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Asked, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets modules that the store no longer has. Blocks.
    pub fn retain(&self, is_stored: impl Fn(&Digest) -> bool) {
        let modules: BTreeSet<Digest> = self.known().values().flat_map(Known::all).map(|it| it.module).collect();
        // Asked of the disk while nobody who reads waits.
        let gone: BTreeSet<Digest> = modules.into_iter().filter(|digest| !is_stored(digest)).collect();
        if gone.is_empty() {
            return;
        }
        // One of them may have come back meanwhile.
        let is_there = |it: &Given| !gone.contains(&it.module) || is_stored(&it.module);
        self.known().retain(|_, known| {
            known.given.retain(is_there);
            known.kept = known.kept.take().filter(is_there);
            known.all().next().is_some()
        });
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.save();
    }

    /// Whether nothing has changed since it was last put on disk.
    pub fn is_saved(&self) -> bool {
        self.saved.try_lock().is_ok_and(|saved| *saved == self.changes.load(Ordering::SeqCst))
    }

    /// Puts all that has changed on disk, if that can be written. Blocks.
    pub fn save(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved == self.changes.load(Ordering::SeqCst) {
            return;
        }
        let known = {
            let known = self.known();
            *saved = self.changes.load(Ordering::SeqCst);
            known.clone()
        };
        let entries: Vec<_> = known.into_iter().map(|(asked, known)| Entry { asked, known }).collect();
        let text = serde_json::to_vec_pretty(&entries).expect("strings are JSON");
        if let Err(error) = write_whole(&self.path, &text) {
            // The store has the same folder and has reported it.
            tracing::debug!(path = %self.path.display(), %error, "memory of module digests not written");
        }
    }
}

/// Whether plugins of this reference stay with what they got first.
fn is_kept(reference: &ModuleRef) -> bool {
    reference.sha256.is_none() && !is_asked_always(reference)
}

fn parse(text: &[u8]) -> Result<BTreeMap<Asked, Known>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(text)?;
    let sound = entries.into_iter().filter(|entry| entry.asked.is_sound());
    Ok(sound.map(|entry| (entry.asked, entry.known)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PullPolicy;

    fn image(reference: &str, secret: Option<&str>) -> ModuleRef {
        let pull_secret = secret.map(|name| ("shop".to_owned(), name.to_owned()));
        let location = ModuleLocation::Oci(reference.to_owned());
        ModuleRef { location, sha256: None, pull_policy: PullPolicy::Unspecified, pull_secret }
    }

    fn pinned(reference: &ModuleRef, pin: Digest) -> ModuleRef {
        ModuleRef { sha256: Some(pin), ..reference.clone() }
    }

    fn given(module: &[u8], served: Option<&[u8]>) -> Given {
        let (module, served) = (Digest::of(module), served.map(Digest::of));
        Given { module, served, chosen: None, root_id: None, warnings: Vec::new() }
    }

    #[test]
    fn what_came_last_is_remembered_across_restarts_until_the_store_lacks_it() {
        let data_dir = tempfile::tempdir().unwrap();
        let wanted = image("r.test/a:v1", None);
        let old = given(b"old", Some(b"old image"));
        let new = Given { root_id: Some("a".to_owned()), ..given(b"new", Some(b"new image")) };
        let memory = Memory::open(data_dir.path());
        memory.set(&wanted, old.clone());
        memory.set(&wanted, new.clone());
        memory.save();
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.recall(&wanted), Some(new));
        memory.retain(|digest| *digest == old.module);
        assert_eq!(Memory::open(data_dir.path()).recall(&wanted), Some(old));
        memory.retain(|_| false);
        assert_eq!(Memory::open(data_dir.path()).recall(&wanted), None);
    }

    #[test]
    fn a_pin_finds_the_module_by_each_of_its_digests_and_older_ones_too() {
        let data_dir = tempfile::tempdir().unwrap();
        let (memory, wanted) = (Memory::open(data_dir.path()), image("r.test/a:v1", None));
        let chosen = Digest::of(b"chosen");
        let old = Given { chosen: Some(chosen), ..given(b"old", Some(b"index")) };
        memory.set(&wanted, old.clone());
        memory.set(&wanted, given(b"new", None));
        for pin in [old.module, Digest::of(b"index"), chosen] {
            assert_eq!(memory.recall(&pinned(&wanted, pin)), Some(old.clone()));
        }
        assert_eq!(memory.recall(&pinned(&wanted, Digest::of(b"other"))), None);
    }

    #[test]
    fn nobody_gets_a_module_by_its_tag_or_digest_that_another_secret_paid_for() {
        let data_dir = tempfile::tempdir().unwrap();
        let (memory, alice) = (Memory::open(data_dir.path()), image("r.test/a:v1", Some("alice")));
        memory.set(&alice, given(b"private", Some(b"image")));
        for other in
            [image("r.test/a:v1", None), image("r.test/a:v1", Some("bob")), image("evil.test/a:v1", Some("alice"))]
        {
            for pin in [Digest::of(b"private"), Digest::of(b"image")] {
                assert_eq!(memory.recall(&pinned(&other, pin)), None);
            }
            assert_eq!(memory.recall(&other), None);
        }
        assert!(memory.of_image("r.test/a", &Digest::of(b"image")).is_some());
        assert_eq!(memory.of_image("evil.test/a", &Digest::of(b"image")), None);
    }

    #[test]
    fn a_password_in_a_url_is_not_on_disk_and_another_one_finds_nothing() {
        let data_dir = tempfile::tempdir().unwrap();
        let at = |url: &str| ModuleRef { location: ModuleLocation::Http(url.to_owned()), ..image("", None) };
        let wanted = at("https://me:hunter2@m.test/a.wasm?sig=hunter3");
        let known = given(b"module", None);
        let memory = Memory::open(data_dir.path());
        memory.set(&wanted, known.clone());
        memory.save();
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.recall(&wanted), Some(known.clone()));
        for other in ["https://me:hunter2@m.test/a.wasm?sig=other", "https://redacted@m.test/a.wasm?redacted"] {
            assert_eq!(memory.recall(&at(other)), None, "{other}");
        }
        let text = fs::read_to_string(&memory.path).unwrap();
        assert!(text.contains("https://redacted@m.test/a.wasm") && !text.contains("hunter"), "{text}");

        // As it was written before.
        let older = serde_json::json!([{"location": "https://me:hunter2@m.test/a.wasm", "given": [known]}]);
        fs::write(&memory.path, older.to_string()).unwrap();
        let memory = Memory::open(data_dir.path());
        memory.set(&at("https://m.test/b.wasm"), known);
        memory.save();
        let text = fs::read_to_string(&memory.path).unwrap();
        assert!(text.contains("m.test/b.wasm") && !text.contains("hunter"), "{text}");
    }

    #[test]
    fn the_number_of_modules_per_location_is_bounded() {
        let data_dir = tempfile::tempdir().unwrap();
        let (memory, wanted) = (Memory::open(data_dir.path()), image("r.test/a", None));
        for number in 0..=PER_LOCATION {
            memory.set(&wanted, given(&[number as u8], None));
        }
        assert_eq!(memory.recall(&pinned(&wanted, Digest::of(&[0]))), None);
        assert!(memory.recall(&pinned(&wanted, Digest::of(&[1]))).is_some());
    }

    #[test]
    fn a_damaged_memory_is_begun_anew() {
        let data_dir = tempfile::tempdir().unwrap();
        let (memory, wanted) = (Memory::open(data_dir.path()), image("r.test/a", None));
        memory.set(&wanted, given(b"module", None));
        memory.save();
        fs::write(&memory.path, b"{\"half").unwrap();
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.recall(&wanted), None);
        memory.set(&wanted, given(b"module", None));
        memory.save();
        assert!(Memory::open(data_dir.path()).recall(&wanted).is_some());
    }
}
