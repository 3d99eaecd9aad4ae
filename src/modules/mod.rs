//! Modules: from a reference in a plugin to bytes that some Envoy takes.
//!
//! Comes in: the set of wanted [`ModuleRef`]s. Goes out: the state of each, to watch. A module is fetched, verified,
//! inspected, stored and remembered, in this order, before anyone hears of it; a failure never takes away what is ready.
//!
//! ```text
//!   want ─▶ keeper (one task per reference) ─▶ board ─▶ states, notes
//!             │  http · folders + watcher         the sources
//!             └▶ library: inspect · store · memory
//! ```

mod board;
mod disk;
mod error;
mod failure;
mod folders;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
pub mod image;
pub mod inspect;
mod keeper;
mod library;
mod memory;
mod pace;
mod pin;
mod slots;
mod stats;
mod store;
mod watcher;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use board::{Notes, NotesByModule, States};
pub use error::FetchError;
pub use failure::{Failure, NextTry};
pub use inspect::{Report, Verdict, inspect, releases};
pub use stats::{FetchResult, Scheme, Stats};

use crate::model::ModuleRef;
use board::Board;
use folders::Folders;
use http::{Http, Limits};
use keeper::Keeper;
use library::Library;
use pace::Pace;
use slots::Slots;
use stats::FetchCounter;
use watcher::Watcher;

/// How often the store is tidied up.
const TIDY: Duration = Duration::from_secs(3600);

/// Where modules are kept, and which files are ours to read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--data-dir`; the store is its folder `modules`.
    pub data_dir: PathBuf,
    /// `--module-files`: below these folders `file://` is read and watched here.
    pub module_files: Vec<PathBuf>,
}

/// The room, as others see it: a cheap handle.
#[derive(Clone)]
pub struct Modules(Arc<Room>);

/// Each wanted module with the number of its wish: one that was dropped and is wanted again is a new wish, even where
/// nobody looked in between.
type Wanted = Arc<BTreeMap<ModuleRef, u64>>;

/// What all keepers share.
struct Room {
    wanted: watch::Sender<Wanted>,
    /// How often modules were asked for: numbers the next wish.
    wishes: AtomicU64,
    board: Board,
    library: Arc<Library>,
    http: Http,
    slots: Slots,
    folders: Folders,
    watcher: Watcher,
    fetches: FetchCounter,
    limits: Limits,
    pace: Pace,
}

impl Modules {
    /// Never fails: what cannot be used is logged with what to do, and modules are then kept in memory only.
    pub fn open(settings: Settings) -> Self {
        Self::with(settings, Limits::default(), Pace::default())
    }

    fn with(settings: Settings, limits: Limits, pace: Pace) -> Self {
        Self(Arc::new(Room {
            wanted: watch::Sender::default(),
            wishes: AtomicU64::default(),
            board: Board::default(),
            library: Library::open(&settings.data_dir),
            http: Http::new(limits),
            slots: Slots::default(),
            folders: Folders::new(&settings.module_files),
            watcher: Watcher::new(),
            fetches: FetchCounter::default(),
            limits,
            pace,
        }))
    }

    /// Replaces the set of wanted modules. What was wanted before goes on as it is.
    pub fn want(&self, refs: BTreeSet<ModuleRef>) {
        self.0.board.want(&refs);
        let wish = self.0.wishes.fetch_add(1, Ordering::Relaxed);
        self.0.wanted.send_modify(|wanted| {
            let wish_of = |reference: &ModuleRef| wanted.get(reference).copied().unwrap_or(wish);
            *wanted = Arc::new(
                refs.into_iter()
                    .map(|reference| {
                        let wish = wish_of(&reference);
                        (reference, wish)
                    })
                    .collect(),
            );
        });
    }

    /// The state of every wanted module.
    pub fn states(&self) -> watch::Receiver<States> {
        self.0.board.states()
    }

    /// What is to be said of modules that are ready: warnings, and why a newer one is not to be had.
    pub fn notes(&self) -> watch::Receiver<NotesByModule> {
        self.0.board.notes()
    }

    pub fn stats(&self) -> Stats {
        let store = &self.0.library.store;
        Stats { fetches: self.0.fetches.counts(), store_bytes: store.size(), store_fault: store.fault() }
    }

    /// Owns the tasks; returns after shutdown, when all of them have ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wanted = self.0.wanted.subscribe();
        wanted.mark_changed();
        let mut keepers = Keepers::default();
        // Not at once: what is wanted must have been found in the store before.
        let mut tidy = tokio::time::interval_at(Instant::now() + TIDY, TIDY);
        loop {
            tokio::select! {
                _sender_is_ours = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    keepers.want(&self.0, &wanted);
                }
                Some(ended) = keepers.tasks.join_next() => note_crash(ended),
                _ = tidy.tick() => self.0.library.tidy_up().await,
                () = shutdown.cancelled() => break,
            }
        }
        keepers.tasks.shutdown().await;
    }
}

/// The running keepers. One that has ended stays listed, so that its module is not fetched again.
#[derive(Default)]
struct Keepers {
    tasks: JoinSet<()>,
    by_reference: HashMap<ModuleRef, (u64, AbortHandle)>,
}

impl Keepers {
    fn want(&mut self, room: &Arc<Room>, wanted: &Wanted) {
        self.by_reference.retain(|reference, (wish, keeper)| {
            let is_wanted = wanted.get(reference) == Some(wish);
            if !is_wanted {
                keeper.abort();
            }
            is_wanted
        });
        for (reference, wish) in wanted.iter() {
            if !self.by_reference.contains_key(reference) {
                let keeper = Keeper { room: Arc::clone(room), reference: reference.clone() };
                self.by_reference.insert(reference.clone(), (*wish, self.tasks.spawn(keeper.keep())));
            }
        }
    }
}

fn note_crash(ended: Result<(), JoinError>) {
    if let Some(error) = ended.err().filter(JoinError::is_panic) {
        tracing::error!(%error, "a module's task crashed: this is a bug in wasmplane");
    }
}

/// Fetches one module's bytes once, for commands. No store, no inspection.
pub async fn download(url: &str) -> Result<Bytes, FetchError> {
    Http::new(Limits::default()).get(url).await
}

/// Reads one module's bytes from the local disk, for commands.
pub fn read_file(path: &Path) -> Result<Bytes, FetchError> {
    folders::read_file(path, Limits::default().size)
}

#[cfg(test)]
mod tests;
