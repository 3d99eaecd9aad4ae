//! Takes in connections, speaks TLS and HTTP/2 on them, and asks them to leave when their time has come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use http::Request;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tower::Service as _;

use super::admission::Admitted;
use super::health::Health;
use super::quiet::Quiet;
use super::server::{router, services};
use super::stream::Shared;
use super::tls::{self, Tls};

/// What may wait in the server for a slow client: more would only be stale when it is read.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
/// A connection of one Envoy carries a handful of streams; tools may multiplex many simulated ones.
const MAX_STREAMS_PER_CONNECTION: u32 = 10_000;
/// How long a client may take to read what it was sent before its connection ends; one that does not is cut off.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);
/// A client has the first word in TLS, and calls something at once.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Within this time something is called, or a stream is open.
const IDLE: Duration = Duration::from_secs(30);
/// How often the wall clock is asked whether a certificate has ended: it may have been set meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// What the port is run with.
#[derive(Default)]
pub struct Transport {
    /// Plain text without.
    pub tls: Option<Tls>,
    /// Connections are asked to come again at about this age, so that a fleet spreads over all replicas.
    pub max_connection_age: Option<Duration>,
    pub keepalive: Keepalive,
}

/// How a client is noticed that has gone without a word: it answers no PING.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A PING follows after so much silence.
    pub interval: Duration,
    /// Its answer comes within this, or the connection ends.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) }
    }
}

/// Why a connection is asked to leave.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Shutdown,
    Age,
    /// The client's certificate has ended.
    Expired,
    /// Nothing was called on it lately, and nothing is open.
    Idle,
}

/// Tells the streams of one connection that it is about to end. Each holds it as long as it is open.
#[derive(Clone, Debug)]
pub(super) struct Farewell {
    said: CancellationToken,
    leave: Arc<OnceLock<Leave>>,
}

impl Farewell {
    fn new() -> Self {
        Self { said: CancellationToken::new(), leave: Arc::default() }
    }

    fn say(&self, leave: Leave) {
        // Said once.
        let _ = self.leave.set(leave);
        self.said.cancel();
    }

    /// How many there are: those of the connection itself, and one for each open stream.
    fn holders(&self) -> usize {
        Arc::strong_count(&self.leave)
    }

    pub fn said(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.said.clone().cancelled_owned()
    }

    /// What its streams end with; clients come again after any of them.
    pub fn status(&self) -> Status {
        match self.leave.get() {
            Some(Leave::Expired) => {
                Status::unauthenticated("the client certificate has expired, connect with a new one")
            }
            Some(Leave::Age) => Status::unavailable("the connection has reached its age, connect again"),
            Some(Leave::Shutdown | Leave::Idle) | None => {
                Status::unavailable("the control plane is shutting down, connect again")
            }
        }
    }
}

/// Serves discovery, health and reflection on `listener` until `shutdown`; returns when all connections are closed.
pub(super) async fn serve(
    listener: TcpListener,
    transport: Transport,
    shared: Arc<Shared>,
    ready: Option<watch::Receiver<bool>>,
    shutdown: CancellationToken,
) {
    let tls = transport.tls.map(Arc::new);
    let health = Health::of(services()).await;
    let mut follow_health = std::pin::pin!(health.follow(ready, shutdown.clone()));
    let door = Door {
        router: router(&shared, &health),
        max_age: transport.max_connection_age,
        keepalive: transport.keepalive,
        shared,
        shutdown,
    };
    let connections = TaskTracker::new();
    let mut follow_files = std::pin::pin!(follow(tls.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.shutdown.cancelled() => break,
            () = &mut follow_files => unreachable!("the files are followed for ever"),
            () = &mut follow_health => unreachable!("health is followed for ever"),
        };
        match accepted {
            Ok((socket, peer)) => match door.shared.admission.connect() {
                Some(place) => {
                    let tls = tls.as_ref().map(|tls| tls.config());
                    connections.spawn(welcome(door.clone(), place, socket, peer, tls));
                }
                None => refuse(&door.shared, peer),
            },
            Err(error) => {
                // Mostly too many open files: the next accept may find one closed.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = &mut follow_health => unreachable!("health is followed for ever"),
    }
}

/// Nothing can be said without a handshake. A crowd is told of now and then.
fn refuse(shared: &Shared, peer: SocketAddr) {
    let refused = shared.metrics.connection_refused();
    if refused.is_power_of_two() {
        tracing::warn!(%peer, refused, "too many connections, this one is closed");
    }
}

async fn follow(tls: Option<Arc<Tls>>) {
    match tls {
        Some(tls) => tls.follow().await,
        None => std::future::pending().await,
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Door {
    router: Router,
    max_age: Option<Duration>,
    keepalive: Keepalive,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

/// The place is held by a variable of this task: one around it would have room for all of it twice.
async fn welcome(
    door: Door,
    _place: Admitted,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "nodelay not set");
    }
    let age = door.max_age.map(|age| Instant::now() + jittered(age));
    let ends = Ends { age, certificate: None };
    match tls {
        // In a box, as every connection would take the room that TLS needs.
        Some(config) => Box::pin(welcome_by_tls(door, socket, peer, ends, config)).await,
        None => serve_connection(door, TokioIo::new(socket), peer, ends).await,
    }
}

async fn welcome_by_tls(
    door: Door,
    socket: TcpStream,
    peer: SocketAddr,
    ends: Ends,
    config: Arc<rustls::ServerConfig>,
) {
    let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(config).accept(socket));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = door.shutdown.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let ends = Ends { certificate: tls::expiry(stream.get_ref().1), ..ends };
            serve_connection(door, TokioIo::new(stream), peer, ends).await;
        }
        Ok(Err(error)) => {
            door.shared.metrics.handshake_failed();
            tracing::warn!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => {
            door.shared.metrics.handshake_failed();
            tracing::warn!(%peer, seconds = HANDSHAKE_WITHIN.as_secs(), "TLS handshake not finished in time");
        }
    }
}

/// When a connection is asked to leave, whatever happens on it.
#[derive(Clone, Copy)]
struct Ends {
    age: Option<Instant>,
    /// The end of the certificate that the client has shown, by the wall clock.
    certificate: Option<SystemTime>,
}

/// Waits for a time of the wall clock, which may be set forward or back while waiting.
async fn until(at: SystemTime, wall_clock: impl Fn() -> SystemTime) {
    while let Ok(left) = at.duration_since(wall_clock())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(CLOCK_LOOK)).await;
    }
}

/// A tenth more or less, so that connections that began together do not end together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + fastrand::f64() / 5.0)
}

async fn serve_connection(door: Door, io: impl Read + Write + Unpin, peer: SocketAddr, ends: Ends) {
    let farewell = Farewell::new();
    let calls = Arc::new(AtomicU64::new(0));
    let service = {
        let (router, farewell, calls) = (door.router, farewell.clone(), calls.clone());
        tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
            calls.fetch_add(1, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(farewell.clone());
            router.clone().call(request)
        })
    };
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(door.keepalive.interval)
        .keep_alive_timeout(door.keepalive.timeout);
    let connection = builder.serve_connection(io, TowerToHyperService::new(service));
    tokio::pin!(connection);
    let at_rest = farewell.holders();
    let is_busy = || farewell.holders() > at_rest;
    let leave = Quiet::new(time_to_leave(&door.shutdown, &calls, is_busy, ends));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        leave = leave => {
            farewell.say(leave);
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(FLUSHED_WITHIN, connection).await {
                Ok(result) => result,
                Err(_) => return tracing::debug!(%peer, ?leave, "connection cut off, as the client does not read"),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn time_to_leave(
    shutdown: &CancellationToken,
    calls: &AtomicU64,
    is_busy: impl Fn() -> bool,
    ends: Ends,
) -> Leave {
    let age = async {
        match ends.age {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let certificate = async {
        match ends.certificate {
            Some(at) => until(at, SystemTime::now).await,
            None => std::future::pending().await,
        }
    };
    let silence = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(IDLE).await;
            let now = calls.load(Ordering::Relaxed);
            if now == before && !is_busy() {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Leave::Shutdown,
        () = age => Leave::Age,
        () = certificate => Leave::Expired,
        () = silence => Leave::Idle,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A wall clock that a test sets; it does not go by itself.
    struct Clock(Mutex<SystemTime>);

    impl Clock {
        fn set(&self, at: SystemTime) {
            *self.0.lock().unwrap() = at;
        }

        fn read(&self) -> SystemTime {
            *self.0.lock().unwrap()
        }
    }

    async fn is_over(waiting: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        tokio::time::timeout(2 * CLOCK_LOOK, waiting).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_one_call_was_made_is_not_kept_for_ever() {
        let (shutdown, calls, farewell) = (CancellationToken::new(), AtomicU64::new(1), Farewell::new());
        let stream = farewell.clone();
        let ends = Ends { age: None, certificate: None };
        let mut leave = Box::pin(time_to_leave(&shutdown, &calls, || farewell.holders() > 1, ends));
        assert!(tokio::time::timeout(HOUR, &mut leave).await.is_err(), "a stream is open");
        calls.fetch_add(1, Ordering::Relaxed);
        drop(stream);
        assert!(tokio::time::timeout(IDLE, &mut leave).await.is_err());
        assert!(matches!(tokio::time::timeout(2 * IDLE, leave).await, Ok(Leave::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_ends_by_the_wall_clock_although_that_was_set_meanwhile() {
        let end = SystemTime::UNIX_EPOCH + 100 * HOUR;
        let clock = Clock(Mutex::new(end - HOUR));
        let mut waiting = Box::pin(until(end, || clock.read()));
        assert!(!is_over(&mut waiting).await);
        clock.set(end - 50 * HOUR);
        assert!(!is_over(&mut waiting).await);
        clock.set(end + HOUR);
        assert!(is_over(&mut waiting).await);
    }

    #[test]
    fn connections_that_began_together_end_within_a_tenth_of_their_age_and_spread_over_it() {
        let ages: Vec<_> = (0..10_000).map(|_| jittered(HOUR)).collect();
        let (youngest, oldest) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*youngest >= HOUR.mul_f64(0.9) && *oldest <= HOUR.mul_f64(1.1), "{youngest:?} to {oldest:?}");
        for tenth in 0..10 {
            let within = HOUR.mul_f64(0.9 + f64::from(tenth) / 50.0)..HOUR.mul_f64(0.92 + f64::from(tenth) / 50.0);
            let count = ages.iter().filter(|age| within.contains(*age)).count();
            assert!((500..2000).contains(&count), "{count} of 10000 in {within:?}");
        }
    }
}
