//! Files and folders, watched: every change of them becomes a new [`Loaded`].
//!
//! inotify says when to look; a slow poll looks where it says nothing. What a look means is told by `scanner` (which
//! files are ready) and `memory` (what they mean beside what they said before).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::listing::Folder;
use super::memory::Memory;
use super::scanner::{Scanned, Scanner};
use super::{Finding, LastGood, Loaded};

/// Between the first event and the look, so that several files written together are seen together.
const COALESCE: Duration = Duration::from_millis(20);
/// Between looks at everything.
const POLL: Duration = Duration::from_secs(5);
/// While folders appear as fast as they are watched, one look is followed by another; so many times at most.
const MAX_LOOKS: usize = 5;

/// The source that `--config` names: opened once, then run until shutdown.
pub struct Directory {
    eye: Eye,
    inbox: Arc<Inbox>,
    published: watch::Sender<Arc<Loaded>>,
}

/// All that a look needs. Lives on a blocking thread while it looks.
struct Eye {
    scanner: Scanner,
    memory: Memory,
    inbox: Arc<Inbox>,
    /// Absent where the system has none left: then there is only the poll.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<Folder>,
    /// When to look again although nothing happened.
    again: Option<Duration>,
    /// When to look at everything, whatever events say.
    whole_at: Instant,
}

impl Directory {
    /// Reads `paths` and begins to watch them, with the content that the files had before a restart: what is broken by
    /// now keeps it, what is gone by now loses it. Blocks on the disk.
    pub fn open(paths: Vec<PathBuf>, last_good: &LastGood) -> Self {
        let inbox = Arc::new(Inbox::default());
        let mut eye = Eye {
            scanner: Scanner::new(paths),
            memory: Memory::recall(last_good),
            inbox: inbox.clone(),
            watcher: watcher(&inbox),
            watched: BTreeSet::new(),
            again: None,
            whole_at: Instant::now(),
        };
        let loaded = eye.look();
        log_news(&Loaded::default(), &loaded);
        Self { eye, inbox, published: watch::Sender::new(loaded) }
    }

    /// The newest state, the first one included; changes only when something in it does.
    pub fn watch(&self) -> watch::Receiver<Arc<Loaded>> {
        self.published.subscribe()
    }

    /// Publishes every change until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { mut eye, inbox, published } = self;
        loop {
            // A file that was not ready needs another look when it has lain still for long enough.
            let until_whole = eye.whole_at.saturating_duration_since(Instant::now());
            let pause = eye.again.map_or(until_whole, |again| again.min(until_whole));
            tokio::select! {
                () = inbox.bell.notified() => sleep(COALESCE).await,
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            let looked = spawn_blocking(move || {
                let loaded = eye.look();
                (eye, loaded)
            });
            let loaded = match looked.await {
                Ok((returned, loaded)) => {
                    eye = returned;
                    loaded
                }
                Err(error) => return tracing::error!(%error, "reading the configuration ended"),
            };
            publish(&published, loaded);
        }
    }
}

fn publish(published: &watch::Sender<Arc<Loaded>>, loaded: Arc<Loaded>) {
    published.send_if_modified(|current| {
        let is_news = !Arc::ptr_eq(current, &loaded);
        if is_news {
            log_news(current, &loaded);
            *current = loaded;
        }
        is_news
    });
}

fn log_news(before: &Loaded, now: &Loaded) {
    for Finding { file, line, resource, field, reason, .. } in now.faults.iter().filter(|f| !before.faults.contains(f))
    {
        tracing::warn!(file = %file.display(), line, resource, field, reason, "configuration refused");
    }
    let warnings = now.warnings.iter().filter(|f| !before.warnings.contains(f));
    for Finding { file, line, resource, field, reason, .. } in warnings {
        tracing::warn!(file = %file.display(), line, resource, field, reason, "configuration accepted with a warning");
    }
}

fn watcher(inbox: &Arc<Inbox>) -> Option<RecommendedWatcher> {
    let inbox = inbox.clone();
    notify::recommended_watcher(move |event| inbox.put(event))
        .inspect_err(|error| tracing::warn!(%error, "no file events: changes are seen by polling"))
        .ok()
}

/// The first of `paths` that is not there and of which nothing is remembered: more likely mistyped than gone.
pub fn missing<'p>(paths: &'p [PathBuf], last_good: &LastGood) -> Option<&'p Path> {
    let is_gone = |path: &Path| fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let is_remembered = |path: &Path| last_good.keys().any(|file| file.starts_with(path));
    paths.iter().map(PathBuf::as_path).find(|path| is_gone(path) && !is_remembered(path))
}

impl Eye {
    fn look(&mut self) -> Arc<Loaded> {
        let news = self.inbox.news();
        if Instant::now() < self.whole_at
            && let Some(Scanned { scan: Some(scan), again }) = self.scanner.glance(&news, SystemTime::now())
        {
            self.again = again;
            return self.memory.update(scan);
        }
        let mut writes = news.writes;
        for _ in 0..MAX_LOOKS {
            let Scanned { scan, again } = self.scanner.scan(writes, SystemTime::now());
            (self.again, self.whole_at) = (again, Instant::now() + POLL);
            let Some(scan) = scan else { break };
            let has_new_folders = self.watch();
            self.memory.update(scan);
            // What happened in a folder before it was watched is only seen by looking again.
            if !has_new_folders {
                break;
            }
            writes = self.inbox.news().writes;
        }
        self.memory.loaded()
    }

    /// Watches what was listed, and nothing else. Whether there is anything new in it.
    fn watch(&mut self) -> bool {
        let Some(listing) = self.scanner.listing() else { return false };
        self.inbox.set_scope(listing);
        let wanted: BTreeSet<_> = listing.folders.union(&listing.parents).cloned().collect();
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.watched.difference(&wanted) {
            // The kernel has mostly forgotten it by itself, as the folder is gone.
            let _ = watcher.unwatch(&gone.path);
        }
        let mut is_new = false;
        for new in wanted.difference(&self.watched) {
            match watcher.watch(&new.path, RecursiveMode::NonRecursive) {
                Ok(()) => is_new = true,
                Err(error) => {
                    tracing::warn!(folder = %new.path.display(), %error, "no file events from this folder");
                }
            }
        }
        self.watched = wanted;
        is_new
    }
}
