//! Joins the rooms; the only place that spawns long tasks.
//!
//! Comes in: [`Settings`]. Goes out: a running control plane. Invariant: one task, the reconciler, writes all state.

mod admin;
mod csds;
mod delivery;
mod diff;
mod explain;
mod fleet;
mod keepsakes;
mod kept;
mod lock;
mod memory;
mod messages;
mod metrics;
mod module_view;
mod node_matcher;
mod plugin_fields;
mod proxies;
mod pushes;
mod reconcile;
mod refusals;
mod scribe;
mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::delivery::DeliveryMode;
pub use self::diff::{Subject, diff};
pub use self::explain::{fault, say_once, view as view_explanation, warning};

use self::admin::{AdminState, Gauges, Query};
use self::delivery::Deliveries;
use self::fleet::{FleetDoor, FleetEvents};
use self::kept::Kept;
use self::reconcile::Reconciler;
use self::tasks::Tasks;
use self::view::Summaries;
use self::watch::Rollouts;
use crate::model::Digest;
use crate::modules::{self, Modules};
use crate::protobuf::admin::ListPluginsResponse;
use crate::sources::{self, Directory, Loaded};
use crate::xds;

/// What a control plane is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Files and folders of manifests.
    pub config: Vec<PathBuf>,
    pub root_namespace: String,
    pub xds_listen: SocketAddr,
    pub modules_listen: SocketAddr,
    /// What proxies are told of the module server; derived from where it listens without.
    pub modules_url: Option<String>,
    pub module_delivery: DeliveryMode,
    pub admin_listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Folders in which `file://` is read by the control plane itself.
    pub module_files: Vec<PathBuf>,
    pub module_store_max_bytes: u64,
    /// Where modules may come from.
    pub network: modules::NetworkSettings,
    pub tag_refresh: Option<modules::TagRefresh>,
    pub max_response_bytes: usize,
    /// Of the xDS port; plain text without.
    pub tls: Option<xds::TlsFiles>,
    pub admission: xds::AdmissionLimits,
    /// Of the connections of proxies; unlimited without.
    pub max_connection_age: Option<Duration>,
}

/// Runs until `shutdown`. An error means that it could not start, as an address or the data folder is taken or a
/// certificate will not do, or that a part of it ended.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tls = settings.tls.map(xds::Tls::open).transpose()?;
    // Before anything listens that could be spoken to.
    deliveries(settings.module_delivery, settings.modules_listen, settings.modules_url.as_deref())?;
    let xds_listener = listen("xds", settings.xds_listen)?;
    let (module_listener, deliveries) =
        open_modules(settings.module_delivery, settings.modules_listen, settings.modules_url.as_deref())?;
    let admin_listener = listen("admin", settings.admin_listen)?;
    let _lock = lock::lock(&settings.data_dir)?;

    let (scribe, writer) = scribe::scribe();
    let (memory, last_good) = memory::Memory::open(&settings.data_dir, &scribe);
    if let Some(path) = sources::missing(&settings.config, &last_good) {
        bail!("--config {}: no such file or folder, and nothing is remembered of it", path.display());
    }
    let directory = Directory::open(settings.config, &last_good);
    let modules = Modules::open(modules::Settings {
        data_dir: settings.data_dir.clone(),
        module_files: settings.module_files,
        store_max_bytes: settings.module_store_max_bytes,
        network: settings.network,
        tag_refresh: settings.tag_refresh,
    });
    let pushes = pushes::Pushes::default();
    let xds_metrics = xds::Metrics::default();
    let metrics = Arc::new(metrics::Metrics::new(&xds_metrics, &modules, &pushes));
    let refusals = refusals::Refusals::open(&settings.data_dir, &scribe);
    // From here on, the writer ends with the reconciler.
    drop(scribe);
    let reconciler = Reconciler::new(settings.root_namespace, refusals, memory, pushes, deliveries);

    let (door, events) = FleetDoor::new();
    let (queries, asked) = mpsc::channel(admin::QUERIES);
    let (changes, changed) = tokio::sync::watch::channel(0);
    let (ready, is_ready) = tokio::sync::watch::channel(false);
    let recordings = xds::Recordings::default();
    let (rollouts, serves) = (Rollouts::new(), is_ready.clone());
    let following = rollouts.clone().run(queries.clone(), changed, shutdown.clone());
    let state = AdminState {
        queries,
        rollouts,
        ready: is_ready,
        metrics,
        recordings: recordings.clone(),
        shutdown: shutdown.clone(),
    };
    let options = xds::Options {
        limits: xds::Limits { max_response_bytes: settings.max_response_bytes, ..xds::Limits::default() },
        admission: settings.admission,
        transport: xds::Transport { tls, max_connection_age: settings.max_connection_age, ..xds::Transport::default() },
        recordings,
        ready: Some(serves),
        fetches: module_listener.is_some().then(xds::Exchange::default),
    };

    let mut tasks = Tasks::new(shutdown.clone());
    let inputs = Inputs { directory: directory.watch(), modules: modules.clone(), events, asked };
    tasks.spawn("configuration", directory.run(shutdown.clone()));
    if let Some((listener, exchange)) = module_listener.zip(options.fetches.clone()) {
        let heard_by = Arc::new(Heard(exchange));
        tasks.spawn("module port", modules::serve(listener, modules.clone(), heard_by, shutdown.clone()));
    }
    tasks.spawn("modules", modules.run(shutdown.clone()));
    tasks.spawn("memory", writer.run());
    tasks.spawn("reconciler", reconcile(reconciler, inputs, changes, ready, shutdown.clone()));
    tasks.spawn("rollout", following);
    tasks.spawn("xDS port", xds::serve(xds_listener, Arc::new(door), options, xds_metrics, shutdown));
    tasks.spawn_fallible("admin port", async { Ok(admin::serve(admin_listener, state).await?) });
    tasks.wait().await
}

/// The module server's socket, where modules are delivered by digest, and to whom.
fn open_modules(
    mode: DeliveryMode,
    listen_at: SocketAddr,
    url: Option<&str>,
) -> anyhow::Result<(Option<TcpListener>, Deliveries)> {
    let listener = (mode != DeliveryMode::Inline).then(|| listen("modules", listen_at)).transpose()?;
    let address = listener.as_ref().map_or(Ok(listen_at), TcpListener::local_addr)?;
    Ok((listener, deliveries(mode, address, url)?))
}

fn deliveries(mode: DeliveryMode, listen_at: SocketAddr, url: Option<&str>) -> anyhow::Result<Deliveries> {
    Deliveries::new(mode, listen_at, url).with_context(|| format!("--modules-url {}", url.unwrap_or_default()))
}

/// Passes what proxies fetch on to their streams.
struct Heard(xds::Exchange);

impl modules::FetchListener for Heard {
    fn began(&self, token: u64, digest: Digest) {
        self.0.began(token, digest);
    }

    fn ended(&self, token: u64, digest: Digest, is_whole: bool) {
        self.0.ended(token, digest, is_whole);
    }
}

/// Connections that may wait to be accepted. A fleet that is cut off comes back at once, and one that finds no room
/// tries again after a second; the kernel may cap it lower (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

fn listen(service: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = bind(address)
        .with_context(|| format!("--{service}-listen {address}: cannot listen there, choose another address"))?;
    tracing::info!(service, address = %listener.local_addr()?, "listening");
    Ok(listener)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does, so that a restart finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Modules that come one by one are looked at together with all others: for a tenth of the time, however many they are.
const MODULES_REST: u32 = 9;

/// Everything that the reconciler hears of.
struct Inputs {
    directory: Receiver<Arc<Loaded>>,
    modules: Modules,
    events: FleetEvents,
    asked: mpsc::Receiver<Query>,
}

async fn reconcile(
    mut reconciler: Reconciler,
    mut inputs: Inputs,
    changes: Sender<u64>,
    ready: Sender<bool>,
    shutdown: CancellationToken,
) {
    let (mut states, mut notes) = (inputs.modules.states(), inputs.modules.notes());
    let mut written = reconciler.memory.written();
    inputs.directory.mark_changed();
    let mut modules_from = Instant::now();
    let mut summaries = Kept::default();
    loop {
        // Streams that are ready go first: the answers of a fleet are taken in by the hundred and not one by one.
        tokio::task::yield_now().await;
        let deadline = reconciler.next_deadline();
        tokio::select! {
            () = shutdown.cancelled() => return,
            batch = inputs.events.next() => {
                batch.arrivals.into_iter().for_each(|arrival| reconciler.on_arrival(arrival));
                batch.reports.into_iter().for_each(|report| reconciler.on_report(report));
            }
            Ok(()) = inputs.directory.changed() => {
                let loaded = inputs.directory.borrow_and_update().clone();
                reconciler.pushes.begin();
                // Before the plugins that name them.
                inputs.modules.know(Arc::new(loaded.pull_secrets()));
                let (wanted, changed) = reconciler.on_loaded(loaded);
                inputs.modules.want(wanted, &changed);
            }
            Ok(()) = async { tokio::time::sleep_until(modules_from).await; states.changed().await } => {
                let begun = Instant::now();
                let states = states.borrow_and_update().clone();
                reconciler.pushes.begin();
                reconciler.on_modules(states, notes.borrow_and_update().clone());
                modules_from = Instant::now() + begun.elapsed() * MODULES_REST;
            }
            Ok(()) = async { tokio::time::sleep_until(modules_from).await; notes.changed().await } => {
                let begun = Instant::now();
                reconciler.on_notes(notes.borrow_and_update().clone());
                modules_from = Instant::now() + begun.elapsed() * MODULES_REST;
            }
            Some(query) = inputs.asked.recv() => {
                answer(&reconciler, &inputs.modules, &mut summaries, query);
                continue;
            }
            Ok(()) = written.changed() => {}
            () = sleep_until(deadline) => {}
        }
        reconciler.flush();
        changes.send_modify(|count| *count += 1);
        ready.send_if_modified(|ready| std::mem::replace(ready, reconciler.is_open()) != reconciler.is_open());
    }
}

fn answer(reconciler: &Reconciler, modules: &Modules, summaries: &mut Kept<Summaries>, query: Query) {
    let summarize = || reconciler.summarize();
    let list = |summaries: &Summaries| ListPluginsResponse {
        plugins: reconciler.list_plugins(summaries),
        faults: reconciler.list_faults(),
        module_store_fault: modules.stats().store_fault.unwrap_or_default(),
    };
    // A client that has gone does not want its answer.
    match query {
        Query::Proxies(sender) => drop(sender.send(reconciler.list_proxies())),
        Query::Plugins(sender) => drop(sender.send(list(&summaries.get(summarize)))),
        Query::Rollout(sender) => drop(sender.send(list(&summaries.renew(summarize)))),
        Query::Subjects(sender) => drop(sender.send(reconciler.subjects())),
        Query::Explain(id, sender) => drop(sender.send(reconciler.question(&id))),
        Query::Matching(matchers, sender) => drop(sender.send(reconciler.matching(&matchers))),
        Query::Resources(key, sender) => drop(sender.send(reconciler.resources_of(key))),
        Query::Streams(id, sender) => drop(sender.send(reconciler.streams_of(&id))),
        Query::Metrics(sender) => {
            let plugins = reconciler.count_states(&summaries.get(summarize));
            let gauges = Gauges { plugins, config_errors: reconciler.config_errors() };
            drop(sender.send(gauges));
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
