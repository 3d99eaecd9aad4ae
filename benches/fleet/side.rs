//! A server with the proxies around it, and what can be done to the two.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use crate::class::Class;
use crate::fleet::{Fleet, Received};
use crate::null;
use crate::server::{Cost, Server};

/// Longer than any message is under way, so that a second one for the same change would be seen.
const QUIET: Duration = Duration::from_millis(300);
/// Between cutting all connections and their return.
const GONE_FOR: Duration = Duration::from_secs(2);

pub struct Side {
    pub server: Server,
    pub fleet: Fleet,
}

/// One thing done once.
#[derive(Clone, Debug)]
pub struct Measured {
    pub received: Received,
    /// Time to the last proxy; for a change, from the rename of the file, or from the word to the null server.
    pub took: Duration,
    /// Time of the server on a processor.
    pub cost: Duration,
}

impl Side {
    /// Proxies connect as fast as they can, and take their first configuration.
    pub async fn connect(&self, which: Range<usize>) -> anyhow::Result<Measured> {
        let before = self.server.cost()?;
        let took = self.fleet.connect(which).await?;
        tokio::time::sleep(QUIET).await;
        Ok(Measured { received: self.fleet.take_received(), took, cost: self.server.cost()?.since(before) })
    }

    /// All but the first, and what each of them takes of the server's memory, in kB.
    pub async fn connect_others(&self) -> anyhow::Result<(Measured, f64)> {
        let before = self.server.resident_kb()?;
        let others = 1..self.fleet.len();
        let count = others.len();
        let measured = self.connect(others).await?;
        Ok((measured, per(self.server.resident_kb()?.saturating_sub(before), count)))
    }

    /// So many proxies receive what `trigger` causes.
    pub async fn change(
        &mut self,
        expected: usize,
        trigger: impl FnOnce(&mut Server) -> anyhow::Result<()>,
    ) -> anyhow::Result<Measured> {
        let before = self.server.cost()?;
        self.fleet.expect(expected);
        trigger(&mut self.server)?;
        self.fleet.wait().await?;
        tokio::time::sleep(QUIET).await;
        let received = self.fleet.take_received();
        let took = received.latencies.last().copied().unwrap_or_default();
        Ok(Measured { received, took, cost: self.server.cost()?.since(before) })
    }

    /// All connections are cut, and come back with the versions that they hold.
    pub async fn reconnect(&self) -> anyhow::Result<Measured> {
        self.fleet.disconnect();
        tokio::time::sleep(GONE_FOR).await;
        let before = self.server.cost()?;
        let took = self.fleet.connect(0..self.fleet.len()).await?;
        // Nothing is sent, so that only the server's CPU tells when it has looked at them all.
        let cost = self.cost_when_quiet().await?.since(before);
        Ok(Measured { received: self.fleet.take_received(), took, cost })
    }

    async fn cost_when_quiet(&self) -> anyhow::Result<Cost> {
        let mut cost = self.server.cost()?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.server.cost()?;
            if now.since(cost) < Duration::from_millis(20) {
                return Ok(now);
            }
            cost = now;
        }
    }

    /// Leaves what each class of proxies has received to the null server; returns the classes that received anything.
    pub fn leave_recorded(&self, folder: &Path, what: &str) -> anyhow::Result<String> {
        let mut classes = Vec::new();
        for class in Class::ALL {
            let recorded = self.fleet.take_recorded(class);
            if !recorded.is_empty() {
                fs::write(null::file(folder, what, class), recorded)?;
                classes.push(class.to_string());
            }
        }
        Ok(classes.join(" "))
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn per(all: u64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { all as f64 / count as f64 }
}
