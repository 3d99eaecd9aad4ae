//! The control plane is killed at the worst moment, and comes back.

use serde_json::json;
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::{extension, hello, settled, start, url, with_hello};
use crate::ads::fake::{ADS, FakeEnvoy};
use crate::support::envoy::{CHAIN, FILTER};
use crate::support::load::Load;
use crate::support::modules;
use crate::support::scene::Scene;

#[tokio::test]
async fn a_listener_that_warms_when_the_control_plane_is_killed_gets_its_extension_from_the_next() {
    for way in ADS {
        let mut scene = Scene::inline().await;
        let mut envoy = FakeEnvoy::at(&url(&scene.control), way, "e").await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        envoy.subscribe(Listener, &[]).await;
        envoy.accept(Listener).await;
        hello(&scene, 1);
        envoy.accept(Listener).await;
        scene.control.restart().await;
        envoy.reconnect(&url(&scene.control)).await;
        envoy.subscribe(ExtensionConfig, &[&extension("hello")]).await;
        envoy.accept(ExtensionConfig).await;
        scene.until_all("default/hello", "programmed", 1).await;
        let expected = ["cds wasmplane/in", "lds in", "lds in", &format!("ecds {}", extension("hello"))];
        assert_eq!(envoy.finish().await, expected, "{way:?}");
    }
}

#[tokio::test]
async fn a_control_plane_that_is_killed_between_an_extension_and_its_listener_goes_on_there() {
    for way in ADS {
        for is_accepted in [false, true] {
            let mut scene = with_hello().await;
            let mut envoy = settled(&scene, way, "e").await;
            scene.until_all("default/hello", "programmed", 1).await;
            // An edit and a second plugin at once: the listener waits for the answer to the edit.
            let both = [("hello", json!({"pluginConfig": {"n": 2}})), ("second", json!({}))].map(|(name, spec)| {
                let module = scene.control.module("hello.wasm", &modules::hello());
                crate::support::scene::plugin(name, &module, spec)
            });
            scene.control.write("hello.yaml", &both.join("\n---\n"));
            envoy.read(ExtensionConfig).await;
            if is_accepted {
                envoy.ack();
            }
            scene.control.restart().await;
            envoy.reconnect(&url(&scene.control)).await;
            if !is_accepted {
                envoy.accept(ExtensionConfig).await;
            }
            envoy.accept(Listener).await;
            envoy.subscribe(ExtensionConfig, &[&extension("second")]).await;
            envoy.accept(ExtensionConfig).await;
            for id in ["default/hello", "default/second"] {
                scene.until_all(id, "programmed", 1).await;
            }
            let edit = format!("ecds {}", extension("hello"));
            let edits = if is_accepted { vec![edit] } else { vec![edit.clone(), edit] };
            let rest = ["lds in".to_owned(), format!("ecds {}", extension("second"))];
            let expected: Vec<_> = start().into_iter().chain(edits).chain(rest).collect();
            assert_eq!(envoy.finish().await, expected, "{way:?}, accepted: {is_accepted}");
        }
    }
}

#[tokio::test]
async fn a_control_plane_that_is_killed_in_the_middle_of_rollouts_and_while_it_loads_fails_no_request() {
    for (version, protocol) in [(CHAIN, Protocol::Delta), (FILTER, Protocol::Sotw)] {
        let Some((mut scene, running)) = Scene::with_envoy(version, protocol).await else { return };
        hello(&scene, 0);
        scene.until_header("x-hello", Some(r#"{"n":0}"#)).await;
        let load = Load::watching(scene.port, 2, "x-hello");
        for round in 1..=6 {
            for n in 0..10 {
                hello(&scene, 100 * round + n);
            }
            scene.control.kill().await;
            // It listens before it has read anything.
            scene.control.start().await;
            scene.control.restart().await;
        }
        hello(&scene, 1);
        scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;
        scene.until_all("default/hello", "programmed", 1).await;
        let report = load.stop().await;
        report.assert_untouched(2);
        assert_eq!(report.seen.get(""), None, "requests without the plugin: {report:?}");
        assert_eq!(running.stat("listener_manager.lds.update_rejected").await, 0);
    }
}
