//! Serves snapshots to clients over xDS: state of the world and delta, aggregated and per type.
//!
//! Comes in: a [`Snapshot`](crate::snapshot::Snapshot) per stream, from the [`Fleet`]. Goes out: discovery responses,
//! and a [`Delivery`] for each answer of a client. Invariant: knows nothing of plugins; the protocol is pure
//! ([`Session`]), sockets live in `stream` and `server`.

mod accept;
mod delivery;
mod delta;
mod extensions;
mod fleet;
mod held;
mod message;
mod metrics;
mod node;
mod schedule;
mod server;
mod session;
mod sotw;
mod stream;
mod subscription;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use delivery::{Delivery, Outcome, Proofs};
pub use fleet::{Connection, Fleet, Hello, Report, Service, StreamId};
pub use metrics::Metrics;
pub use node::proxy_of;
pub use session::{Limits, Protocol, Reaction, Response, Session};

/// Serves discovery, gRPC health and reflection until `shutdown`, then ends every stream with UNAVAILABLE.
pub async fn serve(
    listener: TcpListener,
    fleet: Arc<dyn Fleet>,
    limits: Limits,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let shared = stream::Shared { fleet, proofs: Arc::new(Proofs::default()), limits, metrics };
    accept::serve(listener, Arc::new(shared), shutdown).await;
}
