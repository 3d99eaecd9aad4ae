//! Says when a file is to be read again.
//!
//! Goes by file system events, and by a look every now and then, because events get lost. A file that was closed after
//! writing, or renamed into place, is read at once; any other change only when the file has stopped changing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::pace::Pace;

/// A file keeper that falls behind by more looks at its file anyway, so that a lost hint costs nothing.
const HINTS: usize = 1024;

/// Something happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hint {
    path: PathBuf,
    /// Its writer has finished.
    is_complete: bool,
}

/// The folders that are watched. One file system watch serves all modules.
pub struct Watcher {
    hints: broadcast::Sender<Hint>,
    /// `None` where the system gives no watch: then only the looks remain.
    watch: Mutex<Option<RecommendedWatcher>>,
}

impl Watcher {
    pub fn new() -> Self {
        let (hints, _) = broadcast::channel(HINTS);
        let sender = hints.clone();
        let watch = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            for hint in event.into_iter().flat_map(hints_of) {
                // Nobody listens while no file is wanted.
                let _listeners = sender.send(hint);
            }
        });
        let watch = watch
            .inspect_err(|error| {
                tracing::error!(%error, "no file system watch: changed modules are noticed a few seconds later");
            })
            .ok();
        Self { hints, watch: Mutex::new(watch) }
    }

    /// Watches one file from now on.
    pub fn follow(&self, path: &Path) -> Follower<'_> {
        let follower = Follower { path: path.to_owned(), hints: self.hints.subscribe(), watcher: self };
        follower.watch_folder();
        follower
    }
}

fn hints_of(event: notify::Event) -> Vec<Hint> {
    let is_complete = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => return Vec::new(),
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => true,
        _ => false,
    };
    event.paths.into_iter().map(|path| Hint { path, is_complete }).collect()
}

/// What a look at a file shows; `None` where there is none. Differs whenever the content may differ.
pub type Look = Option<Appearance>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appearance {
    modified: Option<SystemTime>,
    length: u64,
    /// Device, inode and time of the last change to it: also shows a file that was moved or linked into place.
    identity: (u64, u64, i64, i64),
}

/// Looks at a file, through symbolic links.
pub async fn look(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(Appearance {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        identity: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Waits for changes of one file.
pub struct Follower<'a> {
    path: PathBuf,
    hints: broadcast::Receiver<Hint>,
    watcher: &'a Watcher,
}

impl Follower<'_> {
    /// Returns when the file is to be read again, having last been read as `seen`.
    pub async fn changed(&mut self, seen: Look, pace: &Pace) {
        loop {
            let is_complete = self.hint(pace).await;
            let now = look(&self.path).await;
            if now == seen {
                continue;
            }
            if is_complete {
                return;
            }
            tokio::time::sleep(pace.settle).await;
            if look(&self.path).await == now {
                return;
            }
        }
    }

    /// The next reason to look: true if this file's writer has finished.
    async fn hint(&mut self, pace: &Pace) -> bool {
        tokio::select! {
            hint = self.hints.recv() => match hint {
                Ok(hint) => hint.is_complete && hint.path == self.path,
                Err(RecvError::Lagged(_)) => false,
                Err(RecvError::Closed) => std::future::pending().await,
            },
            () = tokio::time::sleep(pace.poll) => {
                // The folder may have been made, or made anew, since.
                self.watch_folder();
                false
            }
        }
    }

    fn watch_folder(&self) {
        let Some(folder) = self.path.parent() else { return };
        let mut watch = self.watcher.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = watch.as_mut().map(|watch| watch.watch(folder, RecursiveMode::NonRecursive)) {
            tracing::debug!(folder = %folder.display(), %error, "folder cannot be watched yet");
        }
    }
}
