//! Which digest a location had when it was last fetched: `<data-dir>/modules/digests.json`.
//!
//! Written before a module is handed out, read at the start, so that a restart needs no server. It holds what operators
//! wrote as URLs, so it is readable by its owner only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::disk::write_whole;
use crate::model::{Digest, ModuleLocation};

pub struct Memory {
    path: PathBuf,
    /// By the location's text, or the digest of packed bytes. One entry for each that was ever fetched and is still stored.
    digests: Mutex<BTreeMap<String, Digest>>,
}

impl Memory {
    /// What cannot be read is logged and begun anew: it costs downloads, nothing else.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("modules/digests.json");
        let digests = match fs::read(&path) {
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
        Self { path, digests: Mutex::new(digests) }
    }

    pub fn get(&self, location: &ModuleLocation) -> Option<Digest> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&location.to_string()).copied()
    }

    /// Remembers on disk, too, if that can be written.
    pub fn set(&self, location: &ModuleLocation, digest: Digest) {
        self.insert(location.to_string(), digest);
    }

    /// The module that a pin stands for: the one that was in the packed bytes of that digest, or the very one.
    pub fn pinned(&self, pin: Digest) -> Digest {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(&packed_key(pin)).copied().unwrap_or(pin)
    }

    /// Remembers what was in packed bytes. It stays true wherever they come from.
    pub fn set_packed(&self, packed: Digest, module: Digest) {
        self.insert(packed_key(packed), module);
    }

    fn insert(&self, key: String, digest: Digest) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.insert(key, digest) != Some(digest) {
            self.save(&digests);
        }
    }

    /// Forgets digests that the store no longer has.
    pub fn retain(&self, is_stored: impl Fn(&Digest) -> bool) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let before = digests.len();
        digests.retain(|_, digest| is_stored(digest));
        if digests.len() != before {
            self.save(&digests);
        }
    }

    /// Under the lock, so that an older text never replaces a newer one.
    fn save(&self, digests: &BTreeMap<String, Digest>) {
        let texts: BTreeMap<_, _> = digests.iter().map(|(location, digest)| (location, digest.to_string())).collect();
        let text = serde_json::to_vec_pretty(&texts).expect("strings are JSON");
        if let Err(error) = write_whole(&self.path, &text) {
            // The store has the same folder and has reported it.
            tracing::debug!(path = %self.path.display(), %error, "memory of module digests not written");
        }
    }
}

/// No location looks like this: each has a scheme and two slashes.
fn packed_key(packed: Digest) -> String {
    format!("sha256:{packed}")
}

fn parse(text: &[u8]) -> Result<BTreeMap<String, Digest>, serde_json::Error> {
    let texts: BTreeMap<String, String> = serde_json::from_slice(text)?;
    Ok(texts.into_iter().filter_map(|(location, digest)| Some((location, digest.parse().ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> ModuleLocation {
        ModuleLocation::Http("http://modules.test/a.wasm".to_owned())
    }

    #[test]
    fn a_digest_is_remembered_across_restarts_until_the_store_lacks_it() {
        let data_dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"module");
        Memory::open(data_dir.path()).set(&location(), digest);
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.get(&location()), Some(digest));
        memory.retain(|_| false);
        assert_eq!(Memory::open(data_dir.path()).get(&location()), None);
    }

    #[test]
    fn a_pin_of_packed_bytes_leads_to_the_module_that_was_in_them() {
        let data_dir = tempfile::tempdir().unwrap();
        let (packed, module) = (Digest::of(b"packed"), Digest::of(b"module"));
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.pinned(packed), packed);
        memory.set_packed(packed, module);
        assert_eq!(Memory::open(data_dir.path()).pinned(packed), module);
    }

    #[test]
    fn a_damaged_memory_is_begun_anew() {
        let data_dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(data_dir.path());
        memory.set(&location(), Digest::of(b"module"));
        fs::write(&memory.path, b"{\"half").unwrap();
        let memory = Memory::open(data_dir.path());
        assert_eq!(memory.get(&location()), None);
        memory.set(&location(), Digest::of(b"module"));
        assert!(Memory::open(data_dir.path()).get(&location()).is_some());
    }
}
