//! The services beside ADS: one per type, health, reflection.

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wasmplane::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};
use wasmplane::snapshot::{Resource, ResourceType};

use super::envoy::{Delta, Sotw, channel, delta, soon, sotw};
use super::plane::{Plane, resource};

fn with_plugin(content: &str) -> Resource {
    let mut listener = resource(Listener, "l", content);
    listener.references.push((ExtensionConfig, "p".into()));
    listener
}

async fn extensions(plane: &Plane) -> Sotw {
    let mut client = ExtensionConfigDiscoveryServiceClient::new(channel(&plane.url).await);
    Sotw::open(async move |requests| client.stream_extension_configs(requests).await).await
}

async fn listeners(plane: &Plane) -> Sotw {
    let mut client = ListenerDiscoveryServiceClient::new(channel(&plane.url).await);
    Sotw::open(async move |requests| client.stream_listeners(requests).await).await
}

#[tokio::test]
async fn a_separate_service_knows_its_type() {
    let plane = Plane::serving([resource(ExtensionConfig, "p", "1")]).await;
    let mut stream = extensions(&plane).await;
    let mut request = sotw("e", ExtensionConfig, &["p"]);
    request.type_url.clear(); // S2
    stream.send(request);
    assert_eq!(stream.next().await.type_url, ExtensionConfig.type_url());
}

#[tokio::test]
async fn a_separate_service_refuses_another_type() {
    let plane = Plane::serving([]).await;
    let mut stream = extensions(&plane).await;
    stream.send(sotw("e", Cluster, &[]));
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_separate_service_serves_delta() {
    let types = [Listener, Route, Cluster, Endpoint, ExtensionConfig];
    let plane = Plane::serving(types.map(|resource_type| resource(resource_type, "x", "1"))).await;
    let channel = channel(&plane.url).await;
    let mut lds = ListenerDiscoveryServiceClient::new(channel.clone());
    let mut rds = RouteDiscoveryServiceClient::new(channel.clone());
    let mut cds = ClusterDiscoveryServiceClient::new(channel.clone());
    let mut eds = EndpointDiscoveryServiceClient::new(channel.clone());
    let mut ecds = ExtensionConfigDiscoveryServiceClient::new(channel);
    let streams: [(ResourceType, Delta); 5] = [
        (Listener, Delta::open(async move |requests| lds.delta_listeners(requests).await).await),
        (Route, Delta::open(async move |requests| rds.delta_routes(requests).await).await),
        (Cluster, Delta::open(async move |requests| cds.delta_clusters(requests).await).await),
        (Endpoint, Delta::open(async move |requests| eds.delta_endpoints(requests).await).await),
        (ExtensionConfig, Delta::open(async move |requests| ecds.delta_extension_configs(requests).await).await),
    ];
    for (resource_type, mut stream) in streams {
        stream.send(delta("e", resource_type, &["x"]));
        assert_eq!(stream.next().await.resources[0].name, "x");
    }
}

#[tokio::test]
async fn two_streams_of_one_node_have_their_own_state() {
    let plane = Plane::serving([resource(ExtensionConfig, "p", "1")]).await;
    let (mut first, mut second) = (extensions(&plane).await, extensions(&plane).await);
    for stream in [&mut first, &mut second] {
        stream.send(sotw("e", ExtensionConfig, &["p"])); // S31
        assert_eq!(stream.next().await.nonce, "1");
    }
}

#[tokio::test]
async fn listeners_with_plugins_outside_ads_are_refused_with_the_advice_to_use_ads() {
    let plane = Plane::serving([with_plugin("1")]).await;
    let mut stream = listeners(&plane).await;
    stream.send(sotw("e", Listener, &[]));
    let status = stream.end().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("use ADS"), "{status}");
}

#[tokio::test]
async fn listeners_without_plugins_are_served_outside_ads_until_a_plugin_comes() {
    let plane = Plane::serving([resource(Listener, "l", "1")]).await;
    let mut stream = listeners(&plane).await;
    stream.send(sotw("e", Listener, &[]));
    assert_eq!(stream.next().await.resources.len(), 1);
    plane.publish([with_plugin("2")]);
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn health_says_serving() {
    let plane = Plane::empty().await;
    let mut client = HealthClient::new(channel(&plane.url).await);
    let response = soon(client.check(HealthCheckRequest { service: String::new() })).await.unwrap();
    assert_eq!(response.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let plane = Plane::empty().await;
    let mut client = ServerReflectionClient::new(channel(&plane.url).await);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut responses = soon(client.server_reflection_info(tokio_stream::once(request))).await.unwrap().into_inner();
    let response = soon(responses.message()).await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = response else { panic!("{response:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "envoy.service.cluster.v3.ClusterDiscoveryService",
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            "envoy.service.endpoint.v3.EndpointDiscoveryService",
            "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
            "envoy.service.listener.v3.ListenerDiscoveryService",
            "envoy.service.route.v3.RouteDiscoveryService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ]
    );
}
