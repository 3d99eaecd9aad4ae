//! What a test starts and asks: Envoys, the control plane, upstreams, a module server, a load generator, modules.
//!
//! Nothing here sleeps but [`wait_until`], and no port is fixed. Everything ends when its value is dropped; while a
//! test panics, Envoy and the control plane print their last words.

pub mod certificates;
pub mod control_plane;
pub mod envoy;
pub mod http;
pub mod http_proxy;
pub mod images;
pub mod judge;
pub mod load;
pub mod module_server;
pub mod modules;
pub mod registry;
pub mod scene;
pub mod upstream;

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, interval};

tokio::task_local! {
    static BY_DIGEST: ();
}

/// Runs a test with control planes that deliver every module by digest; else they do so with large ones alone.
pub async fn by_digest(test: impl Future<Output = ()>) {
    BY_DIGEST.scope((), test).await;
}

pub fn is_by_digest() -> bool {
    BY_DIGEST.try_with(|()| ()).is_ok()
}

/// Long enough for a loaded machine; a test that fails is the only one that waits for its end.
const DEADLINE: Duration = Duration::from_secs(30);
const PORTS: Range<u16> = 10_000..30_000;
const POLL: Duration = Duration::from_millis(20);

/// Asks again and again until the condition has an answer. Panics with `what` when it has none in time.
pub async fn wait_until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    wait_at_most(DEADLINE, what, condition).await
}

/// [`wait_until`] with a deadline of its own.
pub async fn wait_at_most<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    let mut polls = interval(POLL);
    loop {
        polls.tick().await;
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", limit.as_secs());
    }
}

/// CPU time of a process, in the kernel's ticks of 10 ms.
pub fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs, on Linux");
    // Behind the command's name in brackets: utime and stime are the fields 14 and 15 of the whole.
    let fields = stat.rsplit(") ").next().expect("it has fields").split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks are a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// A port of loopback for an Envoy, which must be told its port. Below the range from which the kernel hands out ports
/// by itself (no outgoing connection takes it meanwhile), never twice in a run, and each run begins elsewhere: Envoys
/// would share a port without a word (SO_REUSEPORT).
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(131);
    let mut candidates = (0..PORTS.len()).map(|_| {
        let offset = first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        PORTS.start + u16::try_from(offset).expect("it is below the range's length")
    });
    candidates
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of 20,000 ports of loopback is free")
}
