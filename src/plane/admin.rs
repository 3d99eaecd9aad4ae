//! The admin port: the gRPC admin API with reflection, and plain HTTP for probes and metrics.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryServiceServer;
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::csds::ClientStatus;
use super::diff::{Subject, diff};
use super::explain::Question;
use super::messages;
use super::metrics::Metrics;
use super::node_matcher::Matchers;
use super::proxies::ProxyKey;
use super::watch::Rollouts;
use crate::model::{self, PluginId};
use crate::protobuf::admin::admin_server::{Admin, AdminServer};
use crate::protobuf::admin::{
    DiffManifestsRequest, DiffManifestsResponse, ExplainProxyRequest, ExplainProxyResponse, FILE_DESCRIPTOR_SET,
    ListMessagesRequest, ListMessagesResponse, ListPluginsRequest, ListPluginsResponse, ListProxiesRequest,
    ListProxiesResponse, Proxy, WatchRolloutRequest, WatchRolloutResponse,
};
use crate::rollout::{Counts, ResourceStatus};
use crate::sources::{Loaded, load_texts};
use crate::xds::{Recordings, StreamId};

/// A question to the reconciler.
#[derive(Debug)]
pub enum Query {
    Proxies(oneshot::Sender<Vec<Proxy>>),
    /// As it was a moment ago, where many ask.
    Plugins(oneshot::Sender<ListPluginsResponse>),
    /// As it is now, for those who watch.
    Rollout(oneshot::Sender<ListPluginsResponse>),
    /// What a change of manifests is compared with.
    Subjects(oneshot::Sender<Running>),
    /// About the proxy of that id; `None` when none is connected.
    Explain(String, oneshot::Sender<Option<Question>>),
    /// The streams and the node id of the proxy of that id; `None` when none is connected.
    Streams(String, oneshot::Sender<Option<(Vec<StreamId>, String)>>),
    /// The proxies that are meant, in the order of their arrival.
    Matching(Arc<Matchers>, oneshot::Sender<Vec<ProxyKey>>),
    /// What a proxy said of itself, and how far each of its resources has come; `None` when it has left.
    Resources(ProxyKey, oneshot::Sender<Option<(model::Proxy, Vec<ResourceStatus>)>>),
    Metrics(oneshot::Sender<Gauges>),
}

/// What runs now. Cheap to make: what is large is shared.
#[derive(Debug)]
pub struct Running {
    pub root_namespace: String,
    pub loaded: Arc<Loaded>,
    pub subjects: Vec<Subject>,
}

/// What metrics show of the reconciler's state.
#[derive(Debug, Default)]
pub struct Gauges {
    pub plugins: Vec<(PluginId, Counts)>,
    pub config_errors: usize,
}

/// Questions that may wait: people and scrapers ask, not proxies.
pub const QUERIES: usize = 64;

/// Manifests that may be sent to be compared: some 20,000 plugins.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// A comparison or an explanation takes a core for as long as it lasts.
const WORK_AT_ONCE: usize = 1;

/// Descriptors of client status discovery, for gRPC reflection.
const CLIENT_STATUS_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/client_status.fds"));

/// How long requests under way may take once the control plane is to end.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// What the admin port serves from.
#[derive(Clone)]
pub struct AdminState {
    pub queries: mpsc::Sender<Query>,
    pub rollouts: Arc<Rollouts>,
    /// Whether proxies are being served.
    pub ready: watch::Receiver<bool>,
    pub metrics: Arc<Metrics>,
    pub recordings: Recordings,
    pub shutdown: CancellationToken,
}

/// Serves the admin port until shutdown.
pub async fn serve(listener: TcpListener, state: AdminState) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(CLIENT_STATUS_DESCRIPTORS)
        .build_v1()
        .expect("the build wrote valid descriptor sets");
    let http = axum::Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state.clone());
    let csds = ClientStatus { queries: state.queries.clone(), shutdown: shutdown.clone() };
    let csds = ClientStatusDiscoveryServiceServer::new(csds);
    let service = AdminService { state, turns: Semaphore::new(WORK_AT_ONCE) };
    let service = AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let router =
        tonic::service::Routes::new(service).add_service(csds).add_service(reflection).into_axum_router().merge(http);
    let serving = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(SHUTDOWN_WITHIN).await;
    };
    tokio::select! {
        served = serving.into_future() => served,
        // Somebody reads slowly, or keeps a request half sent.
        () = too_long => Ok(()),
    }
}

async fn readyz(Shared(state): Shared<AdminState>) -> (StatusCode, &'static str) {
    if *state.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "sources or modules are still loading\n")
    }
}

async fn metrics(Shared(state): Shared<AdminState>) -> impl IntoResponse {
    let (sender, gauges) = oneshot::channel();
    // Without the reconciler, the rest is shown.
    let gauges = match state.queries.send(Query::Metrics(sender)).await {
        Ok(()) => gauges.await.unwrap_or_default(),
        Err(_) => Gauges::default(),
    };
    let headers = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (headers, state.metrics.encode(&gauges))
}

struct AdminService {
    state: AdminState,
    /// For work that is not to be done by the reconciler.
    turns: Semaphore,
}

impl AdminService {
    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Status> {
        ask(&self.state.queries, query).await.ok_or_else(|| Status::unavailable("the control plane is shutting down"))
    }

    /// Does it on a thread of its own, when its turn comes.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
        tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("it crashed: see the log"))
    }
}

/// `None` when the control plane is about to end.
pub async fn ask<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    queries.send(query(sender)).await.ok()?;
    answer.await.ok()
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_proxies(&self, _: Request<ListProxiesRequest>) -> Result<Response<ListProxiesResponse>, Status> {
        let proxies = self.ask(Query::Proxies).await?;
        Ok(Response::new(ListProxiesResponse { proxies }))
    }

    async fn list_plugins(&self, _: Request<ListPluginsRequest>) -> Result<Response<ListPluginsResponse>, Status> {
        Ok(Response::new(self.ask(Query::Plugins).await?))
    }

    async fn explain_proxy(
        &self,
        request: Request<ExplainProxyRequest>,
    ) -> Result<Response<ExplainProxyResponse>, Status> {
        let id = request.into_inner().id;
        let Some(question) = self.ask(|sender| Query::Explain(id.clone(), sender)).await? else {
            return Err(Status::not_found(format!("no proxy {id:?} is connected")));
        };
        let explanation = self.work(move || question.answer()).await?;
        Ok(Response::new(ExplainProxyResponse { explanation: Some(explanation) }))
    }

    async fn diff_manifests(
        &self,
        request: Request<DiffManifestsRequest>,
    ) -> Result<Response<DiffManifestsResponse>, Status> {
        let DiffManifestsRequest { files, show_config } = request.into_inner();
        let Running { root_namespace, loaded, subjects } = self.ask(Query::Subjects).await?;
        let compare = move || {
            let texts = files.into_iter().map(|file| (file.path.into(), file.text.into_bytes()));
            diff(&loaded, &load_texts(texts.collect()), &subjects, &root_namespace, show_config)
        };
        self.work(compare).await.map(Response::new)
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let id = request.into_inner().id;
        let connected = self.ask(|sender| Query::Streams(id.clone(), sender)).await?;
        let (streams, node_id) = connected.unwrap_or_else(|| (Vec::new(), id.clone()));
        let recordings = self.state.recordings.of(&streams, &node_id);
        if recordings.is_empty() {
            return Err(Status::not_found(format!("no proxy {id:?} is connected, and none was lately")));
        }
        Ok(Response::new(ListMessagesResponse { recordings: recordings.iter().map(messages::view).collect() }))
    }

    type WatchRolloutStream = Pin<Box<dyn Stream<Item = Result<WatchRolloutResponse, Status>> + Send>>;

    async fn watch_rollout(
        &self,
        _: Request<WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let events = self.state.rollouts.watch()?.take_until(self.state.shutdown.clone().cancelled_owned());
        Ok(Response::new(events.map(Ok).boxed()))
    }
}
