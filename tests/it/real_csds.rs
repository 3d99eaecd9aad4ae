//! Client status discovery on the admin port, with real Envoys.

use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ConfigStatus};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, RegexMatcher, StringMatcher};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::snapshot::ResourceType::{self, Cluster, ExtensionConfig, Listener};

use crate::support::envoy::{CHAIN, envoy};
use crate::support::scene::{Scene, listener, template};
use crate::support::{modules, wait_until};

type Client = ClientStatusDiscoveryServiceClient<Channel>;

async fn client(scene: &Scene) -> Client {
    Client::connect(format!("http://{}", scene.control.admin())).await.unwrap()
}

fn about(pattern: MatchPattern) -> ClientStatusRequest {
    let node_id = Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() });
    let node_matchers = vec![NodeMatcher { node_id, node_metadatas: Vec::new() }];
    ClientStatusRequest { node_matchers, ..ClientStatusRequest::default() }
}

async fn fetch(client: &mut Client, request: ClientStatusRequest) -> Vec<ClientConfig> {
    client.fetch_client_status(request).await.unwrap().into_inner().config
}

/// The statuses of one type of resource.
fn statuses(config: &ClientConfig, of: ResourceType) -> Vec<ConfigStatus> {
    let resources = config.generic_xds_configs.iter().filter(|resource| resource.type_url == of.type_url());
    resources.map(|resource| resource.config_status()).collect()
}

#[tokio::test]
async fn a_tool_asks_what_each_envoy_has() {
    let Some((scene, _first)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let second = envoy(CHAIN).await.unwrap().node("other-1").protocol(Protocol::Sotw);
    let _second = second.start(scene.control.xds()).await;
    let url = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &url, json!({"pluginConfig": {"password": "hunter2"}}));
    scene.until_all("default/hello", "programmed", 2).await;

    let mut client = client(&scene).await;
    let all = fetch(&mut client, ClientStatusRequest::default()).await;
    let ids: Vec<_> = all.iter().map(|config| config.node.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["envoy-1", "other-1"]);
    for config in &all {
        for of in [Cluster, Listener, ExtensionConfig] {
            let statuses = statuses(config, of);
            let is_synced = !statuses.is_empty() && statuses.iter().all(|status| *status == ConfigStatus::Synced);
            assert!(is_synced, "{of:?} in {config:#?}");
        }
    }
    assert!(!format!("{all:?}").contains("hunter2"));

    // An address that no machine has: Envoy refuses the listener, and says why.
    let port = scene.port;
    let mut nowhere = listener("nowhere", port, scene.upstream.port());
    nowhere["bind"] = json!("192.0.2.1");
    let listeners = [listener("in", port, scene.upstream.port()), nowhere];
    scene.control.write("template.yaml", &template("web", &listeners));
    let refused = wait_until("the refusal of an address", async || {
        let configs = fetch(&mut client, about(MatchPattern::Exact("envoy-1".into()))).await;
        let resources = configs.into_iter().flat_map(|config| config.generic_xds_configs);
        resources.into_iter().find_map(|resource| resource.error_state)
    })
    .await;
    assert!(!refused.details.is_empty() && !refused.version_info.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_stream_answers_each_question_with_what_holds_then() {
    let Some((scene, first)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let mut client = client(&scene).await;
    let (questions, asked) = tokio::sync::mpsc::unbounded_channel();
    let asked = tokio_stream::wrappers::UnboundedReceiverStream::new(asked);
    let mut answers = client.stream_client_status(asked).await.unwrap().into_inner();
    let regex = RegexMatcher { regex: "envoy-[0-9]".into(), ..RegexMatcher::default() };
    let question = about(MatchPattern::SafeRegex(regex));
    questions.send(question.clone()).unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().config.len(), 1);
    first.kill().await;
    scene.until_proxies(0).await;
    questions.send(question).unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().config.len(), 0);
    questions
        .send(about(MatchPattern::SafeRegex(RegexMatcher { regex: "(".into(), ..RegexMatcher::default() })))
        .unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_tool_finds_all_services_of_the_admin_port_by_reflection() {
    let scene = Scene::start().await;
    let channel = Channel::from_shared(format!("http://{}", scene.control.admin())).unwrap().connect().await.unwrap();
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let expected = [
        "envoy.service.status.v3.ClientStatusDiscoveryService",
        "grpc.reflection.v1.ServerReflection",
        "wasmplane.admin.v1.Admin",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_tool_that_follows_is_told_that_the_control_plane_ends() {
    let mut scene = Scene::start().await;
    let mut client = client(&scene).await;
    let requests = tokio_stream::once(ClientStatusRequest::default()).chain(tokio_stream::pending());
    let mut answers = client.stream_client_status(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    scene.control.terminate().await;
    assert_eq!(answers.message().await.unwrap_err().code(), tonic::Code::Unavailable);
}
