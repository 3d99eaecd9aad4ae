//! The client's side of discovery streams, as Envoy plays it.

use std::future::Future;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use wasmplane::snapshot::ResourceType;

/// Small, so that a client that does not read is felt at once.
const WINDOW_BYTES: u32 = 65_535;

/// What is awaited comes within milliseconds, or never.
pub async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), awaited).await.expect("nothing came within 10 s")
}

pub async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::new(url.to_owned()).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    soon(endpoint.connect()).await.unwrap()
}

/// One stream: requests go out, responses come in.
pub struct Stream<Q, R> {
    pub requests: mpsc::UnboundedSender<Q>,
    responses: Streaming<R>,
}

pub type Sotw = Stream<DiscoveryRequest, DiscoveryResponse>;
pub type Delta = Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

impl<Q, R> Stream<Q, R> {
    pub async fn open<F>(call: impl FnOnce(UnboundedReceiverStream<Q>) -> F) -> Self
    where
        F: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let responses = soon(call(UnboundedReceiverStream::new(outgoing))).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub fn send(&self, request: Q) {
        assert!(self.requests.send(request).is_ok(), "the stream has ended");
    }

    pub async fn next(&mut self) -> R {
        soon(self.responses.message()).await.unwrap().expect("the stream has ended")
    }

    /// Closes the client's side: all that still comes, and how the stream ends.
    pub async fn rest(&mut self) -> (Vec<R>, Status) {
        self.requests = mpsc::unbounded_channel().0;
        let mut rest = Vec::new();
        loop {
            match soon(self.responses.message()).await {
                Ok(Some(response)) => rest.push(response),
                Ok(None) => return (rest, Status::ok("")),
                Err(status) => return (rest, status),
            }
        }
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Status {
        match soon(self.responses.message()).await {
            Err(status) => status,
            Ok(None) => Status::ok(""),
            Ok(Some(_)) => panic!("a response instead of the end"),
        }
    }
}

impl Sotw {
    pub async fn ads(url: &str) -> Self {
        Self::ads_on(channel(url).await).await
    }

    pub async fn ads_on(channel: Channel) -> Self {
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Self::open(async move |requests| client.stream_aggregated_resources(requests).await).await
    }

    pub fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.send(DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: strings(names),
            ..DiscoveryRequest::default()
        });
    }
}

impl Delta {
    pub async fn ads(url: &str) -> Self {
        Self::ads_on(channel(url).await).await
    }

    pub async fn ads_on(channel: Channel) -> Self {
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Self::open(async move |requests| client.delta_aggregated_resources(requests).await).await
    }
}

/// A first request of a type.
pub fn sotw(node_id: &str, resource_type: ResourceType, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node(node_id),
        type_url: resource_type.type_url().into(),
        resource_names: strings(names),
        ..DiscoveryRequest::default()
    }
}

/// A first request of a type.
pub fn delta(node_id: &str, resource_type: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node(node_id),
        type_url: resource_type.type_url().into(),
        resource_names_subscribe: strings(names),
        ..DeltaDiscoveryRequest::default()
    }
}

fn node(id: &str) -> Option<Node> {
    (!id.is_empty()).then(|| Node { id: id.into(), ..Node::default() })
}

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
