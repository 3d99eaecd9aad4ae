//! `envoy.service.status.v3.ClientStatusDiscoveryService`: what each connected proxy has, for tools that speak it.
//!
//! Names, versions and states. Contents are never given: they hold plugin configuration, modules and keys.

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::admin::v3::UpdateFailureState;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryService;
use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use futures::{Stream, StreamExt as _, future, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::admin::{Query, ask};
use super::node_matcher::Matchers;
use crate::model::Proxy;
use crate::rollout::ResourceStatus;

/// Matchers of one request: people write a handful.
const MAX_MATCHERS: usize = 100;

/// Answers from the reconciler's state.
#[derive(Clone)]
pub struct ClientStatus {
    pub queries: mpsc::Sender<Query>,
    pub shutdown: CancellationToken,
}

impl ClientStatus {
    async fn answer(&self, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        if request.node_matchers.len() > MAX_MATCHERS {
            let count = request.node_matchers.len();
            return Err(Status::invalid_argument(format!("{count} node_matchers; at most {MAX_MATCHERS} are taken")));
        }
        let matchers =
            Matchers::new(&request.node_matchers).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let keys = ask(&self.queries, |sender| Query::Matching(Arc::new(matchers), sender)).await.ok_or_else(ending)?;
        let mut config = Vec::new();
        // One by one, so that proxies are served between two answers of a large fleet.
        for key in keys {
            let known = ask(&self.queries, |sender| Query::Resources(key, sender)).await.ok_or_else(ending)?;
            // One that has left meanwhile is left out.
            config.extend(known.map(|(proxy, resources)| client_config(&proxy, resources)));
        }
        Ok(ClientStatusResponse { config })
    }
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatus {
    type StreamClientStatusStream = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(request.get_ref()).await.map(Response::new)
    }

    /// Each request is answered once, with what holds then.
    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move { service.answer(&request?).await }
        });
        let answers = answers.take_until(self.shutdown.clone().cancelled_owned());
        // A client that has ended its side is told OK.
        let shutdown = self.shutdown.clone();
        let last =
            stream::once(async move { shutdown.is_cancelled().then(|| Err(ending())) }).filter_map(future::ready);
        Ok(Response::new(answers.chain(last).boxed()))
    }
}

fn ending() -> Status {
    Status::unavailable("the control plane is shutting down")
}

fn client_config(proxy: &Proxy, resources: Vec<ResourceStatus>) -> ClientConfig {
    ClientConfig {
        node: Some(node(proxy)),
        generic_xds_configs: resources.into_iter().map(xds_config).collect(),
        ..ClientConfig::default()
    }
}

/// As the proxy introduced itself, as far as it is kept.
fn node(proxy: &Proxy) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let labels = proxy.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let labels = Value { kind: Some(Kind::StructValue(Struct { fields: labels })) };
    let metadata = [("NAMESPACE", text(&proxy.namespace)), ("NAME", text(&proxy.name)), ("LABELS", labels)]
        .map(|(key, value)| (key.to_owned(), value));
    Node {
        id: proxy.node_id.clone(),
        cluster: proxy.cluster.clone(),
        metadata: Some(Struct { fields: metadata.into() }),
        ..Node::default()
    }
}

fn xds_config(resource: ResourceStatus) -> GenericXdsConfig {
    let status = match (&resource.accepted, &resource.refused) {
        (_, Some(_)) => ConfigStatus::Error,
        (Some(accepted), None) if *accepted == resource.wanted => ConfigStatus::Synced,
        _ => ConfigStatus::Stale,
    };
    GenericXdsConfig {
        type_url: resource.resource_type.type_url().to_owned(),
        name: resource.name,
        // What the client is known to hold.
        version_info: resource.accepted.map(|version| version.to_string()).unwrap_or_default(),
        config_status: status.into(),
        error_state: resource.refused.map(|words| UpdateFailureState {
            details: words.to_string(),
            version_info: resource.wanted.to_string(),
            ..UpdateFailureState::default()
        }),
        ..GenericXdsConfig::default()
    }
}
