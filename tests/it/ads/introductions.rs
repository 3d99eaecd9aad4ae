//! Whom the fleet hears of when a stream opens, and when it ends.

use tonic::Code;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::envoy::{Delta, Sotw, delta, soon, sotw};
use super::plane::{Plane, resource};

#[tokio::test]
async fn a_client_is_announced_its_answers_are_reported_and_its_end_is() {
    let mut plane = Plane::serving([resource(Cluster, "c", "1"), resource(ExtensionConfig, "p", "1")]).await;
    let mut stream = Sotw::ads(&plane.url).await;

    stream.send(sotw("envoy-1", Cluster, &[]));
    let clusters = stream.next().await;
    stream.ack(&clusters, &[]);
    stream.send(sotw("", ExtensionConfig, &["p"]));
    let extension = stream.next().await;
    stream.ack(&extension, &["p"]);

    let expected = resource(Cluster, "c", "1");
    assert_eq!(clusters.resources[0].value, expected.body.to_bytes());
    assert_eq!(plane.report().await, format!("c@{} Accepted", expected.version));
    assert_eq!(plane.report().await, format!("p@{} Accepted", expected.version));
    let hello = soon(plane.hellos.recv()).await.unwrap();
    assert_eq!((hello.proxy.node_id.as_str(), hello.is_new_process), ("envoy-1", true));

    drop(stream);
    assert_eq!(plane.report().await, "gone");
}

#[tokio::test]
async fn a_client_that_closes_its_side_reads_the_rest_and_a_clean_end() {
    let plane = Plane::serving([resource(Cluster, "c", &"x".repeat(5000))]).await;
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(sotw("e", Cluster, &[]));
    let (rest, status) = stream.rest().await;
    assert_eq!((rest.len(), status.code()), (1, Code::Ok));
}

#[tokio::test]
async fn an_envoy_that_holds_something_is_not_taken_for_one_that_starts() {
    let mut plane = Plane::serving([resource(Cluster, "c", "1"), resource(Listener, "l", "1")]).await;
    let mut stream = Delta::ads(&plane.url).await;
    let mut clusters = delta("e", Cluster, &[]);
    let version = resource(Cluster, "c", "1").version.to_string();
    clusters.initial_resource_versions.insert("c".into(), version.clone());
    stream.send(clusters);
    stream.send(delta("e", Listener, &[]));

    assert_eq!(stream.next().await.type_url, Listener.type_url());
    assert_eq!(plane.report().await, format!("c@{version} Accepted"));
    assert!(!soon(plane.hellos.recv()).await.unwrap().is_new_process);
}

#[tokio::test]
async fn an_envoy_without_clusters_that_comes_back_is_not_taken_for_one_that_starts() {
    let mut plane = Plane::serving([resource(Listener, "l", "1")]).await;
    let stream = Delta::ads(&plane.url).await;
    stream.send(delta("back", Cluster, &[]));
    let mut listeners = delta("back", Listener, &[]);
    listeners.initial_resource_versions.insert("l".into(), resource(Listener, "l", "1").version.to_string());
    stream.send(listeners);
    assert!(!soon(plane.hellos.recv()).await.unwrap().is_new_process);

    let mut stream = Delta::ads(&plane.url).await;
    stream.send(delta("starts", Cluster, &[]));
    assert_eq!(stream.next().await.type_url, Cluster.type_url());
    assert!(soon(plane.hellos.recv()).await.unwrap().is_new_process);
}
