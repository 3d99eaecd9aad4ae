//! State of the world over ADS.

use tonic::Code;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::envoy::{Sotw, soon, sotw};
use super::plane::{Plane, resource};

#[tokio::test]
async fn a_client_gets_its_resources_and_its_answers_are_reported() {
    let mut plane = Plane::serving([resource(Cluster, "c", "1"), resource(ExtensionConfig, "p", "1")]).await;
    let mut stream = Sotw::ads(&plane.url).await;

    stream.send(sotw("envoy-1", Cluster, &[])); // S3: the node is said once.
    let clusters = stream.next().await;
    stream.ack(&clusters, &[]);
    stream.send(sotw("", ExtensionConfig, &["p"]));
    let extension = stream.next().await;
    stream.ack(&extension, &["p"]);

    let expected = resource(Cluster, "c", "1");
    assert_eq!(clusters.type_url, Cluster.type_url());
    assert_eq!(clusters.resources[0].value, expected.body.to_bytes());
    assert_ne!(clusters.nonce, extension.nonce);
    assert_eq!(plane.report().await, format!("c@{} Accepted", expected.version));
    assert_eq!(plane.report().await, format!("p@{} Accepted", expected.version));
    let hello = soon(plane.hellos.recv()).await.unwrap();
    assert_eq!((hello.proxy.node_id.as_str(), hello.is_new_process), ("envoy-1", true));

    drop(stream);
    assert_eq!(plane.report().await, "gone");
}

#[tokio::test]
async fn a_change_is_pushed() {
    let plane = Plane::serving([resource(Listener, "l", "1")]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Listener, &[]));
    let first = stream.next().await;
    stream.ack(&first, &[]);
    plane.publish([resource(Listener, "l", "2")]);
    let second = stream.next().await;
    assert_ne!(first.version_info, second.version_info);
    assert_eq!(second.resources[0].value, resource(Listener, "l", "2").body.to_bytes());
}

#[tokio::test]
async fn a_client_without_a_node_id_is_refused() {
    let plane = Plane::serving([]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("", Cluster, &[])); // S4
    let status = stream.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("node"), "{status}");
}

#[tokio::test]
async fn a_request_on_ads_without_a_type_is_refused() {
    let plane = Plane::serving([]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    let mut request = sotw("e", Cluster, &[]);
    request.type_url.clear(); // S1
    stream.send(request);
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_belongs_to_one_node() {
    let plane = Plane::serving([]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Cluster, &[]));
    stream.next().await;
    stream.send(sotw("other", Listener, &[])); // D34
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_unknown_type_leaves_the_stream_alive() {
    let plane = Plane::serving([resource(Cluster, "c", "1")]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    let mut unknown = sotw("e", Cluster, &[]);
    unknown.type_url = "type.googleapis.com/envoy.service.runtime.v3.Runtime".into();
    stream.send(unknown); // D36
    stream.send(sotw("e", Cluster, &[]));
    assert_eq!(stream.next().await.type_url, Cluster.type_url());
}

#[tokio::test]
async fn a_client_that_closes_its_side_reads_the_rest_and_a_clean_end() {
    let plane = Plane::serving([resource(Cluster, "c", &"x".repeat(5000))]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Cluster, &[]));
    stream.requests = tokio::sync::mpsc::unbounded_channel().0;
    assert_eq!(stream.next().await.resources.len(), 1);
    assert_eq!(stream.end().await.code(), Code::Ok);
}
