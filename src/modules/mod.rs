//! Modules: from a reference in a plugin to bytes that some Envoy takes.
//!
//! Comes in: the set of wanted [`ModuleRef`]s. Goes out: the state of each, to watch. A module is fetched, verified,
//! inspected, stored and remembered, in this order, before anyone hears of it; a failure never takes away what is ready.
//!
//! ```text
//!   want ─▶ keeper (one task per reference) ─▶ board ─▶ states, notes
//!             │  http · pull + registry · folders + watcher     the sources; transport and spool below them
//!             └▶ library: image · inspect · store · memory
//! ```

mod board;
mod error;
mod failure;
mod folders;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gates;
mod http;
pub mod image;
pub mod inspect;
mod keeper;
mod library;
mod memory;
mod once;
mod pace;
mod pin;
mod pull;
mod registry;
mod serve;
mod slots;
mod spool;
mod stats;
mod store;
mod together;
mod transport;
mod watcher;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use board::{Notes, NotesByModule, States};
pub use error::FetchError;
pub use failure::{Failure, NextTry};
pub use image::{Layout, ManifestDefaults, RuntimeConfig};
pub use inspect::{Report, Verdict, inspect, releases};
pub use once::{Fetched, Progress, Pushed, Upload, Watch, fetch_once, push};
pub use registry::{PullError, Secrets};
pub use serve::{FetchListener, serve};
pub use stats::{FailureReason, FetchResult, Scheme, Served, Stats};
pub use transport::{
    Certificate, InvalidNetwork, Network, Rules as AddressRules, Settings as NetworkSettings, unusable_proxies,
};

use crate::model::{Digest, ModuleRef};
use board::Board;
use folders::Folders;
use gates::Gates;
use keeper::Keeper;
use library::Library;
use pace::Pace;
use pull::is_asked_always;
use slots::Slots;
use spool::Spools;
use stats::FetchCounter;
use transport::{Limits, Transport};
use watcher::Watcher;

/// How often the store is tidied up.
const TIDY: Duration = Duration::from_secs(3600);

/// Where modules are kept, where they may come from, and which files are ours to read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--data-dir`; the store is its folder `modules`.
    pub data_dir: PathBuf,
    /// `--module-files`: below these folders `file://` is read and watched here.
    pub module_files: Vec<PathBuf>,
    /// `--module-store-max-bytes`: what nobody uses goes when the store takes more.
    pub store_max_bytes: u64,
    pub network: NetworkSettings,
    /// `--tag-refresh`.
    pub tag_refresh: Option<TagRefresh>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::default(),
            module_files: Vec::new(),
            store_max_bytes: STORE_MAX_BYTES,
            network: NetworkSettings::default(),
            tag_refresh: None,
        }
    }
}

/// How tags are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRefresh {
    pub every: Duration,
    /// Whether what a tag means by now is rolled out, or only reported.
    pub rolls_out: bool,
}

/// Room for hundreds of modules.
pub const STORE_MAX_BYTES: u64 = 4 << 30;

/// The room, as others see it: a cheap handle.
#[derive(Clone)]
pub struct Modules(Arc<Room>);

type Wanted = Arc<BTreeMap<ModuleRef, Wish>>;

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    /// One that was dropped and is wanted again is a new wish, even where nobody looked in between.
    number: u64,
    /// When a plugin that wants it was last edited: what failed is then tried again at once.
    edit: u64,
}

/// What all keepers share.
struct Room {
    wanted: watch::Sender<Wanted>,
    /// How often modules were asked for: numbers the next wish.
    wishes: AtomicU64,
    board: Board,
    library: Arc<Library>,
    transport: Arc<Transport>,
    registries: registry::Client,
    secrets: watch::Sender<Secrets>,
    tag_refresh: Option<TagRefresh>,
    spools: Spools,
    gates: Gates,
    slots: Slots,
    folders: Folders,
    watcher: Watcher,
    fetches: FetchCounter,
    served: Mutex<Served>,
    limits: Limits,
    pace: Pace,
}

impl Modules {
    /// Never fails: what cannot be used is logged with what to do, and modules are then kept in memory only.
    pub fn open(settings: Settings) -> Self {
        Self::with(settings, Limits::default(), Pace::default())
    }

    fn with(settings: Settings, limits: Limits, pace: Pace) -> Self {
        let transport = Arc::new(Transport::new(settings.network, limits));
        Self(Arc::new(Room {
            wanted: watch::Sender::default(),
            wishes: AtomicU64::default(),
            board: Board::default(),
            library: Library::open(&settings.data_dir, settings.store_max_bytes),
            registries: registry::Client::new(Arc::clone(&transport)),
            transport,
            secrets: watch::Sender::default(),
            tag_refresh: settings.tag_refresh,
            spools: Spools::beside_store(&settings.data_dir),
            gates: Gates::default(),
            slots: Slots::default(),
            folders: Folders::new(&settings.module_files),
            watcher: Watcher::new(),
            fetches: FetchCounter::default(),
            served: Mutex::default(),
            limits,
            pace,
        }))
    }

    /// Replaces the set of wanted modules. What was wanted before goes on as it is, but for those of `changed` plugins
    /// that have failed, or whose policy is Always: they are asked for again.
    pub fn want(&self, refs: BTreeSet<ModuleRef>, changed: &BTreeSet<ModuleRef>) {
        self.0.board.want(&refs);
        self.0.library.want(&refs);
        let wish = self.0.wishes.fetch_add(1, Ordering::Relaxed);
        self.0.wanted.send_modify(|wanted| {
            let wish_of = |reference: &ModuleRef| match wanted.get(reference) {
                Some(_) if changed.contains(reference) && is_asked_always(reference) => {
                    Wish { number: wish, edit: wish }
                }
                Some(before) if changed.contains(reference) => Wish { edit: wish, ..*before },
                Some(before) => *before,
                None => Wish { number: wish, edit: wish },
            };
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

    /// Replaces all pull secrets. What failed for want of one that has changed is tried again at once.
    pub fn know(&self, secrets: Secrets) {
        self.0.secrets.send_if_modified(|known| {
            let is_news = *known != secrets;
            *known = secrets;
            is_news
        });
    }

    /// The bytes of a module that some plugin has.
    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.0.library.held(digest).map(|checked| checked.module.bytes.clone())
    }

    fn count_served(&self, count: impl FnOnce(&mut Served)) {
        count(&mut self.0.served.lock().unwrap_or_else(PoisonError::into_inner));
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
        Stats {
            fetches: self.0.fetches.fetches(),
            fetched_bytes: self.0.fetches.fetched_bytes(),
            failures: self.0.fetches.failures(),
            store_bytes: store.size(),
            store_hits: store.hits(),
            store_removed: store.removed(),
            store_fault: store.fault(),
            served: *self.0.served.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Owns the tasks; returns after shutdown, when all of them have ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wanted = self.0.wanted.subscribe();
        wanted.mark_changed();
        let mut keepers = Keepers::default();
        keepers.tasks.spawn(self.0.watcher.clone().look_around(self.0.pace));
        // Not at once: what is wanted must have been found in the store before.
        let mut tidy = tokio::time::interval_at(Instant::now() + TIDY, TIDY);
        loop {
            tokio::select! {
                _sender_is_ours = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    keepers.want(&self.0, &wanted);
                }
                Some(ended) = keepers.tasks.join_next() => note_crash(ended),
                // Aside: what is wanted meanwhile does not wait for the disk.
                _ = tidy.tick() => {
                    let library = Arc::clone(&self.0.library);
                    keepers.tasks.spawn(async move { library.tidy_up().await });
                }
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
            let is_wanted = wanted.get(reference).is_some_and(|wanted| wanted.number == *wish);
            if !is_wanted {
                keeper.abort();
            }
            is_wanted
        });
        for (reference, wish) in wanted.iter() {
            if !self.by_reference.contains_key(reference) {
                let keeper = Keeper::new(room, reference);
                self.by_reference.insert(reference.clone(), (wish.number, self.tasks.spawn(keeper.keep())));
            }
        }
    }
}

fn note_crash(ended: Result<(), JoinError>) {
    if let Some(error) = ended.err().filter(JoinError::is_panic) {
        tracing::error!(%error, "a module's task crashed: this is a bug in wasmplane");
    }
}

#[cfg(test)]
mod tests;
