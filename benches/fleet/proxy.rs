//! One simulated Envoy: a connection, a delta stream, and what it holds. It subscribes as Envoy does, and ACKs all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::{Buf as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use h2::SendStream;
use http::{Method, Request};
use tokio::net::TcpStream;

use crate::message::{Response, frame};

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
const METHOD: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const WINDOW: u32 = 1 << 20;

/// Versions by type and name; outlives the connection, as in an Envoy.
#[derive(Debug, Default)]
pub struct Held {
    versions: BTreeMap<&'static str, BTreeMap<String, String>>,
    extension_names: BTreeSet<String>,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Whether it has all that its listeners name.
    pub fn is_complete(&self) -> bool {
        let held = |type_url| self.versions.get(type_url).map_or(0, BTreeMap::len);
        held(LISTENER) > 0 && held(EXTENSION) == self.extension_names.len()
    }
}

/// Told of each response.
pub trait Observer {
    /// The stream is open: the server has answered its headers.
    fn opened(&self);
    /// An ECDS response has arrived, or another.
    fn received(&self, message: &[u8], is_extension: bool);
    fn holds(&self, held: &Held);
}

/// Runs a proxy until the connection ends.
pub async fn run(address: SocketAddr, node: Node, held: &mut Held, observer: &impl Observer) -> anyhow::Result<()> {
    let socket = TcpStream::connect(address).await.context("the server accepts")?;
    socket.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(socket)
        .await?;
    let exchange = async {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}/{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, requests) = sender.ready().await?.send_request(request, false)?;
        let mut stream = Stream { requests, held };
        stream.open(node)?;
        let mut body = response.await?.into_body();
        observer.opened();
        let mut buffer = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            buffer.extend_from_slice(&chunk);
            while let Some(message) = next_message(&mut buffer) {
                let is_extension = stream.take(&message)?;
                observer.received(&message, is_extension);
                observer.holds(stream.held);
            }
        }
        anyhow::bail!("the server ended the stream: {:?}", body.trailers().await?)
    };
    // One task drives both: half the memory, and nothing is left when it is dropped.
    tokio::select! {
        result = exchange => result,
        result = connection => result.context("the connection ended"),
    }
}

/// Takes a whole message off the front.
fn next_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let header: [u8; 5] = buffer.get(..5)?.try_into().ok()?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    let message = buffer.split_to(length).freeze();
    if buffer.is_empty() {
        // Gives the memory back with the message.
        *buffer = BytesMut::new();
    }
    Some(message)
}

struct Stream<'a> {
    requests: SendStream<Bytes>,
    held: &'a mut Held,
}

impl Stream<'_> {
    /// A new process asks for clusters first; one that comes back asks for all at once and says what it holds.
    fn open(&mut self, node: Node) -> anyhow::Result<()> {
        let mut node = Some(node);
        if self.held.is_empty() {
            return self.subscribe(CLUSTER, Vec::new(), node);
        }
        for type_url in [CLUSTER, LISTENER, EXTENSION] {
            let names = match type_url {
                EXTENSION => self.held.extension_names.iter().cloned().collect(),
                _ => Vec::new(),
            };
            self.subscribe(type_url, names, node.take())?;
        }
        Ok(())
    }

    fn subscribe(&mut self, type_url: &'static str, names: Vec<String>, node: Option<Node>) -> anyhow::Result<()> {
        let held = self.held.versions.get(type_url).into_iter().flatten();
        let initial_resource_versions: HashMap<_, _> =
            held.map(|(name, version)| (name.clone(), version.clone())).collect();
        self.send(&DeltaDiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions,
            ..Default::default()
        })
    }

    /// Takes a response in and ACKs it; returns whether it was ECDS.
    fn take(&mut self, message: &[u8]) -> anyhow::Result<bool> {
        let response = Response::read(message);
        let known = [CLUSTER, LISTENER, EXTENSION].into_iter().find(|known| *known == response.type_url);
        let type_url = known.context("the server sent a type that nobody asked for")?;
        let versions = self.held.versions.entry(type_url).or_default();
        for resource in &response.resources {
            versions.insert(resource.name.to_owned(), resource.version.to_owned());
        }
        if type_url == LISTENER {
            // Envoy subscribes to new names before it acknowledges the listener.
            let names: BTreeSet<_> = response.resources.iter().flat_map(|it| it.extension_names()).collect();
            let new: Vec<_> = names.difference(&self.held.extension_names).cloned().collect();
            self.held.extension_names.extend(names);
            if !new.is_empty() {
                self.subscribe(EXTENSION, new, None)?;
            }
        }
        self.send(&DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: response.nonce.to_owned(),
            ..Default::default()
        })?;
        if type_url == CLUSTER && !self.held.versions.contains_key(LISTENER) {
            self.subscribe(LISTENER, Vec::new(), None)?;
        }
        Ok(type_url == EXTENSION)
    }

    fn send(&mut self, request: &DeltaDiscoveryRequest) -> anyhow::Result<()> {
        Ok(self.requests.send_data(frame(request), false)?)
    }
}
