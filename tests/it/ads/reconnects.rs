//! Clients that come back, to this control plane or to another one.

use std::collections::BTreeMap;
use std::fs;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use wasmplane::model::Capabilities;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};
use wasmplane::snapshot::{Resource, ResourceType};
use wasmplane::sources;

use super::fake::{ADS, DELTA, FakeEnvoy, WAYS, Way};
use super::plane::{Plane, named};
use crate::compile_golden::compiled;

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
        let others = all("2", "2").into_iter().filter(|resource| !["l", "d"].contains(&&*resource.name));
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

/// The same manifests in two other files, in another order, and with their keys in another order.
const MANIFESTS: [[&str; 2]; 2] = [
    [
        r#"
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: a, namespace: shop}
spec: {url: "https://modules.test/a.wasm", phase: AUTHN, pluginConfig: {greeting: hello, nested: {one: 1, two: 2}}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: b, namespace: shop}
spec: {url: "https://modules.test/b.wasm"}
"#,
        r#"
apiVersion: wasmplane.io/v1alpha1
kind: ProxyTemplate
metadata: {name: web, namespace: shop}
spec:
  listeners:
  - {name: in, direction: INBOUND, port: 8080, protocol: HTTP, forwardTo: {host: 127.0.0.1, port: 9090}}
  - {name: out, direction: OUTBOUND, port: 8081, protocol: HTTP, forwardTo: {host: web.test, port: 80}}
"#,
    ],
    [
        r#"
spec:
  listeners:
  - {forwardTo: {port: 80, host: web.test}, protocol: HTTP, port: 8081, direction: OUTBOUND, name: out}
  - {forwardTo: {port: 9090, host: 127.0.0.1}, protocol: HTTP, port: 8080, direction: INBOUND, name: in}
metadata: {namespace: shop, name: web}
kind: ProxyTemplate
apiVersion: wasmplane.io/v1alpha1
---
spec: {url: "https://modules.test/b.wasm"}
metadata: {namespace: shop, name: b}
kind: WasmPlugin
apiVersion: extensions.istio.io/v1alpha1
"#,
        r#"
spec: {pluginConfig: {nested: {two: 2, one: 1}, greeting: hello}, phase: AUTHN, url: "https://modules.test/a.wasm"}
metadata: {namespace: shop, name: a}
kind: WasmPlugin
apiVersion: extensions.istio.io/v1alpha1
"#,
    ],
];

/// A control plane that serves what these manifests come to.
async fn compiling(manifests: [String; 2]) -> Plane {
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in manifests.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.yaml")), text).unwrap();
    }
    let loaded = sources::load(&[folder.path().to_owned()]);
    assert_eq!((loaded.faults.len(), loaded.plugins.len()), (0, 2), "{:?}", loaded.faults);
    let plane = Plane::empty().await;
    plane.publish_snapshot(compiled(&loaded, Capabilities { chain: true, wasm: true }).snapshot);
    plane
}

/// What a client is sent: the versions, by type, way and name.
async fn versions(plane: &Plane, way: Way) -> BTreeMap<(ResourceType, String), String> {
    const CHAINS: [&str; 2] = ["wasmplane/in/PreAuthN-BeforeRouter", "wasmplane/out/PreAuthN-BeforeRouter"];
    let mut versions = BTreeMap::new();
    let mut envoy = FakeEnvoy::of(plane, way).await;
    for (of, names) in
        [(Cluster, &[][..]), (Listener, &[]), (ExtensionConfig, &CHAINS[..1]), (ExtensionConfig, &CHAINS[1..])]
    {
        if of == Listener && !way.is_ads() {
            continue; // These listeners name ECDS by ADS.
        }
        envoy.subscribe(of, names).await;
        let response = envoy.accept(of).await;
        assert!(!response.resources.is_empty());
        for (words, version) in response.resources {
            let version = if way.is_delta() { version } else { response.version_info.clone() };
            versions.insert((of, words), version);
        }
    }
    versions
}

/// D22: the versions that compiling gives to equal content are equal, however it is written, whoever serves it, by whatever
/// service. D35: so are those of listeners by ADS and of extensions by a service of their own.
#[tokio::test]
async fn versions_are_of_content_and_nothing_else() {
    let [one, other] = MANIFESTS.map(|texts| texts.map(str::to_owned));
    let edited = one.clone().map(|text| text.replace("hello", "goodbye"));
    let (one, other, edited) = (compiling(one).await, compiling(other).await, compiling(edited).await);
    for ads in ADS {
        let separate = if ads.is_delta() { Way::DeltaSeparate } else { Way::SotwSeparate };
        let (by_ads, by_services) = (versions(&one, ads).await, versions(&one, separate).await);
        assert_eq!(by_ads.len(), 6, "{by_ads:#?}");
        assert_eq!(versions(&other, ads).await, by_ads, "{ads:?}");
        assert_eq!(versions(&other, separate).await, by_services, "{separate:?}");
        let mut outside_ads = by_ads.clone();
        outside_ads.retain(|(of, _), _| *of != Listener);
        assert_eq!(by_services, outside_ads);

        let after = versions(&edited, ads).await;
        for ((of, name), version) in by_ads {
            assert_eq!(after[&(of, name.clone())] == version, of != ExtensionConfig, "{of:?} {name}");
        }
    }
}
