//! Which files there are: folders are read recursively, symlinks followed, names that begin with a dot skipped.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::memory::Hidden;

/// More files than this are a mistake, such as `--config /`.
const MAX_FILES: usize = 10_000;
/// More folders in one another than this are one as well.
const MAX_DEPTH: usize = 32;
/// Where things vanish as fast as they are listed.
const MAX_LISTINGS: usize = 10;

/// All files below some paths at one moment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// Each once, in the order of the bytes of their names: comparing paths part by part takes ten times as long.
    pub files: Vec<(PathBuf, Listed)>,
    /// Whether some symlink was followed.
    pub has_symlinks: bool,
    /// Something was in its folder and is not there any more.
    pub has_vanished: bool,
    pub hidden: Vec<Hidden>,
    /// Folders whose every entry matters, by their real paths.
    pub folders: BTreeSet<Folder>,
    /// Folders of which only the entries in `entries` matter.
    pub parents: BTreeSet<Folder>,
    pub entries: BTreeSet<PathBuf>,
}

/// A folder that can be watched. One that was made anew at the same path is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    pub path: PathBuf,
    inode: (u64, u64),
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Where it really is; `None` for a symlink that leads nowhere.
    pub target: Option<PathBuf>,
    pub is_symlinked: bool,
    pub stamp: Stamp,
}

/// What changes whenever a file's bytes change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub modified: Option<SystemTime>,
    pub len: u64,
    pub inode: (u64, u64),
    pub changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Lists all files at and below `roots`. What vanishes meanwhile may have been deleted, or be in a folder that was moved
/// away, whose files are not gone: another look tells.
pub(super) fn list(roots: &[PathBuf]) -> Listing {
    let mut listing = Listing::default();
    for _ in 0..MAX_LISTINGS {
        listing = Listing::default();
        for root in roots {
            listing.root(root);
        }
        if !std::mem::take(&mut listing.has_vanished) {
            break;
        }
    }
    listing.files.sort_by(|one, other| one.0.as_os_str().cmp(other.0.as_os_str()));
    // Of roots that lie in one another.
    listing.files.dedup_by(|one, other| one.0.as_os_str() == other.0.as_os_str());
    listing
}

/// The stamp of a file that is there, and is no symlink.
pub(super) fn stamp_of_file(path: &Path) -> io::Result<Option<Stamp>> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(metadata.is_file().then(|| Stamp::of(&metadata)))
}

impl Listing {
    fn root(&mut self, root: &Path) {
        let has_folder = self.watch_entry(root);
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => self.folder(root, &mut Vec::new()),
            // Named on the command line: whatever its extension.
            Ok(metadata) if metadata.is_file() => self.file(root, &metadata),
            Ok(_) => self.hide(root, "is neither a file nor a folder"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let reason = "no such file or folder".to_owned();
                self.hidden.push(Hidden { path: root.to_owned(), reason, is_gone: has_folder });
            }
            Err(error) => self.hide(root, &format!("cannot be read: {error}")),
        }
    }

    /// Has `path` watched as an entry of its folder. Whether that folder exists.
    fn watch_entry(&mut self, path: &Path) -> bool {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return true,
        };
        let Ok(folder) = Folder::of(parent) else { return false };
        self.entries.extend(path.file_name().map(|name| folder.path.join(name)));
        self.parents.insert(folder);
        true
    }

    fn folder(&mut self, path: &Path, ancestors: &mut Vec<Folder>) {
        let folder = match Folder::of(path) {
            Ok(folder) => folder,
            Err(error) => return self.hide(path, &format!("cannot be read: {error}")),
        };
        // A symlink to a folder above would never end.
        if ancestors.contains(&folder) {
            return;
        }
        if ancestors.len() >= MAX_DEPTH {
            return self.hide(path, &format!("lies in more than {MAX_DEPTH} folders and is not read"));
        }
        self.folders.insert(folder.clone());
        let real = folder.path.clone();
        ancestors.push(folder);
        if let Err(error) = self.folder_entries(path, &real, ancestors) {
            self.hide(path, &format!("cannot be read: {error}"));
        }
        ancestors.pop();
    }

    /// `real`: the real path of the folder.
    fn folder_entries(&mut self, path: &Path, real: &Path, ancestors: &mut Vec<Folder>) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            if self.files.len() >= MAX_FILES {
                self.hide(path, &format!("more than {MAX_FILES} files: the rest is not read"));
                break;
            }
            let kind = entry.file_type().ok();
            self.has_symlinks |= kind.is_some_and(|kind| kind.is_symlink());
            let path = entry.path();
            // What is no symlink is where its folder is: there is nothing to ask but its stamp.
            if kind.is_some_and(|kind| kind.is_file()) {
                if !has_manifest_name(&path) {
                    continue;
                }
                if let Ok(Some(stamp)) = stamp_of_file(&path) {
                    let listed = Listed { target: Some(real.join(&name)), is_symlinked: false, stamp };
                    self.files.push((path, listed));
                    continue;
                }
                // It has become something else just now.
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, ancestors),
                Ok(metadata) if metadata.is_file() && has_manifest_name(&path) => self.file(&path, &metadata),
                Err(error) if error.kind() == ErrorKind::NotFound && !is_link_to_nowhere(&path, kind) => {
                    self.has_vanished = true;
                }
                Err(_) if has_manifest_name(&path) => self.dangling(&path),
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        let target = fs::canonicalize(path).ok();
        let is_symlinked = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if let Some(target) = target.as_deref().filter(|_| is_symlinked) {
            self.watch_entry(target);
        }
        self.has_symlinks |= is_symlinked;
        self.files.push((path.to_owned(), Listed { target, is_symlinked, stamp: Stamp::of(metadata) }));
    }

    /// A symlink that leads nowhere.
    fn dangling(&mut self, path: &Path) {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            let stamp = Stamp::of(&metadata);
            self.files.push((path.to_owned(), Listed { target: None, is_symlinked: true, stamp }));
        }
    }

    fn hide(&mut self, path: &Path, reason: &str) {
        self.hidden.push(Hidden { path: path.to_owned(), reason: reason.to_owned(), is_gone: false });
    }
}

impl Folder {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let metadata = fs::metadata(&path)?;
        Ok(Self { path, inode: (metadata.dev(), metadata.ino()) })
    }
}

/// Whether it is there itself; `kind` as its folder told it.
fn is_link_to_nowhere(path: &Path, kind: Option<fs::FileType>) -> bool {
    kind.is_some_and(|kind| kind.is_symlink()) && fs::symlink_metadata(path).is_ok()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a file of this name is passed over in a folder.
pub(super) fn is_passed_over(path: &Path) -> bool {
    path.file_name().is_none_or(is_hidden) || !has_manifest_name(path)
}

fn has_manifest_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_moved_away_and_back_while_it_is_read_never_looks_empty() {
        let parent = tempfile::tempdir().unwrap();
        let (root, away) = (parent.path().join("config"), parent.path().join("away"));
        fs::create_dir_all(root.join("team")).unwrap();
        for name in ["a.yaml", "team/b.yaml"] {
            fs::write(root.join(name), "x").unwrap();
        }
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                for _ in 0..20_000 {
                    fs::rename(&root, &away).unwrap();
                    fs::rename(&away, &root).unwrap();
                }
            });
            while !moving.is_finished() {
                let listing = list(std::slice::from_ref(&root));
                assert!(listing.files.len() == 2 || !listing.hidden.is_empty(), "{listing:?}");
            }
        });
    }
}
