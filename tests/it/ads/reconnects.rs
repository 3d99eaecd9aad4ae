//! Clients that come back, to this control plane or to another one.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use wasmplane::snapshot::Resource;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::fake::{DELTA, FakeEnvoy, WAYS, Way};
use super::plane::{Plane, named};

fn all(c: &str, p: &str) -> Vec<Resource> {
    let others = [named(Cluster, "d", "1"), named(ExtensionConfig, "q", "1"), named(Listener, "l", "1")];
    others.into_iter().chain([named(Cluster, "c", c), named(ExtensionConfig, "p", p)]).collect()
}

/// A client that has accepted everything.
async fn settled(plane: &Plane, way: Way) -> FakeEnvoy {
    let mut envoy = FakeEnvoy::of(plane, way).await;
    envoy.subscribe(Cluster, &[]).await;
    envoy.accept(Cluster).await;
    envoy.subscribe(Listener, &[]).await;
    envoy.accept(Listener).await;
    for name in ["p", "q"] {
        envoy.subscribe(ExtensionConfig, &[name]).await;
        envoy.accept(ExtensionConfig).await;
    }
    envoy.heard(plane).await;
    envoy.log.clear();
    envoy
}

/// S13, S14, D11: what is equal costs nothing, on this control plane and on another one.
#[tokio::test]
async fn a_client_that_comes_back_to_the_same_content_is_sent_nothing() {
    for way in WAYS {
        let plane = Plane::serving(all("1", "1")).await;
        let mut envoy = settled(&plane, way).await;
        envoy.reconnect(&plane.url).await;
        envoy.heard(&plane).await;
        let other = Plane::serving(all("1", "1")).await;
        envoy.reconnect(&other.url).await;
        assert_eq!(envoy.finish().await, [""; 0], "{way:?}");
    }
}

/// S13, S14, D9, D10: delta gets the difference, and is told what is gone; the state of the world gets the type anew.
#[tokio::test]
async fn a_client_that_comes_back_to_other_content_is_sent_what_differs() {
    for way in WAYS {
        let plane = Plane::serving(all("1", "1")).await;
        let mut envoy = settled(&plane, way).await;
        let others = all("2", "2").into_iter().filter(|resource| !["l", "d"].contains(&resource.name.as_str()));
        let other = Plane::serving(others.chain([named(Cluster, "e", "1")])).await;
        envoy.reconnect(&other.url).await;
        let extensions = if way.is_delta() { 1 } else { 2 };
        for of in [Cluster, Listener].into_iter().chain(std::iter::repeat_n(ExtensionConfig, extensions)) {
            envoy.accept(of).await;
        }
        let mut log = envoy.finish().await;
        log.sort();
        // The cluster that is gone stays a moment for listeners that may use it.
        let (sotw, delta) = (["cds c@2 e@1", "ecds p@2", "ecds q@1", "lds"], ["cds c@2 e@1", "ecds p@2", "lds -l"]);
        assert_eq!(log, if way.is_delta() { delta.to_vec() } else { sotw.to_vec() }, "{way:?}");
    }
}

/// D12: what a later request says of the client's holdings is ignored.
#[tokio::test]
async fn only_the_first_request_says_what_a_client_holds() {
    for way in DELTA {
        let plane = Plane::serving(all("1", "1")).await;
        let version = named(ExtensionConfig, "q", "1").version.to_string();
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.say_delta(DeltaDiscoveryRequest {
            type_url: ExtensionConfig.type_url().into(),
            resource_names_subscribe: vec!["q".into()],
            initial_resource_versions: [("q".to_owned(), version)].into(),
            ..DeltaDiscoveryRequest::default()
        });
        assert_eq!(envoy.finish().await, ["ecds p@1", "ecds q@1"], "{way:?}");
    }
}

/// D22: the version of equal content is equal, whoever serves it by whatever service. D35: so are those of listeners by
/// ADS and of extensions by a service of their own.
#[tokio::test]
async fn versions_are_of_content_and_nothing_else() {
    let mut seen = Vec::new();
    for way in WAYS {
        for _ in 0..2 {
            let plane = Plane::serving(all("1", "1")).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.subscribe(Listener, &[]).await;
            let listeners = envoy.read(Listener).await;
            envoy.subscribe(ExtensionConfig, &["p"]).await;
            let extension = envoy.read(ExtensionConfig).await;
            let versions = [listeners, extension].map(|it| (it.in_words(), it.version_info, it.resources));
            seen.push((way.is_delta(), versions));
        }
    }
    for is_delta in [false, true] {
        let of_protocol: Vec<_> = seen.iter().filter(|(delta, _)| *delta == is_delta).map(|(_, it)| it).collect();
        assert_eq!(of_protocol.len(), 4);
        assert!(of_protocol.iter().all(|versions| versions == &of_protocol[0]), "{of_protocol:#?}");
    }
}
