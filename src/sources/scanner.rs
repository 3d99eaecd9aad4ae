//! Reads the files that changed and are ready to be read.
//!
//! A file is ready when it was closed after writing or renamed into place. Where no event tells of that (a network
//! file system, a lost event), one that nobody is known to write and that is a second old is ready as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::listing::{Listed, Listing, Stamp, list};
use super::manifest::{MAX_FILE_BYTES, too_large};
use super::memory::{Scan, Seen};

/// How long a file must lie still before it is read without an event.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// What is known of writers since the last scan. Real paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writes {
    /// Files that were closed after writing; files and folders that were renamed into place.
    pub done: BTreeSet<PathBuf>,
    /// Files that were written to and not closed since.
    pub open: BTreeSet<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Scanner {
    roots: Vec<PathBuf>,
    /// Each file as it was when it was read.
    known: BTreeMap<PathBuf, Listed>,
    is_first: bool,
}

/// What a scan gives.
pub(super) struct Scanned {
    pub scan: Scan,
    /// For what is to be watched.
    pub listing: Listing,
    /// Whether a changed file was not ready.
    pub is_waiting: bool,
}

impl Scanner {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, known: BTreeMap::new(), is_first: true }
    }

    pub(super) fn scan(&mut self, writes: &Writes, now: SystemTime) -> Scanned {
        let listing = list(&self.roots);
        self.known.retain(|path, _| listing.files.contains_key(path));
        let mut scan = Scan { hidden: listing.hidden.clone(), ..Scan::default() };
        let mut is_waiting = false;
        for (path, listed) in &listing.files {
            let seen = match verdict(listed, self.known.get(path), writes, now) {
                Verdict::Unchanged => Some(Seen::Same),
                Verdict::NotReady if !self.is_first => None,
                Verdict::NotReady | Verdict::Ready => read(path, listed),
            };
            is_waiting |= seen.is_none();
            if matches!(seen, Some(Seen::Read(_) | Seen::Unreadable(_))) {
                self.known.insert(path.clone(), listed.clone());
            }
            scan.files.insert(path.clone(), seen.unwrap_or(Seen::Same));
        }
        self.is_first = false;
        Scanned { scan, listing, is_waiting }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Unchanged,
    NotReady,
    Ready,
}

fn verdict(listed: &Listed, known: Option<&Listed>, writes: &Writes, now: SystemTime) -> Verdict {
    let is_done = listed.target.as_deref().is_some_and(|target| is_at_or_below(target, &writes.done));
    if is_done {
        return Verdict::Ready;
    }
    if known == Some(listed) {
        return Verdict::Unchanged;
    }
    if listed.target.as_ref().is_some_and(|target| writes.open.contains(target)) {
        return Verdict::NotReady;
    }
    // A symlink that leads elsewhere than before is a rename into place, such as a ConfigMap's `..data`.
    let is_led_elsewhere = listed.is_symlinked && known.is_none_or(|known| known.target != listed.target);
    if is_led_elsewhere || is_settled(listed.stamp.modified, now) { Verdict::Ready } else { Verdict::NotReady }
}

fn is_at_or_below(path: &Path, done: &BTreeSet<PathBuf>) -> bool {
    path.ancestors().any(|ancestor| done.contains(ancestor))
}

/// A time in the future is a wrong clock, and says nothing.
fn is_settled(modified: Option<SystemTime>, now: SystemTime) -> bool {
    let age = modified.and_then(|modified| now.duration_since(modified).ok());
    age.is_none_or(|age| age >= SETTLED)
}

/// `None` if the file changed while it was read.
fn read(path: &Path, listed: &Listed) -> Option<Seen> {
    match read_bytes(path) {
        Ok((stamp, Seen::Read(_))) if stamp != listed.stamp => None,
        Ok((_, seen)) => Some(seen),
        Err(_) if listed.target.is_none() => Some(Seen::Unreadable("is a symlink that leads nowhere".to_owned())),
        Err(error) => Some(Seen::Unreadable(format!("cannot be read: {error}"))),
    }
}

fn read_bytes(path: &Path) -> io::Result<(Stamp, Seen)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, to know that there is more; the file may grow while it is read.
    file.by_ref().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Ok((stamp, Seen::Unreadable(too_large(metadata.len()))));
    }
    Ok((stamp, Seen::Read(bytes)))
}
