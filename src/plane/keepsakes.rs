//! What the plane remembers across restarts: values under the data folder, one file each, so that a change writes one.
//!
//! Comes in: keys and values. Goes out, once: what was kept before the restart. A folder that cannot be used costs the
//! memory and nothing else; it is logged when that begins.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::Digest;

/// A folder of values, read once and then only written.
#[derive(Debug)]
pub struct Keepsakes {
    folder: PathBuf,
    /// By key, the content on disk.
    written: BTreeMap<String, Digest>,
    is_failing: bool,
}

/// The content of a file. Its name is a hash of the key, which may hold anything.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: String,
    value: T,
}

impl Keepsakes {
    /// Reads what was kept; what is unreadable is logged and left out.
    pub fn open<T: DeserializeOwned>(folder: PathBuf) -> (Self, BTreeMap<String, T>) {
        let mut kept = BTreeMap::new();
        let mut written = BTreeMap::new();
        for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read::<T>(&path) {
                Ok((Entry { key, value }, digest)) => {
                    written.insert(key.clone(), digest);
                    kept.insert(key, value);
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "memory is unreadable and left out"),
            }
        }
        (Self { folder, written, is_failing: false }, kept)
    }

    /// Keeps `value` under `key`; nothing is written where it is kept already.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) {
        let entry = Entry { key: key.to_owned(), value };
        let text = match serde_json::to_vec(&entry) {
            Ok(text) => text,
            Err(error) => return tracing::error!(key, %error, "not to be remembered across a restart"),
        };
        let digest = Digest::of(&text);
        if self.written.get(key) == Some(&digest) {
            return;
        }
        match write_whole(&self.path(key), &text) {
            Ok(()) => {
                self.written.insert(key.to_owned(), digest);
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                let folder = self.folder.display();
                tracing::error!(%folder, %error, "nothing can be remembered across a restart: see to --data-dir");
            }
            Err(_) => {}
        }
    }

    /// Forgets every key that is not to be kept.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.written.keys().filter(|key| !is_kept(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Forgets one key, if it is there.
    pub fn remove(&mut self, key: &str) {
        if self.written.remove(key).is_none() {
            return;
        }
        if let Err(error) = fs::remove_file(self.path(key)) {
            tracing::warn!(key, %error, "memory not forgotten");
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

/// Readable by its owner only, as plugin configurations may hold secrets; whole or not there.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> (Keepsakes, BTreeMap<String, u32>) {
        Keepsakes::open(folder.join("numbers"))
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
        assert_eq!(open(folder.path()).1.len(), 1);
    }
}
