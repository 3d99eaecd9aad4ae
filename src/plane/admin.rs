//! The admin port: the gRPC admin API with reflection, and plain HTTP for probes and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::diff::{Subject, diff};
use super::messages;
use super::metrics::Metrics;
use crate::model::PluginId;
use crate::protobuf::admin::admin_server::{Admin, AdminServer};
use crate::protobuf::admin::watch_rollout_response::Event;
use crate::protobuf::admin::{
    DiffManifestsRequest, DiffManifestsResponse, ExplainProxyRequest, ExplainProxyResponse, Explanation,
    FILE_DESCRIPTOR_SET, ListMessagesRequest, ListMessagesResponse, ListPluginsRequest, ListPluginsResponse,
    ListProxiesRequest, ListProxiesResponse, ModuleFailure, Plugin, Proxy, WatchRolloutRequest, WatchRolloutResponse,
};
use crate::rollout::PluginSummary;
use crate::sources::{Loaded, load_texts};
use crate::xds::{Recordings, StreamId};

/// A question to the reconciler.
#[derive(Debug)]
pub enum Query {
    Proxies(oneshot::Sender<Vec<Proxy>>),
    Plugins(oneshot::Sender<ListPluginsResponse>),
    /// What a change of manifests is compared with.
    Subjects(oneshot::Sender<Running>),
    /// About the proxy of that id; `None` when none is connected.
    Explain(String, oneshot::Sender<Option<Explanation>>),
    /// The streams and the node id of the proxy of that id; `None` when none is connected.
    Streams(String, oneshot::Sender<Option<(Vec<StreamId>, String)>>),
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
#[derive(Debug)]
pub struct Gauges {
    pub plugins: Vec<(PluginId, PluginSummary)>,
    pub config_errors: usize,
}

/// Questions that may wait: people and scrapers ask, not proxies.
pub const QUERIES: usize = 64;
/// Watchers are told at most this often; what happens between is one event.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Events that may wait for a slow watcher; the reconciler never waits for it.
const WATCH_EVENTS: usize = 64;

/// Manifests that may be sent to be compared: some 20,000 plugins.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// A comparison takes a core for as long as it lasts.
const DIFFS_AT_ONCE: usize = 1;

/// What the admin port serves from.
#[derive(Clone)]
pub struct AdminState {
    pub queries: mpsc::Sender<Query>,
    /// Counts the changes of the reconciler's state.
    pub changes: watch::Receiver<u64>,
    /// Whether proxies are being served.
    pub ready: watch::Receiver<bool>,
    pub metrics: Arc<Metrics>,
    pub recordings: Recordings,
    pub shutdown: CancellationToken,
}

/// Serves the admin port until shutdown.
pub async fn serve(listener: TcpListener, state: AdminState) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone().cancelled_owned();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the build wrote a valid descriptor set");
    let http = axum::Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state.clone());
    let service = AdminService { state, diffs: Semaphore::new(DIFFS_AT_ONCE) };
    let service = AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let router = tonic::service::Routes::new(service).add_service(reflection).into_axum_router().merge(http);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown)
        .await
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
    if state.queries.send(Query::Metrics(sender)).await.is_ok()
        && let Ok(gauges) = gauges.await
    {
        state.metrics.show(&gauges);
    }
    let headers = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (headers, state.metrics.encode())
}

struct AdminService {
    state: AdminState,
    diffs: Semaphore,
}

impl AdminService {
    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Status> {
        ask(&self.state.queries, query).await.ok_or_else(|| Status::unavailable("the control plane is shutting down"))
    }
}

async fn ask<T>(queries: &mpsc::Sender<Query>, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
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
        let explanation = self.ask(|sender| Query::Explain(id.clone(), sender)).await?;
        match explanation {
            Some(_) => Ok(Response::new(ExplainProxyResponse { explanation })),
            None => Err(Status::not_found(format!("no proxy {id:?} is connected"))),
        }
    }

    async fn diff_manifests(
        &self,
        request: Request<DiffManifestsRequest>,
    ) -> Result<Response<DiffManifestsResponse>, Status> {
        let DiffManifestsRequest { files, show_config } = request.into_inner();
        let _turn =
            self.diffs.acquire().await.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
        let Running { root_namespace, loaded, subjects } = self.ask(Query::Subjects).await?;
        let compare = move || {
            let texts = files.into_iter().map(|file| (file.path.into(), file.text.into_bytes()));
            diff(&loaded, &load_texts(texts.collect()), &subjects, &root_namespace, show_config)
        };
        let compared = tokio::task::spawn_blocking(compare).await;
        compared.map(Response::new).map_err(|_| Status::internal("the comparison failed"))
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
        let (sender, events) = mpsc::channel(WATCH_EVENTS);
        tokio::spawn(watch_rollout(self.state.clone(), sender));
        Ok(Response::new(ReceiverStream::new(events).map(Ok).boxed()))
    }
}

/// That a module failed once more, for the same reason, is no change of its plugin.
fn without_attempts(plugin: &Plugin) -> Plugin {
    let module_failure = plugin.module_failure.as_ref();
    let module_failure =
        module_failure.map(|failure| ModuleFailure { attempts: 0, next_try: String::new(), ..failure.clone() });
    Plugin { module_failure, ..plugin.clone() }
}

/// Sends what changed, until the watcher or the control plane goes.
async fn watch_rollout(mut state: AdminState, events: mpsc::Sender<WatchRolloutResponse>) {
    let mut known: BTreeMap<String, Plugin> = BTreeMap::new();
    loop {
        state.changes.mark_unchanged();
        let Some(listed) = ask(&state.queries, Query::Plugins).await else { return };
        let plugins: BTreeMap<_, _> = listed.plugins.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
        let removed = known.keys().filter(|id| !plugins.contains_key(*id)).cloned().map(Event::Removed);
        let is_news = |plugin: &&Plugin| known.get(&plugin.id).map(without_attempts) != Some(without_attempts(plugin));
        let changed = plugins.values().filter(is_news).cloned();
        for event in removed.chain(changed.map(Event::Plugin)) {
            if events.send(WatchRolloutResponse { event: Some(event) }).await.is_err() {
                return;
            }
        }
        known = plugins;
        tokio::select! {
            changed = state.changes.changed() => if changed.is_err() { return },
            () = events.closed() => return,
            () = state.shutdown.cancelled() => return,
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}
