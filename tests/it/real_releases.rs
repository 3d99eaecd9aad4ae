//! A module that one Envoy can link and another cannot: each is judged by its own release.

use serde_json::{Value, json};

use crate::support::envoy::{CHAIN, Envoy, FILTER, envoy};
use crate::support::scene::{Scene, listener, template_of, until_answer};
use crate::support::{free_port, modules};

/// An Envoy of this release with a listener of its own.
struct Member {
    _envoy: Envoy,
    port: u16,
}

async fn member(scene: &Scene, version: &str, node: &str) -> Option<Member> {
    let setup = envoy(version).await?;
    let port = free_port();
    let spec = json!({
        "selector": {"matchLabels": {"node": node}},
        "listeners": [listener(&format!("in-{node}"), port, scene.upstream.port())],
    });
    scene.control.write(&format!("{node}.yaml"), &template_of(node, spec));
    let envoy = setup.node(node).label("node", node).start(scene.control.xds()).await;
    until_answer(port, "its first answer", |answer| answer.status == 200).await;
    Some(Member { _envoy: envoy, port })
}

/// What `proxies` says of a plugin on a proxy.
async fn on_proxy(scene: &Scene, node: &str, id: &str) -> Value {
    let proxies = scene.proxies().await;
    let proxy = proxies.iter().find(|proxy| proxy["id"] == node).unwrap_or_else(|| panic!("{proxies:#?}"));
    let mut plugins = proxy["plugins"].as_array().into_iter().flatten();
    plugins.find(|plugin| plugin["id"] == id).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_module_goes_to_the_envoys_that_can_link_it_and_to_no_other() {
    let mut scene = Scene::new().await;
    scene.control.delete("template.yaml");
    scene.control.start().await;
    let Some(new) = member(&scene, CHAIN, "new").await else { return };
    let Some(old) = member(&scene, FILTER, "old").await else { return };
    let reason = "imports wasi_snapshot_preview1.fd_sync, which this Envoy does not provide (1.39.3 does)";
    let counts = |status: &Value| (status["proxies"]["programmed"].clone(), status["proxies"]["unsupported"].clone());
    let is_split = |status: &Value| counts(status) == (json!(1), json!(1));

    // Never run before: the fail strategy stands in where it cannot run.
    let module = scene.control.module("a.wasm", &modules::header_for_newer("x-a", "new"));
    for (strategy, status_code) in [("FAIL_OPEN", 200), ("FAIL_CLOSE", 403)] {
        scene.plugin("a", &module, json!({"failStrategy": strategy}));
        until_answer(new.port, "the plugin", |answer| answer.header("x-a") == Some("new")).await;
        let stands_in = until_answer(old.port, "its stand-in", |answer| answer.status == status_code).await;
        assert_eq!(stands_in.header("x-a"), None);
        let status = scene.until_status("default/a", "on one of two", is_split).await;
        assert_eq!(status["messages"], json!([reason]));
        let plugin = on_proxy(&scene, "old", "default/a").await;
        assert_eq!((&plugin["state"], &plugin["message"]), (&json!("Unsupported"), &json!(reason)), "{plugin}");
        assert_eq!(on_proxy(&scene, "new", "default/a").await["state"], "Programmed");
        let explained = scene.control.ask(&["explain", "--proxy", "old", "--format", "json"]).await;
        assert!(explained.stdout.contains("\"Unsupported\"") && explained.stdout.contains(reason), "{explained:?}");
    }

    // The module before, which every Envoy can link, is built anew into one that not all can: they keep it.
    scene.control.module("a.wasm", &modules::header("x-a", "old"));
    for port in [new.port, old.port] {
        until_answer(port, "the older module", |answer| answer.header("x-a") == Some("old")).await;
    }
    scene.until_all("default/a", "programmed", 2).await;
    scene.control.module("a.wasm", &modules::header_for_newer("x-a", "new"));
    until_answer(new.port, "the newer module", |answer| answer.header("x-a") == Some("new")).await;
    let status = scene.until_status("default/a", "on one of two", is_split).await;
    assert_eq!(status["messages"], json!([reason]));
    let kept = until_answer(old.port, "an answer", |_| true).await;
    assert_eq!((kept.status, kept.header("x-a")), (200, Some("old")));
    let plugin = on_proxy(&scene, "old", "default/a").await;
    assert_eq!(plugin["state"], "Unsupported", "{plugin}");
    assert!(plugin["revision"] != "" && plugin["revision"] != status["runningRevision"], "{plugin} {status}");
}
