//! What a module is given on a real Envoy: name, configuration, environment; and the author's edit loop.

use serde_json::json;
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::scene::Scene;
use crate::support::{modules, wait_until};

#[tokio::test]
async fn a_rebuilt_module_is_in_traffic_a_moment_later() {
    for version in [CHAIN, FILTER] {
        let Some((scene, _running)) = Scene::with_envoy(version, Protocol::Delta).await else { return };
        let url = scene.control.module("mine.wasm", &modules::header("x-build", "1"));
        scene.plugin("mine", &url, json!({}));
        scene.until_header("x-build", Some("1")).await;
        let first = scene.until_all("default/mine", "programmed", 1).await;

        // As a compiler does: the same file, written anew in its place.
        std::fs::write(scene.control.modules().join("mine.wasm"), modules::header("x-build", "2")).unwrap();
        scene.until_header("x-build", Some("2")).await;
        scene.control.module("mine.wasm", &modules::header("x-build", "3"));
        scene.until_header("x-build", Some("3")).await;

        // A build that fails leaves the last one in traffic, and its repair follows.
        std::fs::write(scene.control.modules().join("mine.wasm"), "half a mod").unwrap();
        let what = "a warning about the broken build";
        let status = scene.until_status("default/mine", what, |it| {
            it["warnings"].as_array().is_some_and(|it| {
                it.iter()
                    .any(|warning| warning.as_str().unwrap_or_default().contains("a newer module is not to be had"))
            })
        });
        assert_ne!(status.await["moduleDigest"], first["moduleDigest"]);
        assert_eq!(scene.get().await.unwrap().header("x-build"), Some("3"));
        scene.control.module("mine.wasm", &modules::header("x-build", "4"));
        scene.until_header("x-build", Some("4")).await;
    }
}

#[tokio::test]
async fn name_configuration_and_environment_reach_the_module() {
    for version in [CHAIN, FILTER] {
        let Some((scene, _running)) = Scene::with_envoy(version, Protocol::Delta).await else { return };
        let [around, hello] = [("around", modules::surroundings()), ("hello", modules::hello())]
            .map(|(name, module)| scene.control.module(&format!("{name}.wasm"), &module));
        let spec = |color: &str| {
            let env = json!([{"name": "COLOR", "value": color}, {"name": "HOME", "valueFrom": "HOST"}]);
            json!({"pluginName": "my-root", "vmConfig": {"env": env}})
        };
        scene.plugin("around", &around, spec("red"));
        scene.plugin("hello", &hello, json!({"pluginConfig": {"b": [1, "x"], "a": {"z": null}}}));

        let answer = scene.until("both plugins", |it| it.header("x-env").is_some() && it.header("x-hello").is_some());
        let answer = answer.await;
        assert_eq!(answer.header("x-hello"), Some(r#"{"a":{"z":null},"b":[1,"x"]}"#));
        assert_eq!(answer.header("x-root"), Some("my-root"));
        let env = answer.header("x-env").unwrap();
        let home = format!("HOME={};", std::env::var("HOME").unwrap());
        assert!(env.contains("COLOR=red;") && env.contains(&home), "{env}");

        // Only a VM of its own sees another environment.
        scene.plugin("around", &around, spec("blue"));
        let is_blue = |env: &str| env.contains("COLOR=blue;");
        scene.until("another environment", |answer| answer.header("x-env").is_some_and(is_blue)).await;
    }
}

#[tokio::test]
async fn a_trap_closes_or_opens_as_the_fail_strategy_says() {
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { return };
        let scene = Scene::start().await;
        let _running = scene.envoy(setup.concurrency(1)).await;
        let url = scene.control.module("traps.wasm", &modules::traps());
        scene.plugin("traps", &url, json!({}));
        scene.until("503", |answer| answer.status == 503).await;
        assert_eq!(scene.get().await.unwrap().status, 503);
        scene.plugin("traps", &url, json!({"failStrategy": "FAIL_OPEN"}));
        // In filter mode the listener changes as well, and with it the VM.
        scene.until_all("default/traps", "programmed", 1).await;
        // The request that traps fails all the same, once per worker (lab, section 5).
        wait_until("three answers of 200 in a row", async || {
            for _ in 0..3 {
                let is_open = scene.get().await.ok()?.status == 200;
                is_open.then_some(())?;
            }
            Some(())
        })
        .await;
    }
}
