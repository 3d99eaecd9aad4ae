//! The plane's end of every discovery stream.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::xds::{Connection, Fleet, Hello, Report, SnapshotSender, StreamId, slot};

/// A stream that has just introduced itself.
#[derive(Debug)]
pub struct Arrival {
    pub stream: StreamId,
    pub hello: Hello,
    pub snapshots: SnapshotSender,
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
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    reports: mpsc::UnboundedReceiver<Report>,
}

/// What has come since the last look: arrivals are to be taken in before reports.
#[derive(Debug, Default)]
pub struct Batch {
    pub arrivals: Vec<Arrival>,
    pub reports: Vec<Report>,
}

/// Reports taken in at one go before proxies are looked at again.
const REPORTS_AT_ONCE: usize = 1024;

impl FleetEvents {
    /// Waits for the next events. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Batch {
        let mut batch = Batch::default();
        tokio::select! {
            Some(arrival) = self.arrivals.recv() => batch.arrivals.push(arrival),
            1.. = self.reports.recv_many(&mut batch.reports, REPORTS_AT_ONCE) => {}
            // The door is gone, and the process about to end.
            else => std::future::pending().await,
        }
        // A stream arrives before it reports, so that every report in hand has its arrival behind it or in here: else
        // a stream that ends at once would say goodbye first, and stay for ever.
        while let Ok(arrival) = self.arrivals.try_recv() {
            batch.arrivals.push(arrival);
        }
        batch
    }
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
        let (sender, snapshots) = slot();
        // Fails only when the process is about to end; the stream then sees its snapshots end.
        let _ = self.arrivals.send(Arrival { stream: id, hello, snapshots: sender });
        Connection { id, snapshots, reports: self.reports.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::Proxy;
    use crate::xds::{Protocol, Service};

    fn hello() -> Hello {
        let proxy = Proxy::named("e1", "shop");
        Hello { proxy, service: Service::Ads, protocol: Protocol::Delta, is_new_process: true, peer: None }
    }

    #[tokio::test]
    async fn an_envoy_that_leaves_at_once_is_not_shown_as_connected_for_ever() {
        let (door, mut events) = FleetDoor::new();
        for _ in 0..100 {
            // Both are there at the next look, which may take them up in either order.
            drop(door.connect(hello()));
            let (mut arrived, mut left) = (HashSet::new(), 0);
            while left == 0 {
                let batch = events.next().await;
                arrived.extend(batch.arrivals.iter().map(|arrival| arrival.stream));
                for report in batch.reports {
                    let Report::Gone(stream) = report else { panic!("nothing was delivered") };
                    assert!(arrived.contains(&stream), "it left before it came");
                    left += 1;
                }
            }
        }
    }
}
