//! Serves snapshots to clients over xDS: state of the world and delta, aggregated and per type.
//!
//! Comes in: a [`Snapshot`](crate::snapshot::Snapshot) per stream, from the [`Fleet`]. Goes out: discovery responses,
//! and a [`Delivery`] for each answer of a client. Invariant: knows nothing of plugins; the protocol is pure
//! ([`Session`]), sockets live in `stream` and `server`.

mod accept;
mod admission;
mod delivery;
mod delta;
mod extensions;
mod fetch;
mod fleet;
mod health;
mod held;
mod message;
mod metrics;
mod node;
mod quiet;
mod recorder;
mod schedule;
mod server;
mod session;
mod size;
mod slot;
mod sotw;
mod split;
mod staging;
mod stream;
mod subscription;
#[cfg(test)]
mod tests;
mod tls;
mod transfers;
mod type_set;
mod wire;
mod words;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use admission::Admission;

pub use accept::{Keepalive, Transport};
pub use admission::AdmissionLimits;
pub use delivery::{Delivery, Outcome, Proofs, beginning};
pub use fleet::{Connection, Fleet, Hello, Report, Service, StreamId};
pub use metrics::Metrics;
pub use node::proxy_of;
pub use recorder::{Answer, Entry, Names, Recording, Recordings, Resources, Said};
pub use session::{Limits, Protocol, Reaction, Response, Session};
pub use slot::{SnapshotReceiver, SnapshotSender, slot};
pub use tls::{Tls, TlsError, TlsFiles};
pub use transfers::Exchange;

/// How a server is run.
#[derive(Default)]
pub struct Options {
    pub limits: Limits,
    pub admission: AdmissionLimits,
    pub transport: Transport,
    /// Where the last messages of each stream are kept.
    pub recordings: Recordings,
    /// Whether streams are answered by now, for gRPC health; from the start on without.
    pub ready: Option<watch::Receiver<bool>>,
    /// What the module server tells of proxies' fetches; `None` where nothing is delivered by digest.
    pub fetches: Option<Exchange>,
}

/// Serves discovery, gRPC health and reflection until `shutdown`, then ends every stream with UNAVAILABLE.
pub async fn serve(
    listener: TcpListener,
    fleet: Arc<dyn Fleet>,
    options: Options,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let admission = Admission::new(options.admission);
    let shared = stream::Shared {
        fleet,
        proofs: Arc::new(Proofs::default()),
        limits: options.limits,
        metrics,
        admission,
        recordings: options.recordings,
        fetches: options.fetches,
    };
    accept::serve(listener, options.transport, Arc::new(shared), options.ready, shutdown).await;
}
