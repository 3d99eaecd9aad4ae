//! A keep-alive load generator: what a request loses while plugins change shows in its report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::http::{Connection, Response, Version};

/// Each connection asks at most this often, so that the Envoys of other tests get their turn.
const PACE: Duration = Duration::from_millis(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A report that fails is read by people.
const FAILURES_KEPT: usize = 10;

/// Connections that ask until they are stopped.
pub struct Load {
    stop: CancellationToken,
    requests: Arc<AtomicU64>,
    connections: JoinSet<LoadReport>,
}

/// What the connections saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    pub requests: u64,
    /// Answers other than 200, and requests without an answer.
    pub failed: u64,
    /// The first of them, in words.
    pub failures: Vec<String>,
    /// Connections opened: as many as the load has, if none was closed.
    pub opened: u64,
    /// Connections that the other side closed or announced to close.
    pub closed: u64,
    /// How often each value of the watched header came; answers without it count under "".
    pub seen: BTreeMap<String, u64>,
}

impl Load {
    /// So many keep-alive connections, each asking for `/` again and again.
    pub fn start(port: u16, connections: usize) -> Self {
        Self::watching(port, connections, "x-hello")
    }

    /// [`Load::start`], counting the values of a response header.
    pub fn watching(port: u16, connections: usize, header: &'static str) -> Self {
        Self::speaking(Version::One, port, connections, header)
    }

    /// [`Load::watching`] over that version of HTTP.
    pub fn speaking(version: Version, port: u16, connections: usize, header: &'static str) -> Self {
        let (stop, requests) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let mut running = JoinSet::new();
        for _ in 0..connections {
            running.spawn(ask_until_stopped(version, port, header, stop.clone(), Arc::clone(&requests)));
        }
        Self { stop, requests, connections: running }
    }

    /// How many requests were sent so far: lets a test wait until changes and requests really overlap.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Lets each connection finish its request.
    pub async fn stop(self) -> LoadReport {
        self.stop.cancel();
        let mut report = LoadReport::default();
        for part in self.connections.join_all().await {
            report.merge(part);
        }
        report
    }
}

impl LoadReport {
    /// Panics unless there were requests, and each was answered with 200.
    pub fn assert_no_failure(&self) {
        assert!(self.requests > 0 && self.failed == 0, "requests failed: {self:#?}");
    }

    /// Panics unless, besides, all went over the connections that were opened first.
    pub fn assert_untouched(&self, connections: u64) {
        self.assert_no_failure();
        assert!(self.closed == 0 && self.opened == connections, "connections were closed: {self:#?}");
    }

    fn count(&mut self, header: &str, outcome: anyhow::Result<Response>) {
        self.requests += 1;
        match outcome {
            Ok(response) => {
                if response.status != 200 {
                    self.fail(format!("{}: {}", response.status, response.body));
                }
                let value = response.header(header).unwrap_or_default();
                *self.seen.entry(value.to_owned()).or_default() += 1;
            }
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    fn fail(&mut self, words: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(words);
        }
    }

    /// Adds what other connections saw.
    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_KEPT);
        self.opened += other.opened;
        self.closed += other.closed;
        for (value, count) in other.seen {
            *self.seen.entry(value).or_default() += count;
        }
    }
}

async fn ask_until_stopped(
    version: Version,
    port: u16,
    header: &str,
    stop: CancellationToken,
    requests: Arc<AtomicU64>,
) -> LoadReport {
    let mut report = LoadReport::default();
    let mut connection = None;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        pace.tick().await;
        let outcome = match timeout(REQUEST_TIMEOUT, ask(version, port, &mut connection, &mut report)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
        };
        if outcome.is_err() {
            connection = None;
        }
        report.count(header, outcome);
        requests.fetch_add(1, Ordering::Relaxed);
    }
    report
}

/// One request over the open connection, or over a new one if the old one was closed in between.
async fn ask(
    version: Version,
    port: u16,
    slot: &mut Option<Connection>,
    report: &mut LoadReport,
) -> anyhow::Result<Response> {
    if let Some(connection) = slot
        && !connection.is_open().await
    {
        report.closed += 1;
        *slot = None;
    }
    if slot.is_none() {
        *slot = Some(Connection::speaking(port, version).await?);
        report.opened += 1;
    }
    let connection = slot.as_mut().expect("it was opened above");
    let outcome = connection.get("/", &[]).await;
    if outcome.is_err() {
        report.closed += 1;
    }
    outcome
}
