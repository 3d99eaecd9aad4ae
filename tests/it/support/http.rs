//! An HTTP client that holds its connection in its hands, so that a test sees when one is closed.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::{HeaderMap, Request, request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(20);

/// One GET over a connection of its own, to loopback.
pub async fn get(port: u16, path: &str) -> anyhow::Result<Response> {
    get_with(port, path, &[]).await
}

/// [`get`] with request headers.
pub async fn get_with(port: u16, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    timeout(TIMEOUT, async { Connection::open(port).await?.get(path, headers).await }).await?
}

/// One POST without a body, for Envoy's admin server.
pub async fn post(port: u16, path: &str) -> anyhow::Result<Response> {
    timeout(TIMEOUT, async { Connection::open(port).await?.send(Request::post(path)).await }).await?
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the upstream says it was asked.
    pub fn echo(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The letters of the plugins made by [`super::modules::order`], in the order in which the request passed them.
    pub fn order(&self) -> String {
        self.echo()["headers"]["x-order"].as_str().unwrap_or_default().replace(',', "")
    }
}

/// Which HTTP a connection speaks, in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    /// With prior knowledge.
    Two,
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// A keep-alive connection to loopback.
pub struct Connection {
    requests: Sender,
    /// Drives the socket; ends with it.
    _socket: JoinSet<()>,
}

impl Connection {
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        Self::speaking(port, Version::One).await
    }

    pub async fn speaking(port: u16, version: Version) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (io, mut socket) = (TokioIo::new(stream), JoinSet::new());
        // How it ends is seen by the request that it ends under.
        let requests = match version {
            Version::One => {
                let (requests, connection) = http1::handshake(io).await?;
                socket.spawn(async move { drop(connection.await) });
                Sender::One(requests)
            }
            Version::Two => {
                let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                socket.spawn(async move { drop(connection.await) });
                Sender::Two(requests)
            }
        };
        Ok(Self { requests, _socket: socket })
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let request = Request::get(path);
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    async fn send(&mut self, request: request::Builder) -> anyhow::Result<Response> {
        let response = match &mut self.requests {
            Sender::One(requests) => requests.send_request(request.header("host", "test").body(Empty::new())?).await?,
            Sender::Two(requests) => {
                let uri: axum::http::Uri = request.uri_ref().cloned().unwrap_or_default();
                let uri = format!("http://test{}", uri.path()).parse::<axum::http::Uri>()?;
                requests.send_request(request.uri(uri).body(Empty::new())?).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Is it there for one more request? False when the other side closed it or announced to.
    pub async fn is_open(&mut self) -> bool {
        match &mut self.requests {
            Sender::One(requests) => requests.ready().await.is_ok(),
            Sender::Two(requests) => requests.ready().await.is_ok(),
        }
    }
}
