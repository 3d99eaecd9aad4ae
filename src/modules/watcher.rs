//! Says when a file is to be read again.
//!
//! Goes by file system events, and by a look every now and then, because events get lost. A file that was closed after
//! writing, or renamed into place, is read at once; any other change only when the file has stopped changing. A folder is
//! watched as long as a file in it is followed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// One file system watch serves all modules.
pub struct Watcher {
    hints: broadcast::Sender<Hint>,
    watched: Arc<Mutex<Watched>>,
}

/// The folders that are watched. Locked while the watch is told, which waits for another thread: never by a task.
struct Watched {
    /// `None` where the system gives no watch: then only the looks remain.
    watch: Option<RecommendedWatcher>,
    folders: HashMap<PathBuf, Folder>,
}

#[derive(Default)]
struct Folder {
    /// Files in it that are followed.
    followers: usize,
    /// As it was when it was last watched. One that was made anew is another one.
    seen: Look,
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
        Self { hints, watched: Arc::new(Mutex::new(Watched { watch, folders: HashMap::new() })) }
    }

    /// Watches one file from now on.
    pub async fn follow(&self, path: &Path) -> Follower {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let (hints, watched) = (self.hints.subscribe(), Arc::clone(&self.watched));
        let seen = look(&folder).await;
        // Made where the folder is counted: who waits here no longer has it left again.
        let follow = move || {
            lock(&watched).follow(&folder, seen);
            Followed { folder, watched }
        };
        let folder = tokio::task::spawn_blocking(follow).await.expect("nothing in it panics");
        Follower { path: path.to_owned(), hints, folder, seen }
    }

    #[cfg(test)]
    pub fn folders(&self) -> usize {
        lock(&self.watched).folders.len()
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    fn follow(&mut self, folder: &Path, now: Look) {
        self.folders.entry(folder.to_owned()).or_default().followers += 1;
        self.refresh(folder, now);
    }

    /// Watches a folder that has changed since it was last watched: it may have been made anew.
    fn refresh(&mut self, folder: &Path, now: Look) {
        let (Some(watch), Some(known)) = (&mut self.watch, self.folders.get_mut(folder)) else { return };
        if now.is_none() || now == known.seen {
            return;
        }
        match watch.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => known.seen = now,
            Err(error) => tracing::debug!(folder = %folder.display(), %error, "folder cannot be watched yet"),
        }
    }

    fn leave(&mut self, folder: &Path) {
        let Some(known) = self.folders.get_mut(folder) else { return };
        known.followers -= 1;
        if known.followers == 0 {
            self.folders.remove(folder);
            let left = self.watch.as_mut().map(|watch| watch.unwatch(folder));
            tracing::trace!(folder = %folder.display(), ?left, "folder no longer watched");
        }
    }
}

fn hints_of(event: notify::Event) -> Vec<Hint> {
    let is_complete = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => return Vec::new(),
        // The file is still open; its closing will be told, where the system tells such things.
        EventKind::Modify(ModifyKind::Data(_)) if cfg!(target_os = "linux") => return Vec::new(),
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
pub struct Follower {
    path: PathBuf,
    hints: broadcast::Receiver<Hint>,
    folder: Followed,
    /// The folder, when it was last looked at.
    seen: Look,
}

/// A folder that is left when this is dropped.
struct Followed {
    folder: PathBuf,
    watched: Arc<Mutex<Watched>>,
}

impl Follower {
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
                Ok(hint) => return hint.is_complete && hint.path == self.path,
                Err(RecvError::Lagged(_)) => return false,
                Err(RecvError::Closed) => std::future::pending().await,
            },
            () = tokio::time::sleep(pace.poll) => {}
        }
        // The folder may have been made, or made anew, since.
        let now = look(&self.folder.folder).await;
        if now != self.seen {
            self.seen = now;
            let (folder, watched) = (self.folder.folder.clone(), Arc::clone(&self.folder.watched));
            let refresh = move || lock(&watched).refresh(&folder, now);
            tokio::task::spawn_blocking(refresh).await.expect("nothing in it panics");
        }
        false
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let (folder, watched) = (std::mem::take(&mut self.folder), Arc::clone(&self.watched));
        // Without a runtime everything ends, and the watch with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || lock(&watched).leave(&folder));
        }
    }
}
