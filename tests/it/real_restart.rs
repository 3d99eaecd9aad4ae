//! The control plane is killed and comes back: traffic goes on, and nothing is sent that is unchanged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use wasmplane::commands::bootstrap::Protocol;

use crate::support::control_plane::ControlPlane;
use crate::support::envoy::{CHAIN, Envoy, FILTER};
use crate::support::load::Load;
use crate::support::module_server::ModuleServer;
use crate::support::scene::{KINDS, Scene};
use crate::support::{is_by_digest, modules, wait_until};

/// How often Envoy took something, over all types.
async fn updates(envoy: &Envoy) -> u64 {
    envoy.stat("listener_manager.lds.update_success").await + envoy.stat("cluster_manager.cds.update_success").await
}

pub async fn a_restart_sends_nothing(version: &str, protocol: Protocol) {
    let Some((mut scene, running)) = Scene::with_envoy(version, protocol).await else { return };
    let server = ModuleServer::start().await;
    server.put("/a.wasm", modules::order("a"));
    scene.plugin("a", &server.url("/a.wasm"), json!({"priority": 2}));
    let hello = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 1}}));
    let picky = scene.control.module("picky.wasm", &modules::picky("x-picky", "fine"));
    scene.plugin("picky", &picky, json!({"pluginConfig": {"a": 1}}));
    scene.until_all("default/picky", "programmed", 1).await;
    scene.plugin("picky", &picky, json!({"pluginConfig": {"bad": 1}}));
    scene.until_all("default/picky", "rejected", 1).await;
    for id in ["default/a", "default/hello"] {
        scene.until_all(id, "programmed", 1).await;
    }
    let before = updates(&running).await;

    // The module server is gone when the control plane comes back.
    let load = Load::watching(scene.port, 2, "x-picky");
    scene.control.kill().await;
    drop(server);
    scene.control.start().await;
    for id in ["default/a", "default/hello"] {
        scene.until_all(id, "programmed", 1).await;
    }
    scene.until_all("default/picky", "rejected", 1).await;
    let responses = scene.responses().await;
    // What is staged may be put back, where it was not yet.
    assert!(responses.is_empty() || (is_by_digest() && responses.keys().eq(&["ecds"])), "{responses:?}");
    assert_eq!(updates(&running).await, before);

    // What was changed while it was away arrives, and nothing else is sent.
    scene.control.kill().await;
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 2}}));
    scene.control.start().await;
    scene.until_header("x-hello", Some(r#"{"n":2}"#)).await;
    scene.until_all("default/hello", "programmed", 1).await;
    // State of the world says one version for all names, so that with one name all are sent.
    let names = match (version, protocol) {
        (_, Protocol::Delta) => 1,
        // One plugin each, or one chain, and the staging listener's.
        (FILTER, Protocol::Sotw) => 4,
        (_, Protocol::Sotw) => 2,
    };
    let responses = scene.responses().await;
    match is_by_digest() {
        // And some small ones that prove that the modules are still held.
        true => assert_eq!(responses.keys().collect::<Vec<_>>(), [&"ecds"]),
        false => assert_eq!(responses, BTreeMap::from([("ecds", names)])),
    }
    assert_eq!(updates(&running).await, before);

    let report = load.stop().await;
    report.assert_untouched(2);
    assert_eq!(report.seen.keys().collect::<Vec<_>>(), ["fine"], "{report:?}");
    assert_eq!(scene.get().await.unwrap().order(), "a");
}

#[tokio::test]
async fn a_restarted_control_plane_sends_only_what_has_changed() {
    for (version, protocol) in KINDS {
        a_restart_sends_nothing(version, protocol).await;
    }
}

#[tokio::test]
async fn what_broke_while_the_control_plane_was_away_takes_nothing_away() {
    for version in [CHAIN, FILTER] {
        let Some((mut scene, _running)) = Scene::with_envoy(version, Protocol::Delta).await else { return };
        let hello = scene.control.module("hello.wasm", &modules::hello());
        for (name, letter) in [("moved", "m"), ("rebuilt", "r"), ("gone", "g")] {
            let url = scene.control.module(&format!("{name}.wasm"), &modules::order(letter));
            scene.plugin(name, &url, json!({}));
        }
        scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 1}}));
        for id in ["default/hello", "default/moved", "default/rebuilt", "default/gone"] {
            scene.until_all(id, "programmed", 1).await;
        }
        let load = Load::start(scene.port, 2);
        scene.control.kill().await;

        // A manifest is broken, the template emptied, a module moved to where nobody is, and one built wrongly.
        scene.control.write("hello.yaml", "kind: [");
        scene.control.write("template.yaml", "");
        scene.plugin("moved", "http://127.0.0.1:1/moved.wasm", json!({}));
        scene.control.module("rebuilt.wasm", b"half a mod");
        scene.remove("gone");
        scene.control.start().await;
        scene.until("the plugin that was deleted goes", |answer| answer.order() == "mr").await;

        scene.until_all("default/hello", "programmed", 1).await;
        let moved = scene.status("default/moved").await;
        assert_eq!((&moved["desiredRevision"], &moved["proxies"]["programmed"]), (&json!(""), &json!(1)), "{moved}");
        assert!(moved["moduleError"].as_str().unwrap().contains("127.0.0.1:1"), "{moved}");
        assert_eq!(scene.metric("wasmplane_config_errors").await, 2);
        let report = load.stop().await;
        report.assert_no_failure();
        assert_eq!(report.seen.get(""), None, "{report:?}");
    }
}

#[tokio::test]
async fn a_control_plane_that_lost_its_data_folder_takes_no_plugin_from_a_running_envoy() {
    for (version, protocol) in KINDS {
        let Some((mut scene, _running)) = Scene::with_envoy(version, protocol).await else { return };
        let server = ModuleServer::start().await;
        server.put("/auth.wasm", modules::header("x-auth", "checked"));
        scene.plugin("auth", &server.url("/auth.wasm"), json!({"phase": "AUTHN"}));
        scene.until_all("default/auth", "programmed", 1).await;
        let load = Load::watching(scene.port, 2, "x-auth");
        scene.control.kill().await;
        drop(server);
        std::fs::remove_dir_all(scene.control.data()).unwrap();
        scene.control.start().await;
        wait_until("an end of the wait for modules", async || {
            (scene.control.admin_get("/readyz").await.ok()?.status == 200).then_some(())
        })
        .await;
        scene.until_proxies(1).await;
        scene.until_all("default/auth", "notLoaded", 1).await;
        // Another change does not take it along.
        let hello = scene.control.module("hello.wasm", &modules::hello());
        scene.plugin("hello", &hello, json!({}));
        scene.until_module("default/hello").await;
        assert_eq!(scene.get().await.unwrap().header("x-auth"), Some("checked"), "{version} {protocol:?}");

        let server = ModuleServer::start().await;
        server.put("/auth.wasm", modules::header("x-auth", "checked"));
        scene.plugin("auth", &server.url("/auth.wasm"), json!({"phase": "AUTHN"}));
        for id in ["default/auth", "default/hello"] {
            scene.until_all(id, "programmed", 1).await;
        }
        let report = load.stop().await;
        report.assert_no_failure();
        assert_eq!(report.seen.keys().collect::<Vec<_>>(), ["checked"], "{version} {protocol:?}");
    }
}

#[tokio::test]
async fn a_control_plane_that_is_asked_to_end_does_and_traffic_goes_on() {
    let Some((mut scene, running)) = Scene::with_envoy(CHAIN, Protocol::Sotw).await else { return };
    let hello = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &hello, json!({}));
    scene.until_all("default/hello", "programmed", 1).await;
    let load = Load::start(scene.port, 2);
    assert_eq!(scene.control.terminate().await, Some(0));
    // Two ends, two starts: a crash right after the first is no other matter.
    scene.control.start().await;
    scene.control.restart().await;
    scene.until_all("default/hello", "programmed", 1).await;
    assert_eq!(scene.responses().await, BTreeMap::new());
    assert_eq!(running.stat("control_plane.connected_state").await, 1);
    load.stop().await.assert_untouched(2);
}

#[tokio::test]
async fn sigterm_ends_wasmplane_while_a_file_that_it_reads_does_not_answer() {
    let docker = tempfile::tempdir().unwrap();
    let config = docker.path().join("config.json");
    // As a file of a network file system that is gone: who reads it waits.
    assert!(tokio::process::Command::new("mkfifo").arg(&config).status().await.unwrap().success());
    let mut control = ControlPlane::new().environment("DOCKER_CONFIG", docker.path().to_str().unwrap());
    control.start().await;
    control.write(
        "plugin.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec: {url: 'oci://127.0.0.1:1/a'}\n",
    );
    let open = async || tokio::net::unix::pipe::OpenOptions::new().open_sender(&config).ok();
    let _never_written = wait_until("somebody who reads the file", open).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), control.terminate()).await;
    assert_eq!(ended.expect("it ends"), Some(0));
}
