//! The plane's end of every discovery stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use crate::snapshot::Snapshot;
use crate::xds::{Connection, Fleet, Hello, Report, StreamId};

/// A stream that has just introduced itself.
#[derive(Debug)]
pub struct Arrival {
    pub stream: StreamId,
    pub hello: Hello,
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

/// Hands new streams to the reconciler.
#[derive(Debug)]
pub struct FleetDoor {
    /// Unbounded, as each item is an open stream, and those are bounded by the connections.
    arrivals: mpsc::UnboundedSender<Arrival>,
    reports: mpsc::UnboundedSender<Report>,
    next_stream: AtomicU64,
}

/// What comes through the door.
#[derive(Debug)]
pub struct FleetEvents {
    pub arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub reports: mpsc::UnboundedReceiver<Report>,
}

impl FleetDoor {
    pub fn new() -> (Self, FleetEvents) {
        let (arrivals, arriving) = mpsc::unbounded_channel();
        let (reports, reporting) = mpsc::unbounded_channel();
        let door = Self { arrivals, reports, next_stream: AtomicU64::new(1) };
        (door, FleetEvents { arrivals: arriving, reports: reporting })
    }
}

impl Fleet for FleetDoor {
    fn connect(&self, hello: Hello) -> Connection {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (sender, snapshots) = watch::channel(None);
        // Fails only when the process is about to end; the stream then sees its snapshots end.
        let _ = self.arrivals.send(Arrival { stream: id, hello, snapshots: sender });
        Connection { id, snapshots, reports: self.reports.clone() }
    }
}
