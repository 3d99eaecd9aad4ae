//! Reads the files that changed and are ready to be read.
//!
//! A file is ready when it was closed after writing or renamed into place. Where no event tells of that (a network
//! file system, a lost event), one that nobody is known to write and that is a second old is ready as well.
//!
//! Where events name every file that changed, and all of them are plain files, only these are looked at
//! ([`Scanner::glance`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::inbox::News;
use super::listing::{Folder, Listed, Listing, Stamp, is_passed_over, list, stamp_of_file};
use super::manifest::{MAX_FILE_BYTES, too_large};
use super::memory::{Hidden, Scan, Seen};

/// How long a file must lie still before it is read without an event.
const SETTLED: Duration = Duration::from_secs(1);
/// How long a file must lie still after it was closed: somebody who writes it again at once has truncated it by now,
/// and the event that says so may be on its way yet.
const QUIET: Duration = Duration::from_millis(15);

const REPLACED: &str = "is empty, and another folder than the one that held manifests: they stay as they were until there is a \
                        manifest in it, or a restart";

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
    /// Real paths of files that were closed and have not lain still for long enough.
    pending: BTreeSet<PathBuf>,
    /// As all of it was last listed, and what was seen of single files since.
    listing: Option<Listing>,
    /// Where the files of `listing` stand in it, by their real paths; empty where one may be reached by another way.
    places: HashMap<PathBuf, usize>,
    /// Folders among the roots as they were when they held files last.
    filled: BTreeMap<PathBuf, Folder>,
    /// Some file was not ready.
    is_waiting: bool,
}

/// What a look gives.
#[derive(Debug)]
pub(super) struct Scanned {
    /// `None` where nothing is new.
    pub scan: Option<Scan>,
    /// When to look again at the latest, as a changed file was not ready.
    pub again: Option<Duration>,
}

/// What holds for all files of one look.
struct Look<'w> {
    writes: &'w Writes,
    now: SystemTime,
    is_first: bool,
    /// See [`Scanned::again`].
    again: Option<Duration>,
}

impl Scanner {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        let (known, pending, places) = (BTreeMap::new(), BTreeSet::new(), HashMap::new());
        Self { roots, known, pending, listing: None, places, filled: BTreeMap::new(), is_waiting: false }
    }

    /// For what is to be watched; there after the first scan.
    pub(super) fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref()
    }

    /// Looks at everything.
    pub(super) fn scan(&mut self, mut writes: Writes, now: SystemTime) -> Scanned {
        let mut listing = list(&self.roots);
        self.hide_replaced(&mut listing);
        if self.listing.as_ref() == Some(&listing) && !self.is_waiting && writes.done.is_empty() {
            return Scanned { scan: None, again: None };
        }
        let pending = std::mem::take(&mut self.pending).into_iter();
        writes.done.extend(pending.filter(|path| !writes.open.contains(path)));
        let files: BTreeMap<&PathBuf, &Listed> = listing.files.iter().map(|(path, listed)| (path, listed)).collect();
        self.known.retain(|path, _| files.contains_key(path));
        let mut scan = Scan { hidden: listing.hidden.clone(), ..Scan::default() };
        let mut look = Look { writes: &writes, now, is_first: self.listing.is_none(), again: None };
        for (path, listed) in files {
            scan.files.insert(path.clone(), self.see(path, listed, &mut look));
        }
        let again = look.again;
        self.is_waiting = again.is_some();
        self.places = places(&listing);
        self.listing = Some(listing);
        Scanned { scan: Some(scan), again }
    }

    /// A folder that is empty and another one than that which held files was most likely put there by an accident: what is
    /// left when a file system is unmounted, or before it is mounted again. Emptied folders are the same as before.
    fn hide_replaced(&mut self, listing: &mut Listing) {
        for root in &self.roots {
            let Ok(folder) = Folder::of(root) else { continue };
            if listing.files.iter().any(|(path, _)| path.starts_with(root)) {
                self.filled.insert(root.clone(), folder);
                continue;
            }
            match self.filled.get(root) {
                Some(filled) if *filled == folder => drop(self.filled.remove(root)),
                Some(_) if root.is_dir() => {
                    let reason = REPLACED.to_owned();
                    listing.hidden.push(Hidden { path: root.clone(), reason, is_gone: false });
                }
                _ => {}
            }
        }
    }

    /// Looks at the files that `news` names. `None` where more may be different than that.
    pub(super) fn glance(&mut self, news: &News, now: SystemTime) -> Option<Scanned> {
        let (listing, touched) = (self.listing.as_ref()?, news.touched.as_ref()?);
        if self.is_waiting {
            return None;
        }
        let mut changed = Vec::new();
        for path in touched {
            match self.places.get(path) {
                Some(place) if news.writes.done.contains(path) => {
                    changed.push((*place, stamp_of_file(path).ok().flatten()?));
                }
                None if has_no_effect(path, listing) => {}
                _ => return None,
            }
        }
        let mut scan = Scan { is_partial: true, ..Scan::default() };
        let mut look = Look { writes: &news.writes, now, is_first: false, again: None };
        for (place, stamp) in changed {
            let (path, listed) = self.listing.as_mut()?.files.get_mut(place)?;
            listed.stamp = stamp;
            let (path, listed) = (path.clone(), listed.clone());
            let seen = self.see(&path, &listed, &mut look);
            scan.files.insert(path, seen);
        }
        self.is_waiting = look.again.is_some();
        Some(Scanned { scan: Some(scan), again: look.again })
    }

    /// Reads a file if it has changed and is ready.
    fn see(&mut self, path: &Path, listed: &Listed, look: &mut Look<'_>) -> Seen {
        let seen = match verdict(listed, self.known.get(path), look.writes, look.now) {
            Verdict::Unchanged => Seen::Same,
            Verdict::NotReady if !look.is_first => self.postpone(listed, look),
            Verdict::NotReady | Verdict::Ready => read(path, listed).unwrap_or_else(|| self.postpone(listed, look)),
        };
        if !matches!(seen, Seen::Same) {
            self.known.insert(path.to_owned(), listed.clone());
        }
        seen
    }

    fn postpone(&mut self, listed: &Listed, look: &mut Look<'_>) -> Seen {
        let done = listed.target.as_ref().filter(|target| is_at_or_below(target, &look.writes.done));
        let pause = if done.is_some() { quiet(listed) } else { SETTLED };
        look.again = Some(look.again.map_or(pause, |again| again.min(pause)));
        self.pending.extend(done.cloned());
        Seen::Same
    }
}

/// Nothing where a symlink was followed: what happens at one path may then change what is found at another.
fn places(listing: &Listing) -> HashMap<PathBuf, usize> {
    let targets = listing.files.iter().map(|(_, listed)| listed.target.clone());
    let places: HashMap<_, _> = targets.enumerate().filter_map(|(place, target)| Some((target?, place))).collect();
    let is_plain = !listing.has_symlinks && places.len() == listing.files.len();
    if is_plain { places } else { HashMap::new() }
}

/// Whether a path that is none of our files is nothing to us, such as a file's name before it is renamed into place.
fn has_no_effect(path: &Path, listing: &Listing) -> bool {
    let is_nothing = || match fs::symlink_metadata(path) {
        // It may be another name of a file of ours.
        Ok(metadata) => metadata.is_file() && metadata.nlink() == 1,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let is_folder = || listing.folders.iter().any(|folder| folder.path.starts_with(path));
    !listing.has_symlinks && is_passed_over(path) && !listing.entries.contains(path) && !is_folder() && is_nothing()
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
        let is_ready = has_lain_still(quiet(listed), listed.stamp.modified, now);
        return if is_ready { Verdict::Ready } else { Verdict::NotReady };
    }
    if known == Some(listed) {
        return Verdict::Unchanged;
    }
    if listed.target.as_ref().is_some_and(|target| writes.open.contains(target)) {
        return Verdict::NotReady;
    }
    // A symlink that leads elsewhere than before is a rename into place, such as a ConfigMap's `..data`.
    let is_led_elsewhere = listed.is_symlinked && known.is_none_or(|known| known.target != listed.target);
    let is_ready = is_led_elsewhere || has_lain_still(SETTLED, listed.stamp.modified, now);
    if is_ready { Verdict::Ready } else { Verdict::NotReady }
}

/// An empty file has time: most of them are about to be written, and a busy disk can hold up the writer for long.
fn quiet(listed: &Listed) -> Duration {
    if listed.stamp.len == 0 { SETTLED } else { QUIET }
}

fn is_at_or_below(path: &Path, done: &BTreeSet<PathBuf>) -> bool {
    !done.is_empty() && path.ancestors().any(|ancestor| done.contains(ancestor))
}

/// A time far in the future is a wrong clock, and says nothing; one that is near was written during the scan.
fn has_lain_still(long: Duration, modified: Option<SystemTime>, now: SystemTime) -> bool {
    match modified.map(|modified| now.duration_since(modified)) {
        Some(Ok(age)) => age >= long,
        Some(Err(ahead)) => ahead.duration() > Duration::from_secs(60),
        None => true,
    }
}

/// `None` if the file changed while it was read.
fn read(path: &Path, listed: &Listed) -> Option<Seen> {
    match read_bytes(path) {
        // The length as well, as time stamps are coarse.
        Ok((stamp, Seen::Read(bytes))) if stamp != listed.stamp || bytes.len() as u64 != stamp.len => None,
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

#[cfg(test)]
mod tests;
