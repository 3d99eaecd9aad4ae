//! Several Envoys, and what changes about one: its name, its labels, its listeners, its upstream.

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::load::Load;
use crate::support::scene::{KINDS, Scene, listener, plugin, template, template_of, until_answer};
use crate::support::upstream::Upstream;
use crate::support::{free_port, modules, wait_until};

#[tokio::test]
async fn two_envoys_with_one_node_id_are_both_served_and_counted_apart() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let scene = Scene::start().await;
    let upstream = scene.upstream.port();
    let (web, api) = (scene.port, free_port());
    for (name, port, file) in [("web", web, "template.yaml"), ("api", api, "api.yaml")] {
        let listeners = [listener("in", port, upstream)];
        let spec = json!({"selector": {"matchLabels": {"app": name}}, "listeners": listeners});
        scene.control.write(file, &template_of(name, spec));
    }
    let module = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &module, json!({"pluginConfig": {"n": 1}}));
    let first = setup.clone().label("app", "web").start(scene.control.xds()).await;
    let _second = setup.label("app", "api").start(scene.control.xds()).await;
    for port in [web, api] {
        until_answer(port, "the plugin", |answer| answer.header("x-hello").is_some()).await;
    }

    scene.until_all("default/hello", "programmed", 2).await;
    let ids: Vec<_> = scene.until_proxies(2).await.iter().map(|proxy| proxy["id"].clone()).collect();
    assert_eq!(ids, ["envoy-1", "envoy-1#2"]);
    assert_eq!(scene.control.logged("another live proxy has the same node id").len(), 1);
    scene.plugin("hello", &module, json!({"pluginConfig": {"n": 2}}));
    for port in [web, api] {
        until_answer(port, "the edit", |answer| answer.header("x-hello") == Some(r#"{"n":2}"#)).await;
    }
    first.kill().await;
    scene.until_all("default/hello", "programmed", 1).await;
}

#[tokio::test]
async fn an_envoy_that_comes_back_with_other_labels_gets_other_plugins() {
    for (version, protocol) in [(CHAIN, Protocol::Delta), (FILTER, Protocol::Sotw)] {
        let Some(setup) = envoy(version).await else { return };
        let setup = setup.protocol(protocol);
        let scene = Scene::start().await;
        for name in ["web", "api"] {
            let module = scene.control.module(&format!("{name}.wasm"), &modules::header("x-app", name));
            scene.plugin(name, &module, json!({"selector": {"matchLabels": {"app": name}}}));
        }
        let running = scene.envoy(setup.clone().label("app", "web")).await;
        scene.until_header("x-app", Some("web")).await;
        scene.until_all("default/web", "programmed", 1).await;
        running.kill().await;
        let _running = scene.envoy(setup.label("app", "api")).await;
        assert_eq!(scene.get().await.unwrap().header("x-app"), Some("api"));
        scene.until_all("default/api", "programmed", 1).await;
        scene.until_all("default/web", "programmed", 0).await;
    }
}

async fn listeners_and_upstreams_move(version: &str, protocol: Protocol) {
    let Some(setup) = envoy(version).await else { return };
    let scene = Scene::start().await;
    // So short that old listeners are gone before the load ends.
    let running = scene.envoy(setup.protocol(protocol).drain_seconds(1)).await;
    let module = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("hello", &module, json!({}));
    scene.until_header("x-hello", Some("hello")).await;
    scene.until_all("default/hello", "programmed", 1).await;

    // Another name on the same address, then another upstream, then both at once.
    let other = Upstream::named("other").await;
    let load = Load::start(scene.port, 3);
    for (name, upstream, place) in [
        ("renamed", scene.upstream.port(), "upstream"),
        ("renamed", other.port(), "other"),
        ("again", scene.upstream.port(), "upstream"),
    ] {
        scene.control.write("template.yaml", &template("web", &[listener(name, scene.port, upstream)]));
        scene.until_header("x-upstream", Some(place)).await;
        wait_until(&format!("the listener {name}"), async || {
            let proxies = scene.proxies().await;
            let plugin = &proxies[0]["plugins"][0];
            (plugin["listeners"] == json!([name]) && plugin["state"] == "Programmed").then_some(())
        })
        .await;
        let asked = load.requests();
        wait_until("some more load", async || (load.requests() > asked + 100).then_some(())).await;
    }
    wait_until("the end of every drain", async || {
        (running.stat("listener_manager.total_listeners_draining").await == 0).then_some(())
    })
    .await;
    let report = load.stop().await;
    report.assert_no_failure();
    assert_eq!(report.seen.get(""), None, "requests without the plugin: {report:?}");
    assert_eq!(running.stat("listener_manager.lds.update_rejected").await, 0);

    // A template that is deleted closes the port; when it comes back, so does the plugin.
    scene.control.delete("template.yaml");
    wait_until("a closed port", async || scene.get().await.is_err().then_some(())).await;
    scene.control.write("template.yaml", &template("web", &[listener("in", scene.port, scene.upstream.port())]));
    scene.until_header("x-hello", Some("hello")).await;
    let status = scene.until_all("default/hello", "programmed", 1).await;
    assert_eq!(status["warnings"].as_array().map(Vec::len), Some(no_start_warnings(&status)), "{status}");
}

/// The modules of the tests have no start function, which is worth a warning; nothing else is.
fn no_start_warnings(status: &Value) -> usize {
    let warnings = status["warnings"].as_array().into_iter().flatten();
    warnings.filter(|warning| warning.as_str().is_some_and(|it| it.starts_with("nothing starts it"))).count()
}

#[tokio::test]
async fn a_renamed_listener_and_a_moved_upstream_fail_no_request() {
    for (version, protocol) in KINDS {
        listeners_and_upstreams_move(version, protocol).await;
    }
}

#[tokio::test]
async fn a_plugin_of_the_root_namespace_reaches_every_namespace_and_stands_behind_the_own_one() {
    let Some(setup) = envoy(CHAIN).await else { return };
    let mut scene = Scene::new().await;
    scene.control = scene.control.flags(&["--root-namespace", "mesh"]);
    scene.control.start().await;
    let put_in = |namespace: &str, text: String| {
        text.replace(r#""namespace":"default""#, &format!(r#""namespace":"{namespace}""#))
    };
    let listeners = [listener("in", scene.port, scene.upstream.port())];
    scene.control.write("template.yaml", &put_in("mesh", template("web", &listeners)));
    for (namespace, letter) in [("mesh", "m"), ("shop", "s"), ("other", "o")] {
        let url = scene.control.module(&format!("{letter}.wasm"), &modules::order(letter));
        scene.control.write(&format!("{letter}.yaml"), &put_in(namespace, plugin("same", &url, json!({}))));
    }
    let _running = scene.envoy(setup.namespace("shop")).await;
    scene.until("own namespace first, then root", |answer| answer.order() == "sm").await;
    scene.until_all("other/same", "programmed", 0).await;
}
