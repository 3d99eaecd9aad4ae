//! All simulated proxies, and what they have received since they were last asked.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use envoy_types::pb::envoy::config::core::v3::Node;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::class::{Class, PerClass};
use crate::node::node;
use crate::proxy::{self, Held, Observer};

/// Nothing that is measured takes so long.
const DEADLINE: Duration = Duration::from_secs(120);
/// Handshakes under way at once.
const CONNECTING: usize = 200;

/// What the fleet received between two looks.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub messages: usize,
    pub bytes: usize,
    /// Proxies that received anything.
    pub proxies: usize,
    /// From the change to the first ECDS response, per proxy that received one; sorted.
    pub latencies: Vec<Duration>,
}

pub struct Fleet {
    address: SocketAddr,
    /// One proxy of each class writes down what it receives.
    recorded: PerClass<Option<usize>>,
    nodes: Vec<Node>,
    slots: Vec<Arc<Slot>>,
    shared: Arc<Shared>,
    running: Mutex<JoinSet<()>>,
}

/// One proxy's part.
#[derive(Default)]
struct Slot {
    held: tokio::sync::Mutex<Held>,
    tally: Mutex<Tally>,
    is_complete: AtomicBool,
    /// The messages since the last look, each with its header; in the slots that record.
    record: Option<Mutex<Vec<u8>>>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    messages: usize,
    bytes: usize,
    first: Option<Instant>,
}

struct Shared {
    /// Proxies that have yet to receive what is waited for.
    missing: AtomicUsize,
    all: Notify,
    since: Mutex<Instant>,
    failures: AtomicUsize,
}

impl Fleet {
    pub fn new(args: &Args, address: SocketAddr) -> Self {
        let shared = Shared {
            missing: AtomicUsize::new(0),
            all: Notify::new(),
            since: Mutex::new(Instant::now()),
            failures: AtomicUsize::new(0),
        };
        let recorded = PerClass::of(|class| class.first(args));
        let slot = |index: usize| {
            let records = *recorded.get(Class::of(index)) == Some(index);
            Arc::new(Slot { record: records.then(Mutex::default), ..Slot::default() })
        };
        Self {
            address,
            nodes: (0..args.proxies).map(|index| node(index, args)).collect(),
            slots: (0..args.proxies).map(slot).collect(),
            recorded,
            shared: Arc::new(shared),
            running: Mutex::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Connects some; returns when each stream is open and each proxy holds all that it names.
    pub async fn connect(&self, which: Range<usize>) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let (nodes, slots) = (&self.nodes[which.clone()], &self.slots[which]);
        let starting = slots.iter().filter(|slot| !slot.is_complete.load(Ordering::Relaxed)).count();
        self.expect(starting);
        let permits = Arc::new(Semaphore::new(CONNECTING));
        for (node, slot) in nodes.iter().zip(slots) {
            let permit = permits.clone().acquire_owned().await?;
            let (address, node, slot, shared) = (self.address, node.clone(), slot.clone(), self.shared.clone());
            lock(&self.running).spawn(async move {
                let mut held = slot.held.lock().await;
                let watch = Watch { slot: &slot, shared: &shared, permit: Mutex::new(Some(permit)) };
                if let Err(error) = proxy::run(address, node, &mut held, &watch).await
                    && shared.failures.fetch_add(1, Ordering::Relaxed) == 0
                {
                    println!("a proxy failed: {error:#}");
                }
            });
        }
        // Held by each connection until its stream is open.
        let _all = permits.acquire_many(u32::try_from(CONNECTING)?).await?;
        if starting > 0 {
            self.wait().await?;
        }
        Ok(begun.elapsed())
    }

    pub fn disconnect(&self) {
        lock(&self.running).abort_all();
        *lock(&self.running) = JoinSet::new();
    }

    /// From now on, so many proxies will receive ECDS.
    pub fn expect(&self, proxies: usize) {
        self.take_received();
        self.shared.missing.store(proxies, Ordering::Release);
        *lock(&self.shared.since) = Instant::now();
    }

    /// Waits for the last of those that are expected.
    pub async fn wait(&self) -> anyhow::Result<()> {
        if tokio::time::timeout(DEADLINE, self.shared.all.notified()).await.is_err() {
            let (missing, failures) = (&self.shared.missing, &self.shared.failures);
            bail!(
                "{} proxies received nothing within {DEADLINE:?}; {} connections failed",
                missing.load(Ordering::Acquire),
                failures.load(Ordering::Relaxed)
            );
        }
        Ok(())
    }

    /// What a proxy of that class received since the last look, as it came.
    pub fn take_recorded(&self, class: Class) -> Vec<u8> {
        let slot = self.recorded.get(class).map(|index| &self.slots[index]);
        let record = slot.and_then(|slot| slot.record.as_ref());
        record.map(|record| std::mem::take(&mut *lock(record))).unwrap_or_default()
    }

    pub fn take_received(&self) -> Received {
        let since = *lock(&self.shared.since);
        let mut received = Received::default();
        for slot in &self.slots {
            let tally = std::mem::take(&mut *lock(&slot.tally));
            received.messages += tally.messages;
            received.bytes += tally.bytes;
            received.proxies += usize::from(tally.messages > 0);
            received.latencies.extend(tally.first.map(|first| first.duration_since(since)));
        }
        received.latencies.sort();
        received
    }
}

/// Sees what one proxy receives.
struct Watch<'a> {
    slot: &'a Slot,
    shared: &'a Shared,
    permit: Mutex<Option<tokio::sync::OwnedSemaphorePermit>>,
}

impl Observer for Watch<'_> {
    fn opened(&self) {
        lock(&self.permit).take();
    }

    fn received(&self, message: &[u8], is_extension: bool) {
        let mut tally = lock(&self.slot.tally);
        tally.messages += 1;
        tally.bytes += 5 + message.len();
        if let Some(record) = &self.slot.record {
            let length = u32::try_from(message.len()).expect("its length came in 32 bits");
            let header = [&[0][..], &length.to_be_bytes()].concat();
            lock(record).extend([&header, message].concat());
        }
        if is_extension && tally.first.is_none() {
            tally.first = Some(Instant::now());
            if self.slot.is_complete.load(Ordering::Relaxed) {
                self.count_down();
            }
        }
    }

    fn holds(&self, held: &Held) {
        if !self.slot.is_complete.load(Ordering::Relaxed) && held.is_complete() {
            self.slot.is_complete.store(true, Ordering::Relaxed);
            self.count_down();
        }
    }
}

impl Watch<'_> {
    fn count_down(&self) {
        if self.shared.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.all.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
