//! What the plane remembers across restarts: values under the data folder, one file each, so that a change writes one.
//!
//! Comes in: keys and values. Goes out, once: what was kept before the restart. A folder that cannot be used costs the
//! memory and nothing else. The disk itself is the scribe's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::scribe::{Scribe, Ticket};
use crate::disk::UNFINISHED;
use crate::model::Digest;

/// A folder of values, read once and then only written.
#[derive(Debug)]
pub struct Keepsakes {
    folder: PathBuf,
    scribe: Scribe,
    /// By key, the content on disk, or on its way there.
    ordered: BTreeMap<String, Digest>,
}

/// The content of a file. Its name is a hash of the key, which may hold anything.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: String,
    value: T,
}

impl Keepsakes {
    /// Reads what was kept; what is unreadable is logged and left out.
    pub fn open<T: DeserializeOwned>(folder: PathBuf, scribe: &Scribe) -> (Self, BTreeMap<String, T>) {
        let mut kept = BTreeMap::new();
        let mut ordered = BTreeMap::new();
        for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = file.path();
            if file.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                // A crash left it. Should it stay, it costs its room and nothing else.
                let _ = fs::remove_file(&path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read::<T>(&path) {
                Ok((Entry { key, value }, digest)) => {
                    ordered.insert(key.clone(), digest);
                    kept.insert(key, value);
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "memory is unreadable and left out"),
            }
        }
        (Self { folder, scribe: scribe.clone(), ordered }, kept)
    }

    /// Keeps `value` under `key`; `None` where it is kept already.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Option<Ticket> {
        let entry = Entry { key: key.to_owned(), value };
        let text = serde_json::to_vec(&entry)
            .inspect_err(|error| tracing::error!(key, %error, "not to be remembered across a restart"))
            .ok()?;
        let digest = Digest::of(&text);
        if self.ordered.get(key) == Some(&digest) {
            return None;
        }
        self.ordered.insert(key.to_owned(), digest);
        Some(self.scribe.put(self.path(key), Some(text)))
    }

    /// Forgets every key that is not to be kept.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.ordered.keys().filter(|key| !is_kept(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Forgets one key, if it is there.
    pub fn remove(&mut self, key: &str) {
        if self.ordered.remove(key).is_some() {
            self.scribe.put(self.path(key), None);
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = Digest::of(key.as_bytes()).to_string();
        self.folder.join(format!("{}.json", &name[..32]))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<(Entry<T>, Digest)> {
    let text = fs::read(path)?;
    Ok((serde_json::from_slice(&text)?, Digest::of(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> (Keepsakes, BTreeMap<String, u32>) {
        Keepsakes::open(folder.join("numbers"), &Scribe::at_once())
    }

    #[test]
    fn what_is_put_is_there_after_a_restart_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut keepsakes, kept) = open(folder.path());
        assert!(kept.is_empty());
        keepsakes.put("../a", &1);
        keepsakes.put("../a", &2);
        keepsakes.put("b", &3);

        let (mut keepsakes, kept) = open(folder.path());
        assert_eq!(kept, BTreeMap::from([("../a".to_owned(), 2), ("b".to_owned(), 3)]));
        keepsakes.retain(|key| key == "b");
        assert_eq!(open(folder.path()).1, BTreeMap::from([("b".to_owned(), 3)]));
    }

    #[test]
    fn a_damaged_file_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).0.put("a", &1);
        fs::write(folder.path().join("numbers/other.json"), "{").unwrap();
        let left = folder.path().join(format!("numbers/{UNFINISHED}x"));
        fs::write(&left, "{").unwrap();
        assert_eq!((open(folder.path()).1.len(), left.exists()), (1, false));
    }
}
