//! The module server: proxies that are told a module by digest fetch it here, once each.
//!
//! Comes in: GET `/modules/sha256/<hex>.wasm`, with the token of a discovery stream where it is an attempt of ours. Goes
//! out: the bytes, of which there is one copy in memory, however many fetch them. What the name of a module is, its
//! digest, is all that a reader needs: it says nothing that was not asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Modules;
use crate::model::Digest;

/// Modules on their way at once, the others wait in line: a fleet that starts together gets them one proxy after the
/// other, and the xDS port beside it goes on. The kernel holds a few hundred kilobytes of each.
const AT_ONCE: usize = 64;

/// Connections that may be open; Envoy has one per worker and fetch. Each takes some 10 kB.
const CONNECTIONS: usize = 10_000;

/// Between two looks at whether a client still reads: one that does not holds up others.
const STALL: Duration = Duration::from_secs(30);

/// A place is held for no longer; Envoy gives up then, too.
const WHOLE_WITHIN: Duration = Duration::from_secs(600);

/// How long a proxy stands in line. It is told to come again, so that it hears of the crowd before its start has waited for
/// too long.
const LINE_WITHIN: Duration = Duration::from_secs(60);

const HEAD_WITHIN: Duration = Duration::from_secs(10);
const PIECE: usize = 64 << 10;

/// Hears of fetches that carry a token.
pub trait FetchListener: Send + Sync + 'static {
    fn began(&self, token: u64, digest: Digest);
    /// Answered, to the last byte or not.
    fn ended(&self, token: u64, digest: Digest, is_whole: bool);
}

struct Server {
    modules: Modules,
    heard_by: Arc<dyn FetchListener>,
    places: Arc<Semaphore>,
}

/// Serves until `shutdown`; returns when all connections are closed.
pub async fn serve(
    listener: TcpListener,
    modules: Modules,
    heard_by: Arc<dyn FetchListener>,
    shutdown: CancellationToken,
) {
    serve_to(AT_ONCE, listener, modules, heard_by, shutdown).await;
}

pub(super) async fn serve_to(
    at_once: usize,
    listener: TcpListener,
    modules: Modules,
    heard_by: Arc<dyn FetchListener>,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server { modules, heard_by, places: Arc::new(Semaphore::new(at_once)) });
    let (connections, room) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let room = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let connection = serve_connection(Arc::clone(&server), socket, peer, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(room);
                });
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

async fn serve_connection(server: Arc<Server>, socket: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
    let progress = Arc::new(Progress::default());
    let service = {
        let progress = Arc::clone(&progress);
        service_fn(move |request| answer(Arc::clone(&server), request, Arc::clone(&progress)))
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut seen = 0;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = shutdown.cancelled() => break Ok(()),
            () = tokio::time::sleep(STALL) => {
                let pieces = progress.pieces.load(Ordering::Relaxed);
                if progress.sending.load(Ordering::Relaxed) > 0 && pieces == seen {
                    return tracing::debug!(%peer, "connection cut off, as the client does not read");
                }
                seen = pieces;
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// How far a connection has come.
#[derive(Default)]
struct Progress {
    pieces: AtomicU64,
    sending: AtomicU64,
}

async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
    progress: Arc<Progress>,
) -> Result<Response<Sending>, Infallible> {
    let Some(digest) = digest_of(request.uri().path()) else { return Ok(nothing(StatusCode::NOT_FOUND)) };
    if request.method() != Method::GET {
        return Ok(nothing(StatusCode::METHOD_NOT_ALLOWED));
    }
    let token = request.uri().query().and_then(token_of);
    let fetching = Fetching::begin(&server, token, digest);
    let Some(bytes) = server.modules.held(&digest) else {
        tracing::debug!(%digest, "a proxy asks for a module that no plugin has");
        server.modules.count_served(|served| served.unknown += 1);
        return Ok(nothing(StatusCode::NOT_FOUND));
    };
    let Ok(place) = timeout(LINE_WITHIN, Arc::clone(&server.places).acquire_owned()).await else {
        tracing::debug!(%digest, "a proxy that asks for a module stood in line for too long");
        server.modules.count_served(|served| served.cut += 1);
        return Ok(nothing(StatusCode::SERVICE_UNAVAILABLE));
    };
    let place = place.expect("the semaphore is never closed");
    progress.sending.fetch_add(1, Ordering::Relaxed);
    let sending = Sending {
        bytes,
        of: Some(Fetch {
            fetching,
            modules: server.modules.clone(),
            bytes: 0,
            until: Instant::now() + WHOLE_WITHIN,
            progress,
            _place: place,
        }),
    };
    let mut response = Response::new(sending);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    Ok(response)
}

fn nothing(status: StatusCode) -> Response<Sending> {
    let mut response = Response::new(Sending { bytes: Bytes::new(), of: None });
    *response.status_mut() = status;
    response
}

fn digest_of(path: &str) -> Option<Digest> {
    path.strip_prefix("/modules/sha256/")?.strip_suffix(".wasm")?.parse().ok()
}

fn token_of(query: &str) -> Option<u64> {
    u64::from_str_radix(query.strip_prefix("stream=")?, 16).ok()
}

/// Tells of the end, whichever way it comes.
struct Fetching {
    heard_by: Arc<dyn FetchListener>,
    token: Option<u64>,
    digest: Digest,
    is_whole: bool,
}

impl Fetching {
    fn begin(server: &Server, token: Option<u64>, digest: Digest) -> Self {
        let heard_by = Arc::clone(&server.heard_by);
        if let Some(token) = token {
            heard_by.began(token, digest);
        }
        Self { heard_by, token, digest, is_whole: false }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.heard_by.ended(token, self.digest, self.is_whole);
        }
    }
}

/// A module on its way.
struct Fetch {
    fetching: Fetching,
    modules: Modules,
    /// So far.
    bytes: u64,
    until: Instant,
    progress: Arc<Progress>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let is_whole = self.fetching.is_whole;
        self.modules.count_served(|served| {
            served.whole += u64::from(is_whole);
            served.cut += u64::from(!is_whole);
            served.bytes += self.bytes;
        });
        self.progress.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client took longer than it may. It can ask again.
#[derive(Debug, thiserror::Error)]
#[error("the module did not reach the client within {} s", WHOLE_WITHIN.as_secs())]
struct TooSlow;

/// The body of an answer: what is left of it.
struct Sending {
    bytes: Bytes,
    of: Option<Fetch>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        let this = &mut *self;
        if this.bytes.is_empty() {
            return Poll::Ready(None);
        }
        if this.of.as_ref().is_some_and(|fetch| fetch.until < Instant::now()) {
            return Poll::Ready(Some(Err(TooSlow)));
        }
        let piece = this.bytes.split_to(PIECE.min(this.bytes.len()));
        if let Some(fetch) = &mut this.of {
            fetch.progress.pieces.fetch_add(1, Ordering::Relaxed);
            fetch.bytes += piece.len() as u64;
            fetch.fetching.is_whole = this.bytes.is_empty();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_digest_and_nothing_else() {
        let digest = Digest::of(b"module");
        assert_eq!(digest_of(&format!("/modules/sha256/{digest}.wasm")), Some(digest));
        for path in ["/", "/modules/sha256/.wasm", "/modules/sha256/../x.wasm", &format!("/modules/sha256/{digest}")] {
            assert_eq!(digest_of(path), None, "{path}");
        }
        assert_eq!((token_of("stream=00000000000000ff"), token_of("stream=x"), token_of("")), (Some(255), None, None));
    }
}
