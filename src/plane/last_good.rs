//! The last good text of each config source, kept across restarts of the control plane.
//!
//! Without it a restart with a broken file would take away what that file said before (design, section 4).

use std::path::{Path, PathBuf};

use super::json_file;
use crate::sources::LastGood;

/// The file under the data folder.
const FILE: &str = "sources.json";

/// Where the texts are kept. Written before anything of them is pushed.
#[derive(Debug)]
pub struct LastGoodFile {
    path: PathBuf,
    saved: LastGood,
}

impl LastGoodFile {
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let saved = json_file::read(&path);
        Self { path, saved }
    }

    pub fn texts(&self) -> &LastGood {
        &self.saved
    }

    /// Keeps these texts from now on. Blocks on the disk for the length of one small file.
    pub fn save(&mut self, texts: &LastGood) {
        if *texts == self.saved {
            return;
        }
        json_file::write(&self.path, texts);
        self.saved = texts.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_a_restart_and_a_broken_memory_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let texts = LastGood::from([(PathBuf::from("/c/a.yaml"), "kind: WasmPlugin".into())]);
        LastGoodFile::open(folder.path()).save(&texts);
        assert_eq!(LastGoodFile::open(folder.path()).texts(), &texts);

        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(LastGoodFile::open(folder.path()).texts().is_empty());
    }
}
