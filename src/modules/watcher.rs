//! Says when a file is to be read again.
//!
//! Goes by file system events, and by a look every now and then, because events get lost. A file that was closed after
//! writing, or renamed into place, is read at once; any other change only when the file has stopped changing. A folder is
//! watched as long as a file in it is followed.

mod bells;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::pace::Pace;
use bells::{Bell, Bells};

/// One file system watch serves all modules. A cheap handle.
#[derive(Clone)]
pub struct Watcher {
    bells: Arc<Bells>,
    watched: Arc<Mutex<Watched>>,
}

/// The folders that are watched. Locked while the watch is told, which waits for another thread: never by a task, and
/// never by that thread.
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
        let bells = Arc::new(Bells::default());
        let rung = Arc::clone(&bells);
        let watch = notify::recommended_watcher(move |event| rung.put(event));
        let watch = watch
            .inspect_err(|error| {
                tracing::error!(%error, "no file system watch: changed modules are noticed a few seconds later");
            })
            .ok();
        Self { bells, watched: Arc::new(Mutex::new(Watched { watch, folders: HashMap::new() })) }
    }

    /// Watches one file from now on.
    pub async fn follow(&self, path: &Path) -> Follower {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let watcher = self.clone();
        let path = path.to_owned();
        // Made where the folder is counted: who waits here no longer has it left again.
        let follow = move || {
            let (bell, now) = (watcher.bells.hang(&folder, &path), look_now(&folder));
            lock(&watcher.watched).follow(&folder, now);
            Follower { bell, folder, watcher }
        };
        tokio::task::spawn_blocking(follow).await.expect("nothing in it panics")
    }

    /// Looks at all that is followed, every now and then and where something was missed, for as long as it is polled.
    pub async fn look_around(self, pace: Pace) {
        loop {
            tokio::select! {
                () = self.bells.missed.notified() => {}
                () = tokio::time::sleep(pace.poll) => {}
            }
            let watcher = self.clone();
            tokio::task::spawn_blocking(move || watcher.look_at_all()).await.expect("nothing in it panics");
        }
    }

    /// Blocks.
    fn look_at_all(&self) {
        for (folder, bells) in self.bells.all() {
            // It may have been made, or made anew, since.
            let now = look_now(&folder);
            lock(&self.watched).refresh(&folder, now);
            bells.iter().for_each(|bell| bell.compare(look_now(&bell.path)));
        }
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

/// What a look at a file shows; `None` where there is none. Differs whenever the content may differ.
pub type Look = Option<Appearance>;

#[derive(Clone, Copy, Debug)]
pub struct Appearance {
    modified: Option<SystemTime>,
    length: u64,
    /// Device, inode and time of the last change to it: also shows a file that was moved or linked into place.
    identity: (u64, u64, i64, i64),
    /// A symbolic link, or one of several names of the file: it changes without an event under this name.
    is_linked: bool,
    /// It had changed just before: another change may bear the same time.
    is_fresh: bool,
}

/// How coarse the times of files are, and more.
const FRESH: Duration = Duration::from_millis(50);

impl PartialEq for Appearance {
    fn eq(&self, other: &Self) -> bool {
        (self.modified, self.length, self.identity) == (other.modified, other.length, other.identity)
    }
}

/// Looks at a file, through symbolic links.
pub async fn look(path: &Path) -> Look {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || look_now(&path)).await.expect("nothing in it panics")
}

/// Blocks.
fn look_now(path: &Path) -> Look {
    use std::os::unix::fs::MetadataExt as _;
    let entry = fs::symlink_metadata(path).ok()?;
    let is_symlink = entry.is_symlink();
    // A link that leads nowhere is looked at itself.
    let metadata = if is_symlink { fs::metadata(path).unwrap_or(entry) } else { entry };
    let changed = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
    Some(Appearance {
        is_fresh: age.is_ok_and(|age| age < FRESH),
        modified: metadata.modified().ok(),
        length: metadata.len(),
        identity: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        is_linked: is_symlink || metadata.nlink() > 1,
    })
}

/// Waits for changes of one file. The folder is left when this is dropped.
pub struct Follower {
    bell: Arc<Bell>,
    folder: PathBuf,
    watcher: Watcher,
}

impl Follower {
    /// Returns when the file is to be read again, having last been read as `seen`.
    pub async fn changed(&self, seen: Look, pace: &Pace) {
        self.bell.saw(seen);
        let may_look_the_same = seen.is_some_and(|seen| seen.is_fresh);
        loop {
            let is_complete = self.bell.rung().await;
            let now = look(&self.bell.path).await;
            if is_complete && (now != seen || may_look_the_same) {
                return;
            }
            if now == seen {
                continue;
            }
            tokio::time::sleep(pace.settle).await;
            if look(&self.bell.path).await == now {
                return;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let (folder, watcher) = (std::mem::take(&mut self.folder), self.watcher.clone());
        watcher.bells.take_down(&folder, &self.bell);
        // Without a runtime everything ends, and the watch with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || lock(&watcher.watched).leave(&folder));
        }
    }
}
