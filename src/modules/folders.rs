//! `file://`: whose disk is it?
//!
//! Below a folder of `--module-files` wasmplane reads the file itself; anything else is a path on the proxy's own disk.
//! The path as written decides which; a path below a folder that leads out of it is refused, never passed on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::FetchError;
use super::image::UnpackLimits;
use super::spool::MAGIC;

/// Where a `file://` module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the proxy's own disk.
    Proxy,
    /// Below this folder of ours.
    Ours { folder: PathBuf },
}

/// The folders that the operator opened.
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// A folder that does not exist is logged and may still appear.
    pub fn new(folders: &[PathBuf]) -> Self {
        for folder in folders.iter().filter(|folder| !folder.is_dir()) {
            tracing::error!(folder = %folder.display(), advice = "make it, or change --module-files", "no such folder");
        }
        Self(folders.iter().map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.clone())).collect())
    }

    /// Blocks.
    pub fn place(&self, path: &Path) -> Place {
        let is_below = |folder: &&PathBuf| {
            path.starts_with(folder) || fs::canonicalize(folder).is_ok_and(|folder| path.starts_with(folder))
        };
        match self.0.iter().find(is_below) {
            Some(folder) => Place::Ours { folder: folder.clone() },
            None => Place::Proxy,
        }
    }
}

/// A regular file of limited size, to be read when there is memory for it.
pub struct Opened {
    path: PathBuf,
    file: File,
    length: u64,
    is_module: bool,
    limit: u64,
}

/// Opens a file that must really be below the folder. Blocks.
pub fn open_below(folder: &Path, path: &Path, limit: u64) -> Result<Opened, FetchError> {
    let failed = |cause| FetchError::File { path: path.to_owned(), cause };
    let target = fs::canonicalize(path).map_err(failed)?;
    if !target.starts_with(fs::canonicalize(folder).map_err(failed)?) {
        return Err(FetchError::Outside { path: path.to_owned(), target, folder: folder.to_owned() });
    }
    let opened = open(&target, limit).map_err(|error| match error {
        FetchError::File { cause, .. } => failed(cause),
        other => other,
    })?;
    Ok(Opened { path: path.to_owned(), ..opened })
}

/// Reads a regular file of limited size. Blocks.
pub fn read_file(path: &Path, limit: u64) -> Result<Bytes, FetchError> {
    open(path, limit)?.read()
}

fn open(path: &Path, limit: u64) -> Result<Opened, FetchError> {
    let failed = |cause: io::Error| FetchError::File { path: path.to_owned(), cause };
    // Asked before opening: opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FetchError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(too_large(path, limit));
    }
    let mut head = [0; MAGIC.len()];
    let read = file.read_at(&mut head, 0).map_err(failed)?;
    Ok(Opened { path: path.to_owned(), file, length, is_module: &head[..read] == MAGIC, limit })
}

fn too_large(path: &Path, limit: u64) -> FetchError {
    FetchError::TooLarge { location: path.display().to_string(), limit }
}

impl Opened {
    /// What reading and unpacking it may take. What is a module already is not unpacked.
    pub fn memory(&self, limits: &UnpackLimits) -> u64 {
        if self.is_module { self.length } else { self.length.saturating_add(limits.module) }
    }

    /// Blocks.
    pub fn read(self) -> Result<Bytes, FetchError> {
        let mut content = Vec::with_capacity(self.length as usize);
        // It may have grown since.
        let read = self.file.take(self.limit + 1).read_to_end(&mut content);
        read.map_err(|cause| FetchError::File { path: self.path.clone(), cause })?;
        if content.len() as u64 > self.limit { Err(too_large(&self.path, self.limit)) } else { Ok(content.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10;

    #[test]
    fn the_path_as_written_says_whose_disk_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::new(&[folder.path().to_owned()]);
        let ours = Place::Ours { folder: folder.path().to_owned() };
        assert_eq!(folders.place(&folder.path().join("a.wasm")), ours);
        assert_eq!(folders.place(&folder.path().join("deep/not/there.wasm")), ours);
        for path in ["a.wasm", "/etc/plugins/a.wasm", ""] {
            assert_eq!(folders.place(Path::new(path)), Place::Proxy, "{path}");
        }
        let neighbour = PathBuf::from(format!("{}-2/a.wasm", folder.path().display()));
        assert_eq!(folders.place(&neighbour), Place::Proxy);
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        let secret = parent.path().join("secret");
        fs::write(&secret, b"secret").unwrap();
        std::os::unix::fs::symlink(&secret, folder.join("link.wasm")).unwrap();
        for path in [folder.join("../secret"), folder.join("link.wasm")] {
            let error = open_below(&folder, &path, LIMIT).map(drop).unwrap_err();
            assert!(matches!(error, FetchError::Outside { .. }), "{error}");
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn files_have_limits_and_must_be_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let read = || open_below(folder.path(), &path, LIMIT).and_then(Opened::read);
        assert_eq!(
            read().unwrap_err().to_string(),
            format!("{}: No such file or directory (os error 2)", path.display())
        );
        fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read().unwrap(), "0123456789");
        fs::write(&path, b"0123456789a").unwrap();
        assert!(matches!(read().unwrap_err(), FetchError::TooLarge { .. }));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read().unwrap_err(), FetchError::NotAFile { .. }));
    }
}
