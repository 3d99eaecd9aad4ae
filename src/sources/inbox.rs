//! What the operating system tells about files, kept until somebody asks.
//!
//! Written by the watcher's thread, emptied by [`super::Directory`]. It holds one entry at most per file of the folders
//! in scope, whose number a scan bounds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use tokio::sync::Notify;

use super::listing::Listing;
use super::scanner::Writes;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Rung when there is a reason to scan.
    pub bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    writes: Writes,
    /// See [`News::touched`].
    touched: Option<BTreeSet<PathBuf>>,
    scope: Scope,
}

/// What happened between two scans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub writes: Writes,
    /// All paths at which anything happened that is a reason to scan; `None` where that is not known, or where they are
    /// more than it is worth to look at one by one.
    pub touched: Option<BTreeSet<PathBuf>>,
}

/// With more changes at once all is looked at.
const MAX_TOUCHED: usize = 100;

/// Which events concern us.
#[derive(Debug, Default)]
struct Scope {
    folders: BTreeSet<PathBuf>,
    entries: BTreeSet<PathBuf>,
}

impl Inbox {
    /// From the watcher's thread.
    pub(super) fn put(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if self.state().take(&event) => self.bell.notify_one(),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "watching files failed");
                self.state().touched = None;
                self.bell.notify_one();
            }
        }
    }

    /// What happened since the last call; what is open stays known.
    pub(super) fn news(&self) -> News {
        let mut state = self.state();
        let open = state.writes.open.clone();
        let writes = Writes { done: std::mem::take(&mut state.writes.done), open };
        News { writes, touched: state.touched.replace(BTreeSet::new()) }
    }

    /// From now on, events concern us at these paths.
    pub(super) fn set_scope(&self, listing: &Listing) {
        let folders = listing.folders.iter().map(|folder| folder.path.clone()).collect();
        let mut state = self.state();
        state.scope = Scope { folders, entries: listing.entries.clone() };
        // Nobody would tell of the end of a write elsewhere.
        let State { writes, scope, .. } = &mut *state;
        writes.open.retain(|path| scope.holds(path));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is a reason to scan.
    fn take(&mut self, event: &Event) -> bool {
        if event.need_rescan() {
            // Events were lost, the end of a write among them perhaps.
            self.writes.open.clear();
            self.touched = None;
            return true;
        }
        let paths: Vec<_> = event.paths.iter().filter(|path| self.scope.holds(path)).collect();
        let is_reason = !paths.is_empty() && self.writes.take(event.kind, &paths);
        if is_reason && let Some(touched) = &mut self.touched {
            touched.extend(paths.into_iter().cloned());
            if touched.len() > MAX_TOUCHED {
                self.touched = None;
            }
        }
        is_reason
    }
}

impl Scope {
    fn holds(&self, path: &Path) -> bool {
        let is_within = path.parent().is_some_and(|parent| self.folders.contains(parent));
        is_within || self.folders.contains(path) || self.entries.contains(path)
    }
}

impl Writes {
    fn take(&mut self, kind: EventKind, paths: &[&PathBuf]) -> bool {
        match kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                for path in paths {
                    self.done.remove(*path);
                    self.open.insert((*path).clone());
                }
                false
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both | RenameMode::Any)) => {
                for path in paths {
                    self.open.remove(*path);
                    self.done.insert((*path).clone());
                }
                true
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                for path in paths {
                    self.open.remove(*path);
                    self.done.remove(*path);
                }
                true
            }
            // A file that was created only now is empty; a folder or a symlink may have content.
            EventKind::Create(CreateKind::File) => paths.iter().any(|path| path.is_symlink()),
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => true,
            // Among them our own reading.
            EventKind::Access(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, Flag, RemoveKind};

    use super::*;

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const RENAMED_HERE: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));

    fn inbox() -> Inbox {
        let scope = Scope { folders: [PathBuf::from("/c")].into(), entries: [PathBuf::from("/c")].into() };
        Inbox { state: Mutex::new(State { scope, ..State::default() }), ..Inbox::default() }
    }

    fn put(inbox: &Inbox, kind: EventKind, path: &str) -> bool {
        inbox.state().take(&Event::new(kind).add_path(path.into()))
    }

    fn paths(texts: &[&str]) -> BTreeSet<PathBuf> {
        texts.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_file_is_done_when_it_was_closed_and_open_again_when_it_is_written_again() {
        let inbox = inbox();
        assert!(!put(&inbox, WRITTEN, "/c/a.yaml"));
        assert_eq!(inbox.news().writes, Writes { done: paths(&[]), open: paths(&["/c/a.yaml"]) });
        assert!(put(&inbox, CLOSED, "/c/a.yaml"));
        assert!(!put(&inbox, WRITTEN, "/c/a.yaml"));
        assert!(put(&inbox, RENAMED_HERE, "/c/b.yaml"));
        assert_eq!(inbox.news().writes, Writes { done: paths(&["/c/b.yaml"]), open: paths(&["/c/a.yaml"]) });
        assert_eq!(inbox.news().writes, Writes { done: paths(&[]), open: paths(&["/c/a.yaml"]) });
    }

    #[test]
    fn what_was_touched_is_told_unless_something_was_missed_or_it_is_too_much() {
        let inbox = inbox();
        assert_eq!(inbox.news().touched, None);
        put(&inbox, WRITTEN, "/c/b.yaml");
        put(&inbox, CLOSED, "/c/a.yaml");
        put(&inbox, EventKind::Remove(RemoveKind::File), "/c/c.yaml");
        assert_eq!(inbox.news().touched, Some(paths(&["/c/a.yaml", "/c/c.yaml"])));
        assert_eq!(inbox.news().touched, Some(paths(&[])));
        put(&inbox, CLOSED, "/c/a.yaml");
        assert!(inbox.state().take(&Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(inbox.news().touched, None);
        for number in 0..=MAX_TOUCHED {
            put(&inbox, CLOSED, &format!("/c/{number}.yaml"));
        }
        assert_eq!(inbox.news().touched, None);
    }

    #[test]
    fn what_happens_beside_a_root_wakes_nobody() {
        let inbox = inbox();
        assert!(!put(&inbox, CLOSED, "/other.yaml"));
        assert!(put(&inbox, RENAMED_HERE, "/c"));
    }

    #[test]
    fn a_file_that_was_being_written_in_a_folder_that_is_gone_is_forgotten() {
        let inbox = inbox();
        put(&inbox, WRITTEN, "/c/a.yaml");
        inbox.set_scope(&Listing { entries: paths(&["/c/a.yaml"]), ..Listing::default() });
        assert_eq!(inbox.news().writes.open, paths(&["/c/a.yaml"]));
        inbox.set_scope(&Listing::default());
        assert_eq!(inbox.news().writes, Writes::default());
    }

    #[test]
    fn reading_is_no_reason_to_read() {
        let inbox = inbox();
        assert!(!put(&inbox, EventKind::Access(AccessKind::Open(AccessMode::Any)), "/c/a.yaml"));
    }
}
