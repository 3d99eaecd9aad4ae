//! Joins the rooms; the only place that spawns long tasks.
//!
//! Comes in: [`Settings`]. Goes out: a running control plane. Invariant: one task, the reconciler, writes all state.

mod admin;
mod diff;
mod explain;
mod fleet;
mod keepsakes;
mod memory;
mod messages;
mod metrics;
mod module_view;
mod plugin_fields;
mod proxies;
mod pushes;
mod reconcile;
mod refusals;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::diff::{Subject, diff};
pub use self::explain::{fault, view as view_explanation, warning};

use self::admin::{AdminState, Gauges, Query};
use self::fleet::{FleetDoor, FleetEvents};
use self::reconcile::Reconciler;
use crate::modules::{self, Modules};
use crate::protobuf::admin::ListPluginsResponse;
use crate::sources::{Directory, Loaded};
use crate::xds;

/// What a control plane is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Files and folders of manifests.
    pub config: Vec<PathBuf>,
    pub root_namespace: String,
    pub xds_listen: SocketAddr,
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

/// Runs until `shutdown`. An error means that it could not start: an address is taken, a certificate will not do.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tls = settings.tls.map(xds::Tls::open).transpose()?;
    let xds_listener = listen("xds", settings.xds_listen)?;
    let admin_listener = listen("admin", settings.admin_listen)?;

    let (memory, last_good) = memory::Memory::open(&settings.data_dir);
    let directory = Directory::open_with(settings.config, &last_good);
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
    let refusals = refusals::Refusals::open(&settings.data_dir);
    let reconciler = Reconciler::new(settings.root_namespace, refusals, memory, pushes);

    let (door, events) = FleetDoor::new();
    let (queries, asked) = mpsc::channel(admin::QUERIES);
    let (changes, changed) = watch::channel(0);
    let (ready, is_ready) = watch::channel(false);
    let recordings = xds::Recordings::default();
    let state = AdminState {
        queries,
        changes: changed,
        ready: is_ready,
        metrics,
        recordings: recordings.clone(),
        shutdown: shutdown.clone(),
    };
    let options = xds::Options {
        limits: xds::Limits { max_response_bytes: settings.max_response_bytes, ..xds::Limits::default() },
        admission: settings.admission,
        transport: xds::Transport { tls, max_connection_age: settings.max_connection_age },
        recordings,
    };

    let tasks = TaskTracker::new();
    let inputs = Inputs { directory: directory.watch(), modules: modules.clone(), events, asked };
    tasks.spawn(directory.run(shutdown.clone()));
    tasks.spawn(modules.run(shutdown.clone()));
    tasks.spawn(reconcile(reconciler, inputs, changes, ready, shutdown.clone()));
    tasks.spawn(xds::serve(xds_listener, Arc::new(door), options, xds_metrics, shutdown.clone()));
    tasks.spawn(async move {
        if let Err(error) = admin::serve(admin_listener, state).await {
            tracing::error!(%error, "admin port ended");
        }
    });
    tasks.close();
    tasks.wait().await;
    Ok(())
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

/// Everything that the reconciler hears of.
struct Inputs {
    directory: watch::Receiver<Arc<Loaded>>,
    modules: Modules,
    events: FleetEvents,
    asked: mpsc::Receiver<Query>,
}

/// Reports taken in at one go before proxies are looked at again.
const REPORTS_AT_ONCE: usize = 1024;

async fn reconcile(
    mut reconciler: Reconciler,
    mut inputs: Inputs,
    changes: watch::Sender<u64>,
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let (mut states, mut notes) = (inputs.modules.states(), inputs.modules.notes());
    inputs.directory.mark_changed();
    let mut reports = Vec::with_capacity(REPORTS_AT_ONCE);
    loop {
        let deadline = reconciler.next_deadline();
        tokio::select! {
            // In order: an arrival is always taken in before its stream's reports.
            biased;
            () = shutdown.cancelled() => return,
            Some(arrival) = inputs.events.arrivals.recv() => {
                reconciler.on_arrival(arrival);
                while let Ok(arrival) = inputs.events.arrivals.try_recv() {
                    reconciler.on_arrival(arrival);
                }
            }
            Ok(()) = inputs.directory.changed() => {
                let loaded = inputs.directory.borrow_and_update().clone();
                reconciler.pushes.begin();
                // Before the plugins that name them.
                inputs.modules.know(Arc::new(loaded.secrets.clone()));
                let (wanted, changed) = reconciler.on_loaded(loaded);
                inputs.modules.want(wanted, &changed);
            }
            Ok(()) = states.changed() => {
                let states = states.borrow_and_update().clone();
                reconciler.pushes.begin();
                reconciler.on_modules(states, notes.borrow_and_update().clone());
            }
            Ok(()) = notes.changed() => {
                reconciler.notes = notes.borrow_and_update().clone();
            }
            _ = inputs.events.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => {
                for report in reports.drain(..) {
                    reconciler.on_report(report);
                }
            }
            Some(query) = inputs.asked.recv() => {
                answer(&reconciler, &inputs.modules, query);
                continue;
            }
            () = sleep_until(deadline) => {}
        }
        reconciler.flush();
        changes.send_modify(|count| *count += 1);
        ready.send_if_modified(|ready| std::mem::replace(ready, reconciler.is_open()) != reconciler.is_open());
    }
}

fn answer(reconciler: &Reconciler, modules: &Modules, query: Query) {
    // A client that has gone does not want its answer.
    match query {
        Query::Proxies(sender) => drop(sender.send(reconciler.list_proxies())),
        Query::Plugins(sender) => {
            let listed = ListPluginsResponse {
                plugins: reconciler.list_plugins(),
                faults: reconciler.list_faults(),
                module_store_fault: modules.stats().store_fault.unwrap_or_default(),
            };
            drop(sender.send(listed));
        }
        Query::Subjects(sender) => drop(sender.send(reconciler.subjects())),
        Query::Explain(id, sender) => drop(sender.send(reconciler.explain_proxy(&id))),
        Query::Streams(id, sender) => drop(sender.send(reconciler.streams_of(&id))),
        Query::Metrics(sender) => {
            let gauges = Gauges { plugins: reconciler.count_states(), config_errors: reconciler.config_errors() };
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
