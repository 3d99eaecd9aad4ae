//! A hand-written Envoy that asks in any of four ways: both protocols, by ADS and by the services of one type each.
//!
//! It tells in words what it reads (`cds a@1 b@1 -c`), and keeps all of it, so that a test compares the whole
//! conversation at its end: a response too many shows there, wherever it came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use envoy_types::pb::google::rpc::Status;
use prost::Message as _;
use tonic::Code;
use tonic::transport::Channel;
use wasmplane::snapshot::ResourceType;
use wasmplane::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};

use super::envoy::{Delta, Sotw, channel, strings};
use super::plane::Plane;

/// How an Envoy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    SotwAds,
    SotwSeparate,
    DeltaAds,
    DeltaSeparate,
}

pub const WAYS: [Way; 4] = [Way::SotwAds, Way::SotwSeparate, Way::DeltaAds, Way::DeltaSeparate];
pub const SOTW: [Way; 2] = [Way::SotwAds, Way::SotwSeparate];
pub const DELTA: [Way; 2] = [Way::DeltaAds, Way::DeltaSeparate];
pub const ADS: [Way; 2] = [Way::SotwAds, Way::DeltaAds];

impl Way {
    pub fn is_delta(self) -> bool {
        DELTA.contains(&self)
    }

    pub fn is_ads(self) -> bool {
        ADS.contains(&self)
    }
}

/// One Envoy, with a stream, or one per type.
pub struct FakeEnvoy {
    pub way: Way,
    /// Its requests do not say of what type they are.
    pub omits_type_url: bool,
    /// Everything that it has read, in words.
    pub log: Vec<String>,
    node_id: String,
    url: String,
    channel: Channel,
    /// One without a type for ADS.
    lines: BTreeMap<Option<ResourceType>, Line>,
    sides: BTreeMap<ResourceType, Side>,
    /// Read, and not answered yet.
    pub unanswered: VecDeque<Received>,
    /// What the control plane should have heard of: requests that ask for something, and answers.
    asked: usize,
    answered: usize,
}

enum Line {
    Sotw(Sotw),
    Delta(Delta),
}

/// A response, whichever protocol it came by.
#[derive(Clone, Debug)]
pub struct Received {
    pub resource_type: ResourceType,
    pub nonce: String,
    /// State of the world only.
    pub version_info: String,
    /// In words, and (delta) their versions.
    pub resources: Vec<(String, String)>,
    pub removed: Vec<String>,
    /// On the wire.
    pub bytes: usize,
}

/// The client's side of one type.
#[derive(Default)]
struct Side {
    names: BTreeSet<String>,
    version_info: String,
    nonce: String,
    /// Delta: what it has accepted, with versions.
    held: BTreeMap<String, String>,
}

impl FakeEnvoy {
    pub async fn of(plane: &Plane, way: Way) -> Self {
        Self::at(&plane.url, way, "e").await
    }

    pub async fn at(url: &str, way: Way, node_id: &str) -> Self {
        Self {
            way,
            omits_type_url: false,
            log: Vec::new(),
            node_id: node_id.into(),
            url: url.into(),
            channel: channel(url).await,
            lines: BTreeMap::new(),
            sides: BTreeMap::new(),
            unanswered: VecDeque::new(),
            asked: 0,
            answered: 0,
        }
    }

    /// The first request of a type, or further names of it.
    pub async fn subscribe(&mut self, of: ResourceType, names: &[&str]) {
        let node = self.open(of).await;
        let side = self.sides.entry(of).or_default();
        side.names.extend(strings(names));
        self.asked += 1;
        self.send(of, node, names, &[], None);
    }

    pub fn unsubscribe(&mut self, of: ResourceType, names: &[&str]) {
        let side = self.sides.get_mut(&of).expect("subscribed before");
        side.names.retain(|name| !names.contains(&name.as_str()));
        self.asked += usize::from(self.way.is_delta() || !side.names.is_empty());
        self.send(of, None, &[], names, None);
    }

    /// Reads the next response on the stream of that type.
    pub async fn read(&mut self, of: ResourceType) -> Received {
        let key = self.key(of);
        let received = match self.lines.get_mut(&key).expect("the stream was opened") {
            Line::Sotw(stream) => Received::sotw(&stream.next().await),
            Line::Delta(stream) => Received::delta(&stream.next().await),
        };
        self.take(received.clone());
        received
    }

    /// Accepts the oldest response that has no answer.
    pub fn ack(&mut self) {
        let response = self.unanswered.pop_front().expect("a response to accept");
        let side = self.sides.get_mut(&response.resource_type).expect("it was asked for");
        side.version_info.clone_from(&response.version_info);
        for name in &response.removed {
            side.held.remove(name);
        }
        let accepted = response.resources.iter().map(|(words, version)| (name_of(words).to_owned(), version.clone()));
        side.held.extend(accepted);
        self.answer(&response, None);
    }

    /// Refuses it.
    pub fn nack(&mut self, words: &str) {
        let response = self.unanswered.pop_front().expect("a response to refuse");
        self.answer(&response, Some(words));
    }

    /// Reads the next response on the stream of that type, and accepts it.
    pub async fn accept(&mut self, of: ResourceType) -> Received {
        let received = self.read(of).await;
        while !self.unanswered.is_empty() {
            self.ack();
        }
        received
    }

    /// What it holds of a type: the version of all (state of the world), or that of each.
    pub fn holds(&self, of: ResourceType) -> (&str, &BTreeMap<String, String>) {
        let side = &self.sides[&of];
        (&side.version_info, &side.held)
    }

    /// Reads the next response and refuses it.
    pub async fn refuse(&mut self, of: ResourceType, words: &str) -> Received {
        let received = self.read(of).await;
        self.nack(words);
        received
    }

    /// Waits until the control plane has heard everything that was said.
    pub async fn heard(&self, plane: &Plane) {
        plane.until_heard(&self.node_id, self.asked, self.answered).await;
    }

    /// Goes away and comes back with what it holds.
    pub async fn reconnect(&mut self, url: &str) {
        self.lines.clear();
        self.unanswered.clear();
        self.channel = channel(url).await;
        if self.url != url {
            // Another control plane has heard nothing yet.
            (self.asked, self.answered) = (0, 0);
            self.url = url.into();
        }
        for of in self.sides.keys().copied().collect::<Vec<_>>() {
            self.sides.get_mut(&of).expect("its key was listed").nonce.clear();
            let node = self.open(of).await;
            let names: Vec<String> = self.sides[&of].names.iter().cloned().collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.asked += 1;
            self.send(of, node, &names, &[], None);
        }
    }

    /// Says nothing more, and reads everything until the control plane ends the streams, too: the whole conversation.
    pub async fn finish(mut self) -> Vec<String> {
        for (_, line) in std::mem::take(&mut self.lines) {
            let status = match line {
                Line::Sotw(mut stream) => {
                    let (rest, status) = stream.rest().await;
                    rest.iter().for_each(|response| self.take(Received::sotw(response)));
                    status
                }
                Line::Delta(mut stream) => {
                    let (rest, status) = stream.rest().await;
                    rest.iter().for_each(|response| self.take(Received::delta(response)));
                    status
                }
            };
            assert_eq!(status.code(), Code::Ok, "{status}");
        }
        self.log
    }

    /// How the only stream ends.
    pub async fn end(&mut self) -> tonic::Status {
        match self.lines.values_mut().next().expect("a stream is open") {
            Line::Sotw(stream) => stream.end().await,
            Line::Delta(stream) => stream.end().await,
        }
    }

    /// A request of a test's own making, on a stream that is open.
    pub fn say_sotw(&self, request: DiscoveryRequest) {
        match self.lines.values().next() {
            Some(Line::Sotw(stream)) => stream.send(request),
            _ => panic!("no stream of the state of the world is open"),
        }
    }

    /// A request of a test's own making, on a stream that is open.
    pub fn say_delta(&self, request: DeltaDiscoveryRequest) {
        match self.lines.values().next() {
            Some(Line::Delta(stream)) => stream.send(request),
            _ => panic!("no delta stream is open"),
        }
    }

    fn take(&mut self, received: Received) {
        self.log.push(received.in_words());
        self.unanswered.push_back(received);
    }

    fn key(&self, of: ResourceType) -> Option<ResourceType> {
        (!self.way.is_ads()).then_some(of)
    }

    /// Opens the stream of a type where it is not open; the node, which its first request must carry.
    async fn open(&mut self, of: ResourceType) -> Option<Node> {
        let key = self.key(of);
        if self.lines.contains_key(&key) {
            return None;
        }
        let line = match self.way {
            Way::SotwAds => Line::Sotw(Sotw::ads_on(self.channel.clone()).await),
            Way::DeltaAds => Line::Delta(Delta::ads_on(self.channel.clone()).await),
            Way::SotwSeparate => Line::Sotw(separate_sotw(self.channel.clone(), of).await),
            Way::DeltaSeparate => Line::Delta(separate_delta(self.channel.clone(), of).await),
        };
        self.lines.insert(key, line);
        Some(Node { id: self.node_id.clone(), ..Node::default() })
    }

    fn answer(&mut self, response: &Received, error: Option<&str>) {
        let side = self.sides.get_mut(&response.resource_type).expect("it was asked for");
        side.nonce.clone_from(&response.nonce);
        self.answered += 1;
        let error = error.map(|words| Status { message: words.into(), ..Status::default() });
        self.send(response.resource_type, None, &[], &[], Some((response.nonce.clone(), error)));
    }

    fn send(
        &mut self,
        of: ResourceType,
        node: Option<Node>,
        subscribe: &[&str],
        unsubscribe: &[&str],
        answer: Option<(String, Option<Status>)>,
    ) {
        let side = &self.sides[&of];
        let (nonce, error_detail) = answer.unwrap_or_default();
        let type_url = if self.omits_type_url { String::new() } else { of.type_url().into() };
        match &self.lines[&self.key(of)] {
            Line::Sotw(stream) => stream.send(DiscoveryRequest {
                node,
                type_url,
                version_info: side.version_info.clone(),
                response_nonce: side.nonce.clone(),
                resource_names: side.names.iter().cloned().collect(),
                error_detail,
                ..DiscoveryRequest::default()
            }),
            Line::Delta(stream) => stream.send(DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: strings(subscribe),
                resource_names_unsubscribe: strings(unsubscribe),
                // Said in the first request of a type.
                initial_resource_versions: match side.nonce.is_empty() {
                    true => side.held.clone().into_iter().collect(),
                    false => Default::default(),
                },
                response_nonce: nonce,
                error_detail,
                node,
                ..DeltaDiscoveryRequest::default()
            }),
        }
    }
}

/// Before each gRPC message.
const GRPC_HEAD: usize = 5;

impl Received {
    pub fn in_words(&self) -> String {
        let resources = self.resources.iter().map(|(words, _)| words.clone());
        let removed = self.removed.iter().map(|name| format!("-{name}"));
        let kind = self.resource_type.short_name().to_owned();
        [kind].into_iter().chain(resources).chain(removed).collect::<Vec<_>>().join(" ")
    }

    fn sotw(response: &DiscoveryResponse) -> Self {
        let resources = response.resources.iter().map(|resource| (content(&resource.value), String::new()));
        Self {
            resource_type: ResourceType::from_type_url(&response.type_url).expect("a type that is served"),
            nonce: response.nonce.clone(),
            version_info: response.version_info.clone(),
            resources: resources.collect(),
            removed: Vec::new(),
            bytes: GRPC_HEAD + response.encoded_len(),
        }
    }

    fn delta(response: &DeltaDiscoveryResponse) -> Self {
        let resources = response.resources.iter().map(|resource| {
            let words = content(&resource.resource.as_ref().expect("a resource has a body").value);
            assert_eq!(name_of(&words), resource.name);
            (words, resource.version.clone())
        });
        Self {
            resource_type: ResourceType::from_type_url(&response.type_url).expect("a type that is served"),
            nonce: response.nonce.clone(),
            version_info: String::new(),
            resources: resources.collect(),
            removed: response.removed_resources.clone(),
            bytes: GRPC_HEAD + response.encoded_len(),
        }
    }
}

fn name_of(words: &str) -> &str {
    words.split('@').next().unwrap_or_default()
}

/// The first string of a resource, or its beginning: name and content in the tests of the protocol, the name elsewhere.
fn content(body: &[u8]) -> String {
    let words = String::decode(body).expect("a resource begins with a string");
    words.chars().take(100).collect()
}

async fn separate_sotw(channel: Channel, of: ResourceType) -> Sotw {
    match of {
        Listener => {
            let mut client = ListenerDiscoveryServiceClient::new(channel);
            Sotw::open(async move |requests| client.stream_listeners(requests).await).await
        }
        Route => {
            let mut client = RouteDiscoveryServiceClient::new(channel);
            Sotw::open(async move |requests| client.stream_routes(requests).await).await
        }
        Cluster => {
            let mut client = ClusterDiscoveryServiceClient::new(channel);
            Sotw::open(async move |requests| client.stream_clusters(requests).await).await
        }
        Endpoint => {
            let mut client = EndpointDiscoveryServiceClient::new(channel);
            Sotw::open(async move |requests| client.stream_endpoints(requests).await).await
        }
        ExtensionConfig => {
            let mut client = ExtensionConfigDiscoveryServiceClient::new(channel);
            Sotw::open(async move |requests| client.stream_extension_configs(requests).await).await
        }
    }
}

async fn separate_delta(channel: Channel, of: ResourceType) -> Delta {
    match of {
        Listener => {
            let mut client = ListenerDiscoveryServiceClient::new(channel);
            Delta::open(async move |requests| client.delta_listeners(requests).await).await
        }
        Route => {
            let mut client = RouteDiscoveryServiceClient::new(channel);
            Delta::open(async move |requests| client.delta_routes(requests).await).await
        }
        Cluster => {
            let mut client = ClusterDiscoveryServiceClient::new(channel);
            Delta::open(async move |requests| client.delta_clusters(requests).await).await
        }
        Endpoint => {
            let mut client = EndpointDiscoveryServiceClient::new(channel);
            Delta::open(async move |requests| client.delta_endpoints(requests).await).await
        }
        ExtensionConfig => {
            let mut client = ExtensionConfigDiscoveryServiceClient::new(channel);
            Delta::open(async move |requests| client.delta_extension_configs(requests).await).await
        }
    }
}
