//! Modules that no Envoy should hear of, and plugins that a real Envoy refuses.

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::http::Response;
use crate::support::load::Load;
use crate::support::modules;
use crate::support::scene::{KINDS, Scene};

#[tokio::test]
async fn modules_that_envoy_would_refuse_or_crash_on_never_leave_the_control_plane() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let scene = Scene::start().await;
        let mut running = scene.envoy(setup.clone().concurrency(1)).await;
        let counter = scene.control.module("counter.wasm", &modules::counter());
        scene.plugin("counter", &counter, json!({}));
        scene.until("the counter", |answer| answer.header("x-count").is_some()).await;
        scene.until_all("default/counter", "programmed", 1).await;
        let before = scene.responses().await;

        for (name, module, reason) in [
            ("memory", modules::no_exported_memory(), "memory"),
            ("import", modules::bad_import(), "proxy_no_such_call"),
            ("abi", modules::no_abi_marker(), "proxy_abi_version"),
            ("text", b"not a module".to_vec(), "not"),
        ] {
            let url = scene.control.module(&format!("{name}.wasm"), &module);
            scene.plugin(name, &url, json!({}));
            let status = scene.until_all(&format!("default/{name}"), "notLoaded", 1).await;
            let error = status["moduleError"].as_str().unwrap();
            assert!(error.contains(reason), "{error}");
            assert!(status["messages"].as_array().unwrap().contains(&status["moduleError"]), "{status}");
        }

        running.assert_running();
        let answer = scene.get().await.unwrap();
        assert_eq!((answer.status, answer.header("x-configured")), (200, Some("1")));
        assert_eq!(scene.responses().await, before);

        // An Envoy that starts does not wait for them for ever, and does not serve without them either.
        running.kill().await;
        let _again = setup.start(scene.control.xds()).await;
        scene.until("403 for plugins that close", |answer| answer.status == 403).await;
        for name in ["memory", "import", "abi", "text"] {
            scene.remove(name);
        }
        scene.until("200 without them", |answer| answer.status == 200 && answer.header("x-count").is_some()).await;
    }
}

pub async fn a_refused_plugin_is_stood_in_for(version: &str, protocol: Protocol) {
    let Some(setup) = envoy(version).await else { return };
    let (scene, setup) = (Scene::start().await, setup.protocol(protocol));
    let running = scene.envoy(setup.clone()).await;
    let picky = scene.control.module("picky.wasm", &modules::picky("x-picky", "fine"));
    let hello = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 1}}));
    scene.plugin("picky", &picky, json!({"pluginConfig": {"a": 1}}));
    scene.until("both", |it| it.header("x-picky").is_some() && it.header("x-hello").is_some()).await;
    for id in ["default/hello", "default/picky"] {
        scene.until_all(id, "programmed", 1).await;
    }

    // Refused after an edit: the last good revision goes on, and so do its neighbours, which can be edited.
    let load = Load::watching(scene.port, 2, "x-picky");
    scene.plugin("picky", &picky, json!({"pluginConfig": {"bad": 1}}));
    let status = scene.until_all("default/picky", "rejected", 1).await;
    assert_eq!(status["messages"], json!(["Unable to create Wasm plugin default/picky"]));
    assert_ne!(status["desiredRevision"], "");
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 2}}));
    scene.until_header("x-hello", Some(r#"{"n":2}"#)).await;
    scene.until_all("default/hello", "programmed", 1).await;
    scene.until_all("default/picky", "rejected", 1).await;
    scene.plugin("picky", &picky, json!({"pluginConfig": {"a": 2}}));
    let status = scene.until_all("default/picky", "programmed", 1).await;
    assert_eq!(status["messages"], json!([]));
    // Back to what was refused, and back again.
    scene.plugin("picky", &picky, json!({"pluginConfig": {"bad": 1}}));
    scene.until_all("default/picky", "rejected", 1).await;
    scene.plugin("picky", &picky, json!({"pluginConfig": {"a": 1}}));
    scene.until_all("default/picky", "programmed", 1).await;

    // Two at once, one of which never was good: each is told, and what can run does.
    scene.plugin("second", &picky, json!({"pluginConfig": {"bad": 2}, "failStrategy": "FAIL_OPEN"}));
    scene.plugin("picky", &picky, json!({"pluginConfig": {"bad": 2}}));
    for id in ["default/picky", "default/second"] {
        let status = scene.until_all(id, "rejected", 1).await;
        assert_eq!(status["messages"], json!([format!("Unable to create Wasm plugin {id}")]));
    }
    scene.remove("second");
    scene.plugin("picky", &picky, json!({"pluginConfig": {"a": 1}}));
    scene.until_all("default/picky", "programmed", 1).await;

    // Refused at first: an open plugin lets pass.
    scene.plugin("open", &picky, json!({"pluginConfig": {"bad": 1}, "failStrategy": "FAIL_OPEN"}));
    scene.until_all("default/open", "rejected", 1).await;
    let report = load.stop().await;
    report.assert_no_failure();
    assert_eq!(report.seen.keys().collect::<Vec<_>>(), ["fine"], "{report:?}");
    scene.remove("open");
    scene.until_status("default/open", "gone", Value::is_null).await;

    // A closed one denies, until its configuration is repaired.
    scene.plugin("closed", &picky, json!({"pluginConfig": {"bad": 1}}));
    scene.until("403", |answer| answer.status == 403).await;
    scene.until_all("default/closed", "rejected", 1).await;
    scene.until_all("default/hello", "programmed", 1).await;
    scene.plugin("closed", &picky, json!({"pluginConfig": {"a": 1}}));
    scene.until("200", |answer| answer.status == 200).await;
    for id in ["default/closed", "default/hello", "default/picky"] {
        scene.until_all(id, "programmed", 1).await;
    }

    // An Envoy that starts anew may try what the one before refused, and ends with the last good revision as well.
    scene.plugin("picky", &picky, json!({"pluginConfig": {"bad": 3}}));
    scene.until_all("default/picky", "rejected", 1).await;
    running.kill().await;
    let _again = scene.envoy(setup).await;
    let is_whole = |it: &Response| it.header("x-picky").is_some() && it.header("x-hello").is_some();
    scene.until("both", is_whole).await;
    scene.until_all("default/picky", "rejected", 1).await;
    scene.until_all("default/hello", "programmed", 1).await;
}

#[tokio::test]
async fn a_refused_plugin_is_stood_in_for_and_its_neighbours_go_on() {
    for (version, protocol) in KINDS {
        a_refused_plugin_is_stood_in_for(version, protocol).await;
    }
}

const SLANDER: &str = r#"error("Unable to create Wasm plugin default/a", 0)"#;

/// Its error is in the words that Envoy has for a refused module.
#[tokio::test]
async fn a_bad_script_is_told_from_the_modules_that_came_with_it_and_cannot_have_one_of_them_rejected() {
    for (version, protocol) in KINDS {
        let Some(setup) = envoy(version).await else { return };
        let scene = Scene::start().await;
        let order = |letter: &str| scene.control.module(&format!("{letter}.wasm"), &modules::order(letter));
        for (name, priority) in [("a", 4), ("b", 3), ("c", 2)] {
            scene.plugin(name, &order(name), json!({"priority": priority, "failStrategy": "FAIL_OPEN"}));
        }
        scene.script(SLANDER);
        scene.until_status("trafficextension:default/script", "known", |it| !it.is_null()).await;

        let _running = scene.envoy(setup.protocol(protocol)).await;
        for name in ["a", "b", "c"] {
            scene.until_all(&format!("default/{name}"), "programmed", 1).await;
        }
        let status = scene.until_all("trafficextension:default/script", "rejected", 1).await;
        let words = status["messages"][0].as_str().unwrap();
        assert_eq!(words, "script load error: Unable to create Wasm plugin default/a");
        // The script never was good and is to deny; without it, everything passes.
        scene.until("403", |answer| answer.status == 403).await;
        scene.control.delete("script.yaml");
        let answer = scene.until("200", |answer| answer.status == 200).await;
        assert_eq!(answer.order(), "abc");
    }
}
