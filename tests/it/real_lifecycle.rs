//! A plugin's life on real Envoys: it appears, is edited, moves, goes away, and reaches whom it should.

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, FILTER, NO_WASM, envoy};
use crate::support::scene::{Scene, listener, template, until_answer};
use crate::support::{free_port, modules, wait_until};

async fn a_plugin_lives(version: &str, protocol: Protocol) {
    let Some((scene, _running)) = Scene::with_envoy(version, protocol).await else { return };
    assert_eq!(scene.get().await.unwrap().header("x-hello"), None);
    let mode = if version == CHAIN { "chain" } else { "filter" };
    assert_eq!(scene.until_proxies(1).await[0]["mode"], mode);

    // It appears, and its configuration is edited.
    let hello = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 1}}));
    scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;
    let status = scene.until_all("default/hello", "programmed", 1).await;
    scene.plugin("hello", &hello, json!({"pluginConfig": {"n": 2}}));
    scene.until_header("x-hello", Some(r#"{"n":2}"#)).await;
    let edited = scene.until_status("default/hello", "another revision, programmed", |edited| {
        edited["runningRevision"] != status["runningRevision"] && edited["proxies"]["programmed"] == 1
    });
    assert_eq!(edited.await["moduleDigest"], status["moduleDigest"]);

    // Two more, in order; then the order is turned round, and one phase stands before the other.
    let [a, b] = ["a", "b"].map(|letter| scene.control.module(&format!("{letter}.wasm"), &modules::order(letter)));
    scene.plugin("a", &a, json!({"priority": 2}));
    scene.plugin("b", &b, json!({"priority": 1}));
    scene.until("a before b", |answer| answer.order() == "ab").await;
    scene.plugin("a", &a, json!({"priority": 0}));
    scene.until("b before a", |answer| answer.order() == "ba").await;
    scene.plugin("a", &a, json!({"priority": 0, "phase": "AUTHN"}));
    scene.until("a before b, by its phase", |answer| answer.order() == "ab").await;
    for id in ["default/a", "default/b", "default/hello"] {
        scene.until_all(id, "programmed", 1).await;
    }

    // One goes away, the others stay; then all are gone.
    scene.remove("a");
    let answer = scene.until("b alone", |answer| answer.order() == "b").await;
    assert_eq!(answer.header("x-hello"), Some(r#"{"n":2}"#));
    assert_eq!(scene.until_status("default/a", "gone", Value::is_null).await, Value::Null);
    scene.remove("b");
    scene.remove("hello");
    let answer = scene.until_header("x-hello", None).await;
    assert_eq!((answer.status, answer.order().as_str()), (200, ""));
}

#[tokio::test]
async fn a_plugin_lives_in_a_chain_over_delta() {
    a_plugin_lives(CHAIN, Protocol::Delta).await;
}

#[tokio::test]
async fn a_plugin_lives_in_a_chain_over_state_of_the_world() {
    a_plugin_lives(CHAIN, Protocol::Sotw).await;
}

#[tokio::test]
async fn a_plugin_lives_in_a_filter_over_delta() {
    a_plugin_lives(FILTER, Protocol::Delta).await;
}

#[tokio::test]
async fn a_plugin_lives_in_a_filter_over_state_of_the_world() {
    a_plugin_lives(FILTER, Protocol::Sotw).await;
}

#[tokio::test]
async fn a_plugin_reaches_only_the_proxies_and_listeners_that_it_selects() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let scene = Scene::start().await;
        let upstream = scene.upstream.port();
        let ports: [u16; 4] = std::array::from_fn(|_| free_port());
        // The second of each proxy's listeners is its port 2.
        for (name, ports) in [("web", [ports[0], ports[1]]), ("api", [ports[2], ports[3]])] {
            let mut spec: Value = serde_json::from_str(&template(
                name,
                &[
                    listener(&format!("{name}-1"), ports[0], upstream),
                    listener(&format!("{name}-2"), ports[1], upstream),
                ],
            ))
            .unwrap();
            spec["spec"]["selector"] = json!({"matchLabels": {"app": name}});
            scene.control.write(if name == "web" { "template.yaml" } else { "api.yaml" }, &spec.to_string());
        }
        let _web = setup.clone().node("web").label("app", "web").start(scene.control.xds()).await;
        let _api = setup.clone().node("api").label("app", "api").start(scene.control.xds()).await;
        for port in ports {
            until_answer(port, "the first answer", |answer| answer.status == 200).await;
        }

        let [all, web, two] = ["x-all", "x-web", "x-two"]
            .map(|name| scene.control.module(&format!("{name}.wasm"), &modules::header(name, "on")));
        scene.plugin("all", &all, json!({}));
        scene.plugin("web", &web, json!({"selector": {"matchLabels": {"app": "web"}}}));
        scene.plugin("two", &two, json!({"match": [{"ports": [{"number": ports[1]}, {"number": ports[3]}]}]}));

        for (id, proxies) in [("default/all", 2), ("default/web", 1), ("default/two", 2)] {
            scene.until_all(id, "programmed", proxies).await;
        }
        let mut seen = Vec::new();
        for port in ports {
            let answer = until_answer(port, "an answer", |_| true).await;
            seen.push(["x-all", "x-web", "x-two"].map(|name| answer.header(name).is_some()));
        }
        let expected = [[true, true, false], [true, true, true], [true, false, false], [true, false, true]];
        assert_eq!(seen, expected, "{version}");
    }
}

#[tokio::test]
async fn an_envoy_without_v8_passes_an_open_plugin_and_denies_for_a_closed_one() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let Some((scene, running)) = Scene::with_envoy(NO_WASM, protocol).await else { return };
        let module = scene.control.module("x.wasm", &modules::header("x-plugin", "on"));
        assert_eq!(scene.until_proxies(1).await[0]["mode"], "no-wasm");

        scene.plugin("open", &module, json!({"failStrategy": "FAIL_OPEN"}));
        let status = scene.until_all("default/open", "unsupported", 1).await;
        assert!(status["messages"][0].as_str().unwrap().contains("no Wasm runtime"), "{status}");
        assert_eq!(scene.get().await.unwrap().status, 200);

        scene.plugin("closed", &module, json!({"failStrategy": "FAIL_CLOSE"}));
        scene.until("403 for the closed plugin", |answer| answer.status == 403).await;
        scene.until_all("default/closed", "unsupported", 1).await;
        scene.remove("closed");
        scene.until("200 again", |answer| answer.status == 200).await;
        wait_until("nothing refused", async || {
            (running.stat("listener_manager.lds.update_rejected").await == 0).then_some(())
        })
        .await;
    }
}
