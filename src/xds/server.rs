//! The discovery services: opens a stream, nothing more.
//!
//! Written by hand over hyper, as the generated services would encode every response anew for every client.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use tonic::codec::BufferSettings;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use super::accept::Farewell;
use super::admission::{Admitted, Refusal};
use super::fleet::Service;
use super::health::Health;
use super::message::DiscoveryMessage;
use super::stream::{DiscoveryStream, Guest, Shared};
use crate::snapshot::ResourceType;

/// Descriptors of the services below, for gRPC reflection.
const DISCOVERY_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/discovery.fds"));

/// A first delta request names every resource that a reconnecting client holds, each with its version.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Requests are small; tonic would take 8 KiB per stream and keep it.
const REQUEST_BUFFER_BYTES: usize = 512;

/// Package and service, and the names of its state-of-the-world and delta methods.
const SERVICES: [(&str, Service, &str, &str); 6] = [
    (
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        Service::Ads,
        "StreamAggregatedResources",
        "DeltaAggregatedResources",
    ),
    (
        "envoy.service.listener.v3.ListenerDiscoveryService",
        Service::Single(ResourceType::Listener),
        "StreamListeners",
        "DeltaListeners",
    ),
    (
        "envoy.service.route.v3.RouteDiscoveryService",
        Service::Single(ResourceType::Route),
        "StreamRoutes",
        "DeltaRoutes",
    ),
    (
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        Service::Single(ResourceType::Cluster),
        "StreamClusters",
        "DeltaClusters",
    ),
    (
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        Service::Single(ResourceType::Endpoint),
        "StreamEndpoints",
        "DeltaEndpoints",
    ),
    (
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Service::Single(ResourceType::ExtensionConfig),
        "StreamExtensionConfigs",
        "DeltaExtensionConfigs",
    ),
];

const OTHER_SERVICES: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// The names of the discovery services.
pub(super) fn services() -> [&'static str; SERVICES.len()] {
    SERVICES.map(|(name, ..)| name)
}

/// The discovery services, health and reflection.
pub(super) fn router(shared: &Arc<Shared>, health: &Health) -> Router {
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DISCOVERY_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // Envoy's files define more services than are served.
    for name in services().into_iter().chain(OTHER_SERVICES) {
        reflection = reflection.with_service_name(name);
    }
    let reflection = reflection.build_v1().expect("the build wrote valid descriptors");
    let mut router = tonic::service::Routes::new(health.service())
        .add_service(reflection)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(shared.clone(), admit));
    for (name, service, sotw, delta) in SERVICES {
        let open = |method: &str| format!("/{name}/{method}");
        let discovery = Discovery { service, shared: shared.clone() };
        router = router
            .route_service(&open(sotw), tower::service_fn(discovery.clone().open::<DiscoveryRequest>()))
            .route_service(&open(delta), tower::service_fn(discovery.open::<DeltaDiscoveryRequest>()));
    }
    router
}

/// Health is watched and reflection asked by streams, which take up places as others do. A check is one answer: a probe
/// must not fail because the fleet is there.
async fn admit(State(shared): State<Arc<Shared>>, request: Request<Body>, next: Next) -> Response<Body> {
    let path = request.uri().path();
    if path != "/grpc.health.v1.Health/Watch" && !path.starts_with("/grpc.reflection.") {
        return next.run(request).await;
    }
    let admitted = match shared.admission.admit() {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&shared, refusal),
    };
    let farewell = request.extensions().get().cloned();
    next.run(request).await.map(|body| Body::new(Placed { body, _farewell: farewell, _admitted: admitted }))
}

fn refuse(shared: &Shared, refusal: Refusal) -> Response<Body> {
    shared.metrics.stream_refused(refusal);
    shared.admission.status(refusal).into_http()
}

/// The body of a stream that is not ours, with its place.
struct Placed {
    body: Body,
    _farewell: Option<Farewell>,
    _admitted: Admitted,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[derive(Clone)]
struct Discovery {
    service: Service,
    shared: Arc<Shared>,
}

impl Discovery {
    /// Answers one call of a discovery method with a stream.
    fn open<R: DiscoveryMessage>(
        self,
    ) -> impl Fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>> + Clone + Send + Sync + 'static {
        move |request| {
            let is_grpc = request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
            if !is_grpc {
                return ready(Ok(Status::invalid_argument("content-type must be application/grpc").into_http()));
            }
            let admitted = match self.shared.admission.admit() {
                Ok(admitted) => admitted,
                Err(refusal) => return ready(Ok(refuse(&self.shared, refusal))),
            };
            let (peer, farewell) = (request.extensions().get().copied(), request.extensions().get().cloned());
            let farewell = farewell.expect("every request comes in through `accept`");
            let decoder = ProstDecoder::new(BufferSettings::new(REQUEST_BUFFER_BYTES, MAX_REQUEST_BYTES));
            let inbound: Streaming<R> =
                Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST_BYTES));
            let guest = Guest { peer, farewell, _admitted: admitted };
            let stream = DiscoveryStream::new(inbound, self.service, self.shared.clone(), guest);
            let mut response = Response::new(Body::new(stream));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            ready(Ok(response))
        }
    }
}
