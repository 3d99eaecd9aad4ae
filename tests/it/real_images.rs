//! Modules in every packing, from a real registry and over http: pulled, checked and seen in traffic, or refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::model::Digest;

use crate::support::envoy::CHAIN;
use crate::support::images::{LAYOUTS, container, gzip, layout, tar};
use crate::support::module_server::ModuleServer;
use crate::support::modules;
use crate::support::registry::{Guard, registry};
use crate::support::scene::Scene;

#[tokio::test]
async fn every_layout_is_pulled_and_seen_in_traffic() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let Some((scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    for name in LAYOUTS {
        layout(name, &modules::header(&format!("x-{name}"), "here")).publish(&registry, &format!("a/{name}"), "v1");
        scene.plugin(name, &format!("oci://{}", registry.reference(&format!("a/{name}:v1"))), json!({}));
    }
    for name in LAYOUTS {
        scene.until_header(&format!("x-{name}"), Some("here")).await;
    }
    for name in LAYOUTS {
        let status = scene.until_all(&format!("default/{name}"), "programmed", 1).await;
        let module = Digest::of(&modules::header(&format!("x-{name}"), "here")).to_string();
        assert!(status["moduleDigest"].as_str().unwrap().contains(&module), "{status}");
    }
}

#[tokio::test]
async fn a_webassemblyhub_image_names_the_root_id_of_a_plugin_that_names_none_also_after_a_restart() {
    let Some(mut registry) = registry(Guard::Nobody).await else { return };
    let Some((mut scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    layout("solo", &modules::surroundings()).publish(&registry, "a/solo", "v1");
    // The same module in an image that names none.
    layout("cncf", &modules::surroundings()).publish(&registry, "a/cncf", "v1");
    let host = registry.host();
    let url = |name: &str| format!("oci://{host}/a/{name}:v1");
    scene.plugin("it", &url("solo"), json!({}));
    scene.until_header("x-root", Some("a")).await;
    scene.plugin("it", &url("solo"), json!({"pluginName": "mine"}));
    scene.until_header("x-root", Some("mine")).await;
    scene.plugin("it", &url("cncf"), json!({}));
    scene.until_header("x-root", Some("")).await;
    scene.plugin("it", &url("solo"), json!({}));
    scene.until_header("x-root", Some("a")).await;
    scene.until_all("default/it", "programmed", 1).await;

    registry.kill().await;
    scene.control.kill().await;
    scene.control.start().await;
    scene.until_all("default/it", "programmed", 1).await;
    assert_eq!(scene.responses().await, BTreeMap::new());
    // An edit is made of what is remembered.
    scene.plugin("it", &url("solo"), json!({"pluginConfig": {"a": 1}}));
    scene.until_all("default/it", "programmed", 1).await;
    assert_eq!(scene.get().await.unwrap().header("x-root"), Some("a"));
}

#[tokio::test]
async fn an_image_without_use_says_so_and_stops_nobody_else() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let Some((scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    // A hundred thousand files, and one more.
    let folder = &tar(&[("f", b"")])[..512];
    let bomb = [gzip(&folder.repeat(10_000)).repeat(10), gzip(folder)].concat();
    let images = [
        (
            "nothing",
            container(&[tar(&[("README", b"")])]),
            "none holds plugin.wasm, or manifest.yaml in its root; files seen: README",
        ),
        (
            "cut",
            container(&[gzip(&tar(&[("plugin.wasm", b"")]))[..20].to_vec()]),
            "the image's only layer: ends too early",
        ),
        (
            "bomb",
            container(&[tar(&[("plugin.wasm", b"")]), bomb]),
            "layer 2 of 2: too many files: more than the limit of 100000 entries",
        ),
        ("text", layout("cncf", b"no module"), "not a WebAssembly module but text"),
    ];
    for (name, image, _) in &images {
        image.publish(&registry, "bad", name);
        scene.plugin(name, &format!("oci://{}", registry.reference(&format!("bad:{name}"))), json!({}));
    }
    let good = scene.control.module("good.wasm", &modules::header("x-good", "1"));
    scene.plugin("good", &good, json!({}));
    scene.until_header("x-good", Some("1")).await;
    for (name, _, reason) in images {
        let said = |status: &Value| status.to_string().contains(reason);
        scene.until_status(&format!("default/{name}"), reason, said).await;
    }
}

#[tokio::test]
async fn modules_over_http_are_unpacked_however_they_are_packed_and_seen_in_traffic() {
    let server = ModuleServer::start().await;
    let Some((scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let zstd = |content: &[u8]| zstd::encode_all(content, 0).unwrap();
    let pack = |name: &str, module: &[u8]| match name {
        "raw" => module.to_vec(),
        "gzip" => gzip(module),
        "zstd" => zstd(module),
        "tar" => tar(&[("README", b"x"), ("lib/a.wasm", module)]),
        "nested" => gzip(&tar(&[("plugin.wasm", &zstd(module))])),
        _ => gzip(&tar(&[("manifest.yaml", b"phase: PreAuthZ\npriority: 1\nmodule: b.wasm"), ("b.wasm", module)])),
    };
    let names = ["raw", "gzip", "zstd", "tar", "nested", "maistra"];
    for name in names {
        // Neither the path nor a header says how.
        server.put(&format!("/{name}"), pack(name, &modules::header(&format!("x-{name}"), "here")));
        scene.plugin(name, &server.url(&format!("/{name}")), json!({}));
    }
    for name in names {
        scene.until_header(&format!("x-{name}"), Some("here")).await;
    }
    assert_eq!(scene.metric(r#"wasmplane_module_fetches_total{scheme="http",result="fetched"}"#).await, 6);
}

#[tokio::test]
async fn failures_are_counted_by_their_reason() {
    let Some(registry) = registry(Guard::Passwords).await else { return };
    let (server, scene) = (ModuleServer::start().await, Scene::start().await);
    server.put("/text", b"no module".to_vec());
    server.fail("/broken", axum::http::StatusCode::BAD_GATEWAY);
    let oci = format!("oci://{}", registry.reference("a:v1"));
    let cases = [
        ("denied", oci.clone(), json!({}), "oci", "denied"),
        ("secret", oci, json!({"imagePullSecret": "none"}), "oci", "secret"),
        ("gone", server.url("/gone"), json!({}), "http", "not_found"),
        ("broken", server.url("/broken"), json!({}), "http", "server_error"),
        ("text", server.url("/text"), json!({}), "http", "refused"),
        ("pin", server.url("/text"), json!({"sha256": "0".repeat(64)}), "http", "digest_mismatch"),
        ("nobody", "http://127.0.0.1:1/a".to_owned(), json!({}), "http", "transport"),
        ("file", format!("file://{}/none", scene.control.modules().display()), json!({}), "file", "file"),
    ];
    for (name, url, spec, _, _) in &cases {
        scene.plugin(name, url, spec.clone());
    }
    for (name, _, _, scheme, reason) in &cases {
        let failed = |status: &Value| status["moduleError"].as_str().is_some_and(|it| !it.is_empty());
        scene.until_status(&format!("default/{name}"), "failed", failed).await;
        let series = format!("wasmplane_module_failures_total{{scheme=\"{scheme}\",reason=\"{reason}\"}}");
        assert!(scene.metric(&series).await >= 1, "{series}");
    }
}
