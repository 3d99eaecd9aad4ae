//! The incremental protocol over ADS.

use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::envoy::{Delta, delta, soon};
use super::plane::{Plane, resource};

#[tokio::test]
async fn a_client_gets_its_resources_then_what_changed_and_what_is_gone() {
    let plane = Plane::serving([resource(Cluster, "a", "1"), resource(Cluster, "b", "1")]).await;
    let mut stream = Delta::ads(&plane.url).await;
    stream.send(delta("e", Cluster, &[]));
    let first = stream.next().await;
    stream.ack(&first);
    plane.publish([resource(Cluster, "a", "2")]);
    let second = stream.next().await;

    assert_eq!(first.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(second.resources.len(), 1);
    assert_eq!(second.resources[0].version, resource(Cluster, "a", "2").version.as_str());
    assert_eq!(second.removed_resources, ["b"]);
}

#[tokio::test]
async fn a_refusal_is_reported_in_the_clients_words_and_rolled_back() {
    let mut plane = Plane::serving([resource(ExtensionConfig, "p", "1")]).await;
    let mut stream = Delta::ads(&plane.url).await;
    stream.send(delta("e", ExtensionConfig, &["p"]));
    let first = stream.next().await;
    stream.ack(&first);
    plane.publish([resource(ExtensionConfig, "p", "2")]);
    let second = stream.next().await;
    stream.nack(&second, "Unable to create Wasm plugin p");
    let third = stream.next().await;
    stream.ack(&third);

    assert_eq!(third.resources, first.resources);
    let [v1, v2] = ["1", "2"].map(|content| resource(ExtensionConfig, "p", content).version);
    assert_eq!(plane.report().await, format!("p@{v1} Accepted"));
    let refused = r#"Refused { message: "Unable to create Wasm plugin p" }"#;
    assert_eq!(plane.report().await, format!("p@{v2} {refused}"));
    assert_eq!(plane.report().await, format!("p@{v1} Accepted"));
}

#[tokio::test]
async fn a_reconnect_with_matching_versions_is_answered_only_where_something_differs() {
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
