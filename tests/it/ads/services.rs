//! The services beside ADS: one per type, health, reflection.

use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use tokio::sync::watch;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wasmplane::snapshot::Resource;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};
use wasmplane::xds::Options;

use super::envoy::{Sotw, channel, soon, sotw};
use super::plane::{Plane, resource};
use crate::support::wait_until;

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
async fn a_separate_service_refuses_another_type() {
    let plane = Plane::serving([]).await;
    let mut stream = extensions(&plane).await;
    stream.send(sotw("e", Cluster, &[]));
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
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
async fn health_says_not_serving_until_proxies_are_answered_and_again_from_the_shutdown_on() {
    let (ready, is_ready) = watch::channel(false);
    let plane = Plane::run(Options { ready: Some(is_ready), ..Options::default() }).await;
    for service in ["", "envoy.service.discovery.v3.AggregatedDiscoveryService"] {
        let mut client = HealthClient::new(channel(&plane.url).await);
        let request = HealthCheckRequest { service: service.into() };
        let checked = soon(client.check(request.clone())).await.unwrap().into_inner().status();
        assert_eq!(checked, ServingStatus::NotServing);
        let mut watched = soon(client.watch(request)).await.unwrap().into_inner();
        let mut next = async || soon(watched.message()).await.unwrap().unwrap().status();
        assert_eq!(next().await, ServingStatus::NotServing);
        ready.send_replace(true);
        assert_eq!(next().await, ServingStatus::Serving);
        ready.send_replace(false);
        assert_eq!(next().await, ServingStatus::NotServing);
    }
    ready.send_replace(true);
    let mut client = HealthClient::new(channel(&plane.url).await);
    let mut watched = soon(client.watch(HealthCheckRequest::default())).await.unwrap().into_inner();
    wait_until("the port to serve", async || {
        let status = watched.message().await.unwrap().unwrap().status();
        (status == ServingStatus::Serving).then_some(())
    })
    .await;
    plane.shutdown.cancel();
    assert_eq!(soon(watched.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
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
