//! An upstream that echoes: its answer's body is JSON with the path and the headers of the request as it came.
//!
//! Requests for `/held` are answered when the test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A server on a free port of loopback, until it is dropped.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    _server: JoinSet<()>,
}

struct Seen {
    /// Sent back in `x-upstream`, so that a test can tell two upstreams apart.
    name: String,
    requests: AtomicU64,
    /// Requests for `/held` so far.
    held: AtomicU64,
    /// How often they were let go.
    released: watch::Sender<u64>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::named("upstream").await
    }

    pub async fn named(name: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Seen {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            held: AtomicU64::new(0),
            released: watch::Sender::new(0),
        });
        let router = Router::new().fallback(echo).with_state(Arc::clone(&seen));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("serves until it is aborted") });
        Self { address, seen, _server: server }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many requests came this far.
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// How many requests for `/held` came this far, answered or not.
    pub fn held(&self) -> u64 {
        self.seen.held.load(Ordering::Relaxed)
    }

    /// Answers all requests that are held.
    pub fn release(&self) {
        self.seen.released.send_modify(|released| *released += 1);
    }
}

/// An upstream for TCP listeners, which sends back what it gets, until it is dropped.
pub struct TcpEcho {
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl TcpEcho {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    // How a connection ends is for the test's own end of it to judge.
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        Self { address, _server: server }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Values of a header that came several times are joined by a comma, in order.
async fn echo(State(seen): State<Arc<Seen>>, request: Request) -> impl IntoResponse {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    if request.uri().path() == "/held" {
        let mut released = seen.released.subscribe();
        seen.held.fetch_add(1, Ordering::Relaxed);
        // Ends with the upstream.
        drop(released.changed().await);
    }
    let mut headers = Map::new();
    for name in request.headers().keys() {
        let values = request.headers().get_all(name).iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.to_string(), Value::from(values.join(",")));
    }
    let body = json!({ "path": request.uri().path(), "headers": headers });
    ([("x-upstream", seen.name.clone())], axum::Json(body))
}
