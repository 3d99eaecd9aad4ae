//! An HTTP/1.1 client that holds its connection in its hands, so that a test sees when one is closed.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::{HeaderMap, Request, request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
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

/// A keep-alive connection to loopback.
pub struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    /// Drives the socket; ends with it.
    _socket: JoinSet<()>,
}

impl Connection {
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        let mut socket = JoinSet::new();
        // How it ends is seen by the request that it ends under.
        socket.spawn(async move { drop(connection.await) });
        Ok(Self { requests, _socket: socket })
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let request = Request::get(path);
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    async fn send(&mut self, request: request::Builder) -> anyhow::Result<Response> {
        let request = request.header("host", "test").body(Empty::new())?;
        let response = self.requests.send_request(request).await?;
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
        self.requests.ready().await.is_ok()
    }
}
