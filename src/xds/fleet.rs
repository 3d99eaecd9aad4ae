//! Where streams meet those who decide what they are served.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::delivery::Delivery;
use super::session::Protocol;
use super::slot::SnapshotReceiver;
use crate::model::Proxy;
use crate::snapshot::ResourceType;

/// One discovery stream of this process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Which service a client called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Ads,
    /// LDS, RDS, CDS, EDS or ECDS on its own.
    Single(ResourceType),
}

/// A client that has introduced itself.
#[derive(Clone, Debug)]
pub struct Hello {
    pub proxy: Proxy,
    pub service: Service,
    pub protocol: Protocol,
    /// It holds nothing yet, as far as its first request says: an Envoy that starts.
    pub is_new_process: bool,
    pub peer: Option<SocketAddr>,
}

/// What a stream is told.
#[derive(Debug)]
pub enum Report {
    Delivered(StreamId, Delivery),
    /// Modules travel inline from now on, for the life of this client, and why.
    FellBack(StreamId, &'static str),
    /// Why a module cannot be fetched that does not fit inline; empty where it can be again. What the client runs goes on.
    Stuck(StreamId, &'static str),
    Gone(StreamId),
}

/// Decides what a client is served.
pub trait Fleet: Send + Sync + 'static {
    fn connect(&self, hello: Hello) -> Connection;
}

/// A stream's line to the fleet; dropping it says goodbye.
#[derive(Debug)]
pub struct Connection {
    pub id: StreamId,
    /// Nothing comes until all sources are loaded once.
    pub snapshots: SnapshotReceiver,
    /// Unbounded, as a stream cannot wait. Each report is about a resource of a response that was answered: as many as a
    /// snapshot has, per change of it; beyond that a client gets one per round trip by refusing (with back-off) or by
    /// asking again for what it has given up. The fleet takes them in faster than connections bring them.
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Connection {
    pub fn fell_back(&self, reason: &'static str) {
        // As below.
        let _ = self.reports.send(Report::FellBack(self.id, reason));
    }

    pub fn stuck(&self, reason: &'static str) {
        // As below.
        let _ = self.reports.send(Report::Stuck(self.id, reason));
    }

    pub fn deliver(&self, delivery: Delivery) {
        // Fails only when the process is about to end.
        let _ = self.reports.send(Report::Delivered(self.id, delivery));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.reports.send(Report::Gone(self.id));
    }
}
