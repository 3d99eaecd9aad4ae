//! Takes in connections, speaks TLS and HTTP/2 on them, and asks them to leave when their time has come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use http::Request;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tower::Service as _;

use super::server::router;
use super::stream::Shared;
use super::tls::{self, Tls};

/// What may wait in the server for a slow client: more would only be stale when it is read.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
/// A connection of one Envoy carries a handful of streams; tools may multiplex many simulated ones.
const MAX_STREAMS_PER_CONNECTION: u32 = 10_000;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to read what it was sent before its connection ends; one that does not is cut off.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);
/// A client has the first word in TLS, and calls something at once.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const FIRST_CALL_WITHIN: Duration = Duration::from_secs(30);

/// What the port is run with.
#[derive(Default)]
pub struct Transport {
    /// Plain text without.
    pub tls: Option<Tls>,
    /// Connections are asked to come again at about this age, so that a fleet spreads over all replicas.
    pub max_connection_age: Option<Duration>,
}

/// Why a connection is asked to leave.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Shutdown,
    Age,
    /// The client's certificate has ended.
    Expired,
    /// Nothing was called on it.
    Idle,
}

/// Tells the streams of one connection that it is about to end.
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
    shutdown: CancellationToken,
) {
    let tls = transport.tls.map(Arc::new);
    let door = Door { router: router(&shared), max_age: transport.max_connection_age, shared, shutdown };
    let connections = TaskTracker::new();
    let mut follow_files = std::pin::pin!(follow(tls.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.shutdown.cancelled() => break,
            () = &mut follow_files => unreachable!("the files are followed for ever"),
        };
        match accepted {
            Ok((socket, peer)) => {
                connections.spawn(welcome(door.clone(), socket, peer, tls.as_ref().map(|tls| tls.config())));
            }
            Err(error) => {
                // Mostly too many open files: the next accept may find one closed.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
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
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

async fn welcome(door: Door, socket: TcpStream, peer: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "nodelay not set");
    }
    let ends = door.max_age.map(|age| (Instant::now() + jittered(age), Leave::Age));
    let Some(config) = tls else {
        return serve_connection(door, TokioIo::new(socket), peer, ends).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(config).accept(socket));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = door.shutdown.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let expires = tls::expiry(stream.get_ref().1).map(|at| (instant(at), Leave::Expired));
            let ends = ends.into_iter().chain(expires).min_by_key(|(at, _)| *at);
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

/// The moment of a wall-clock time, as of now.
fn instant(at: SystemTime) -> Instant {
    /// Instants cannot be much further away.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default().min(YEAR)
}

/// A tenth more or less, so that connections that began together do not end together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + fastrand::f64() / 5.0)
}

async fn serve_connection(door: Door, io: impl Read + Write + Unpin, peer: SocketAddr, ends: Option<(Instant, Leave)>) {
    let farewell = Farewell::new();
    let has_called = Arc::new(AtomicBool::new(false));
    let service = {
        let (router, farewell, has_called) = (door.router, farewell.clone(), has_called.clone());
        tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
            has_called.store(true, Ordering::Relaxed);
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
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let connection = builder.serve_connection(io, TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        leave = time_to_leave(&door.shutdown, &has_called, ends) => {
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

async fn time_to_leave(shutdown: &CancellationToken, has_called: &AtomicBool, ends: Option<(Instant, Leave)>) -> Leave {
    let end = async {
        match ends {
            Some((at, leave)) => {
                tokio::time::sleep_until(at).await;
                leave
            }
            None => std::future::pending().await,
        }
    };
    let silence = async {
        tokio::time::sleep(FIRST_CALL_WITHIN).await;
        if has_called.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Leave::Shutdown,
        leave = end => leave,
        () = silence => Leave::Idle,
    }
}
