//! The null server: writes what it is told to the streams that it has, and does nothing else.
//!
//! A process of its own over the same HTTP/2 and gRPC as `wasmplane serve`, set up in the same way. No session, no names,
//! no versions, no status: what is left is what no control plane of this kind can do without.

use std::convert::Infallible;
use std::fs;
use std::io::BufRead as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures::Stream as _;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::codec::BufferSettings;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use crate::class::{Class, PerClass};

/// What it writes, in files of the folder that it is started with: to a stream that holds nothing yet, and to all.
pub const FIRST: &str = "first";
pub const CHANGE: &str = "change";

/// Serves until its stdin ends. A line names the classes to whose streams their change is written.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let entered = runtime.enter();
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    drop(entered);
    eprintln!(r#"{{"message":"listening","service":"xds","address":"{}"}}"#, listener.local_addr()?);
    let first = PerClass::of(|class| fs::read(file(folder, FIRST, class)).unwrap_or_default().into());
    let said = Arc::new(Said { first, changes: PerClass::of(|_| watch::Sender::new(Bytes::new())) });
    runtime.spawn(accept(listener, said.clone()));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut changes = Vec::new();
        for class in line.split(' ').map(str::parse::<Class>) {
            let class = class?;
            changes.push((class, Bytes::from(fs::read(file(folder, CHANGE, class))?)));
        }
        for (class, bytes) in changes {
            said.changes.get(class).send_replace(bytes);
        }
    }
    Ok(())
}

pub fn file(folder: &Path, what: &str, class: Class) -> std::path::PathBuf {
    folder.join(format!("{what}-{class}"))
}

struct Said {
    first: PerClass<Bytes>,
    changes: PerClass<watch::Sender<Bytes>>,
}

async fn accept(listener: TcpListener, said: Arc<Said>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(connection(socket, said.clone()))),
            Err(error) => {
                eprintln!("connection not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// As `xds::accept` does it.
async fn connection(socket: TcpStream, said: Arc<Said>) {
    let _ = socket.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let decoder = ProstDecoder::new(BufferSettings::new(512, 16 << 20));
        let inbound = Streaming::new_request(decoder, request.into_body(), None, None);
        let mut response = Response::new(Writing { inbound, said: said.clone(), changes: None });
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(10_000)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    // Clients cut their connections.
    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
}

/// A response body: reads requests and forgets them, and writes what is said.
struct Writing {
    inbound: Streaming<DeltaDiscoveryRequest>,
    said: Arc<Said>,
    /// From the first request on, which tells the class.
    changes: Option<WatchStream<Bytes>>,
}

impl Writing {
    /// What a stream is written first; nothing where its client comes back with all that there is.
    fn introduce(&mut self, request: &DeltaDiscoveryRequest) -> anyhow::Result<Bytes> {
        let class = request.node.as_ref().context("a node comes first")?.cluster.parse()?;
        self.changes = Some(WatchStream::from_changes(self.said.changes.get(class).subscribe()));
        let holds_state = !request.initial_resource_versions.is_empty();
        Ok(if holds_state { Bytes::new() } else { self.said.first.get(class).clone() })
    }
}

impl Body for Writing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(changes) = &mut self.changes
                && let Poll::Ready(Some(bytes)) = Pin::new(changes).poll_next(context)
            {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(request) = ready!(Pin::new(&mut self.inbound).poll_next(context)) else {
                return Poll::Ready(None);
            };
            let request = request?;
            if self.changes.is_none() {
                let first = self.introduce(&request).map_err(|error| Status::invalid_argument(error.to_string()))?;
                if !first.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
            }
        }
    }
}
