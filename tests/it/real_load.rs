//! Changes of every kind while keep-alive clients go on asking: what requests and connections lose.

use serde_json::json;
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, Envoy, FILTER, envoy};
use crate::support::load::{Load, LoadReport};
use crate::support::scene::{Scene, native, native_chain, native_cluster, native_listener, plugin};
use crate::support::{modules, wait_until};

const CONNECTIONS: u64 = 4;

/// One change: add, edit configuration, rebuild the module, reorder, move to another gap, remove.
fn change(scene: &Scene, number: usize) {
    let phases = ["AUTHN", "AUTHZ", "STATS", "UNSPECIFIED_PHASE"];
    let url = |name: &str| format!("file://{}", scene.control.modules().join(format!("{name}.wasm")).display());
    let hello = |phase: &str| {
        scene.plugin("hello", &url("hello"), json!({"pluginConfig": {"n": number}, "phase": phase}));
    };
    match number % 8 {
        0 => hello("AUTHZ"),
        1 => scene.plugin("a", &url("a"), json!({"priority": number % 16})),
        2 => scene.plugin("b", &url("b"), json!({"priority": 8, "phase": phases[number / 8 % 4]})),
        3 => drop(scene.control.module("a.wasm", &modules::order(if number % 16 < 8 { "c" } else { "a" }))),
        4 => hello(phases[number / 8 % 4]),
        5 => scene.plugin("b", &url("b"), json!({"priority": 24, "failStrategy": "FAIL_OPEN"})),
        6 => scene.remove("a"),
        _ => scene.remove("b"),
    }
}

/// Between two changes there are some requests; every fourth change is waited for, so that it does reach Envoy.
async fn change_all(scene: &Scene, changes: usize) {
    for number in 0..changes {
        change(scene, number);
        if number % 4 == 0 {
            scene.until_header("x-hello", Some(&format!(r#"{{"n":{number}}}"#))).await;
        }
        let asked = scene.upstream.requests();
        wait_until("requests between two changes", async || (scene.upstream.requests() >= asked + 10).then_some(()))
            .await;
    }
    scene.until("the last change", |answer| answer.order().is_empty()).await;
}

/// A listener with anchors, so that there are gaps to move between.
fn template_with_gaps(scene: &Scene) -> String {
    let listeners = json!([native_listener("in", scene.port, &[native_chain("in", "upstream")])]);
    native("web", listeners, json!([native_cluster("upstream", scene.upstream.port())]))
}

/// The plugin `hello` is there before the first request of the load and changes and moves with the others.
async fn changes_under_load(version: &str, protocol: Protocol, changes: usize) -> Option<(Scene, Envoy, LoadReport)> {
    let setup = envoy(version).await?.protocol(protocol);
    let mut scene = Scene::new().await;
    scene.control.write("template.yaml", &template_with_gaps(&scene));
    for (name, module) in [("a", modules::order("a")), ("b", modules::order("b")), ("hello", modules::hello())] {
        scene.control.module(&format!("{name}.wasm"), &module);
    }
    scene.control.start().await;
    let mut running = scene.envoy(setup).await;
    change(&scene, 0);
    scene.until_header("x-hello", Some(r#"{"n":0}"#)).await;

    let load = Load::start(scene.port, CONNECTIONS as usize);
    change_all(&scene, changes).await;
    let report = load.stop().await;
    running.assert_running();
    assert_eq!(scene.metric(r#"wasmplane_xds_nacks_total{type="ecds"}"#).await, 0);
    assert_eq!(running.stat("listener_manager.lds.update_rejected").await, 0);
    Some((scene, running, report))
}

async fn nothing_is_lost_in_a_chain(protocol: Protocol) {
    let Some((scene, running, report)) = changes_under_load(CHAIN, protocol, 200).await else { return };
    report.assert_untouched(CONNECTIONS);
    assert_eq!(report.seen.get(""), None, "requests went past a plugin that only moved: {report:#?}");
    assert_eq!(running.stat("listener_manager.lds.update_success").await, 1);
    for change in ["listener_modified", "listener_in_place_updated", "listener_removed"] {
        assert_eq!(running.stat(&format!("listener_manager.{change}")).await, 0, "{change}");
    }
    assert_eq!(scene.responses().await["lds"], 1);
}

#[tokio::test]
async fn two_hundred_changes_of_a_chain_touch_no_connection_over_delta() {
    nothing_is_lost_in_a_chain(Protocol::Delta).await;
}

#[tokio::test]
async fn two_hundred_changes_of_a_chain_touch_no_connection_over_state_of_the_world() {
    nothing_is_lost_in_a_chain(Protocol::Sotw).await;
}

#[tokio::test]
async fn changes_of_filters_fail_no_request() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let Some((_, _, report)) = changes_under_load(FILTER, protocol, 64).await else { return };
        report.assert_no_failure();
        assert_eq!(report.seen.get(""), None, "requests went past a plugin that only moved: {report:#?}");
    }
}

#[tokio::test]
async fn two_plugins_that_change_places_are_never_missing() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let Some(setup) = envoy(CHAIN).await else { return };
        let mut scene = Scene::new().await;
        scene.control.write("template.yaml", &template_with_gaps(&scene));
        scene.control.start().await;
        let hello = scene.control.module("hello.wasm", &modules::hello());
        let other = scene.control.module("other.wasm", &modules::order("o"));
        let write = |number: usize| {
            let phases = if number.is_multiple_of(2) { ["AUTHN", "STATS"] } else { ["STATS", "AUTHN"] };
            let hello = plugin("hello", &hello, json!({"pluginConfig": {"n": number}, "phase": phases[0]}));
            let other = plugin("other", &other, json!({"phase": phases[1]}));
            scene.control.write("both.yaml", &format!("{hello}\n---\n{other}\n"));
        };
        write(0);
        let _running = scene.envoy(setup.protocol(protocol)).await;
        scene.until_header("x-hello", Some(r#"{"n":0}"#)).await;

        let load = Load::start(scene.port, 4);
        for number in 1..24 {
            write(number);
            scene.until_header("x-hello", Some(&format!(r#"{{"n":{number}}}"#))).await;
        }
        let report = load.stop().await;
        report.assert_untouched(4);
        assert_eq!(report.seen.get(""), None, "requests went past a plugin that only moved: {report:#?}");
        for id in ["default/hello", "default/other"] {
            scene.until_all(id, "programmed", 1).await;
        }
    }
}
