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
const SETTLED: Duration = Duration::from_secs(1);
/// How long a file must lie still after it was closed: somebody who writes it again at once has truncated it by now,
/// and the event that says so may be on its way yet.
const QUIET: Duration = Duration::from_millis(15);

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
    is_first: bool,
}

/// What a scan gives.
pub(super) struct Scanned {
    pub scan: Scan,
    /// For what is to be watched.
    pub listing: Listing,
    /// When to look again at the latest, as a changed file was not ready.
    pub again: Option<Duration>,
}

impl Scanner {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, known: BTreeMap::new(), pending: BTreeSet::new(), is_first: true }
    }

    pub(super) fn scan(&mut self, mut writes: Writes, now: SystemTime) -> Scanned {
        let pending = std::mem::take(&mut self.pending).into_iter();
        writes.done.extend(pending.filter(|path| !writes.open.contains(path)));
        let listing = list(&self.roots);
        self.known.retain(|path, _| listing.files.contains_key(path));
        let mut scan = Scan { hidden: listing.hidden.clone(), ..Scan::default() };
        let mut again = None;
        for (path, listed) in &listing.files {
            let seen = match verdict(listed, self.known.get(path), &writes, now) {
                Verdict::Unchanged => Seen::Same,
                Verdict::NotReady if !self.is_first => self.postpone(listed, &writes, &mut again),
                Verdict::NotReady | Verdict::Ready => {
                    read(path, listed).unwrap_or_else(|| self.postpone(listed, &writes, &mut again))
                }
            };
            if !matches!(seen, Seen::Same) {
                self.known.insert(path.clone(), listed.clone());
            }
            scan.files.insert(path.clone(), seen);
        }
        self.is_first = false;
        Scanned { scan, listing, again }
    }

    fn postpone(&mut self, listed: &Listed, writes: &Writes, again: &mut Option<Duration>) -> Seen {
        let done = listed.target.as_ref().filter(|target| is_at_or_below(target, &writes.done));
        let pause = if done.is_some() { quiet(listed) } else { SETTLED };
        *again = Some(again.map_or(pause, |again| again.min(pause)));
        self.pending.extend(done.cloned());
        Seen::Same
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
    path.ancestors().any(|ancestor| done.contains(ancestor))
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
mod tests {
    use std::fs;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn listed(target: &str, modified: Duration) -> Listed {
        let stamp = Stamp { modified: Some(SystemTime::UNIX_EPOCH + modified), len: 1, ..Stamp::default() };
        Listed { target: Some(target.into()), is_symlinked: false, stamp }
    }

    fn judge(listed: &Listed, known: Option<&Listed>, done: &[&str], open: &[&str]) -> Verdict {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect();
        verdict(listed, known, &Writes { done: paths(done), open: paths(open) }, SystemTime::UNIX_EPOCH + NOW)
    }

    #[test]
    fn a_changed_file_is_ready_when_it_was_closed_renamed_or_has_lain_still() {
        let fresh = listed("/c/a.yaml", NOW);
        let settled = listed("/c/a.yaml", NOW - SETTLED);
        assert_eq!(judge(&fresh, None, &[], &[]), Verdict::NotReady);
        let quiet = listed("/c/a.yaml", NOW - QUIET);
        assert_eq!(judge(&fresh, None, &["/c/a.yaml"], &[]), Verdict::NotReady);
        assert_eq!(judge(&quiet, Some(&settled), &["/c/a.yaml"], &[]), Verdict::Ready);
        assert_eq!(judge(&quiet, None, &["/c"], &[]), Verdict::Ready);
        assert_eq!(judge(&quiet, None, &[], &[]), Verdict::NotReady);
        let empty = Listed { stamp: Stamp { len: 0, ..quiet.stamp }, ..quiet };
        assert_eq!(judge(&empty, None, &["/c"], &[]), Verdict::NotReady);
        assert_eq!(judge(&settled, Some(&fresh), &[], &[]), Verdict::Ready);
        assert_eq!(judge(&settled, Some(&settled), &[], &[]), Verdict::Unchanged);
    }

    #[test]
    fn a_file_that_somebody_writes_is_never_ready_however_long_it_lies_still() {
        let settled = listed("/c/a.yaml", NOW / 2);
        assert_eq!(judge(&settled, None, &[], &["/c/a.yaml"]), Verdict::NotReady);
    }

    #[test]
    fn a_symlink_that_leads_elsewhere_is_ready() {
        let link = |target| Listed { is_symlinked: true, ..listed(target, NOW) };
        assert_eq!(judge(&link("/c/..2/a.yaml"), Some(&link("/c/..1/a.yaml")), &[], &[]), Verdict::Ready);
        assert_eq!(judge(&link("/c/..2/a.yaml"), None, &[], &[]), Verdict::Ready);
    }

    #[test]
    fn a_time_in_the_future_does_not_hold_a_file_back() {
        assert_eq!(judge(&listed("/c/a.yaml", NOW * 2), None, &[], &[]), Verdict::Ready);
    }

    #[test]
    fn a_file_that_nobody_closed_is_read_once_it_has_lain_still_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut scanner = Scanner::new(vec![folder.path().to_owned()]);
        scanner.scan(Writes::default(), SystemTime::now());
        let seen = |scanned: Scanned| (scanned.again, format!("{:?}", scanned.scan.files.into_values().next()));
        let mut scan = |now| seen(scanner.scan(Writes::default(), now));
        fs::write(folder.path().join("a.yaml"), "yy").unwrap();
        let written = fs::metadata(folder.path().join("a.yaml")).unwrap().modified().unwrap();
        assert_eq!(scan(written), (Some(SETTLED), "Some(Same)".to_owned()));
        assert_eq!(scan(written + SETTLED), (None, "Some(Read([121, 121]))".to_owned()));
        assert_eq!(scan(written + SETTLED), (None, "Some(Same)".to_owned()));
    }

    #[test]
    fn a_file_that_was_closed_just_now_is_read_a_moment_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap().join("a.yaml");
        let mut scanner = Scanner::new(vec![folder.path().to_owned()]);
        scanner.scan(Writes::default(), SystemTime::now());
        fs::write(&path, "x").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let closed = Writes { done: [path].into(), ..Writes::default() };
        let scanned = scanner.scan(closed, written);
        assert_eq!(scanned.again, Some(QUIET));
        let scanned = scanner.scan(Writes::default(), written + QUIET);
        assert_eq!(scanned.again, None);
        assert_eq!(format!("{:?}", scanned.scan.files.into_values().next()), "Some(Read([120]))");
    }
}
