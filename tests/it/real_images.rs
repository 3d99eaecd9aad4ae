//! Images from a real registry: every layout is pulled, checked and seen in traffic; what is pushed is what is pulled.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::model::Digest;

use crate::support::control_plane::{Printed, wasmplane_with};
use crate::support::envoy::CHAIN;
use crate::support::http::get;
use crate::support::images::{LAYOUTS, container, gzip, layout, tar};
use crate::support::modules;
use crate::support::registry::{BOB, Guard, Registry, User, registry};
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

async fn push(registry: &Registry, file: &[u8], rest: &str, flags: &[&str]) -> Printed {
    push_as(None, registry, file, rest, flags).await
}

/// As somebody who has logged in, or without credentials.
async fn push_as(user: Option<User>, registry: &Registry, file: &[u8], rest: &str, flags: &[&str]) -> Printed {
    push_with(user.map(|user| registry.docker_config(user)), registry, file, rest, flags).await
}

/// With this docker config.
async fn push_with(config: Option<String>, registry: &Registry, file: &[u8], rest: &str, flags: &[&str]) -> Printed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wasm");
    std::fs::write(&path, file).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
    }
    let (path, reference) = (path.display().to_string(), registry.reference(rest));
    let arguments = [&["push", &path, &reference, "--format", "json"], flags].concat();
    wasmplane_with(&[("DOCKER_CONFIG", folder.path().as_os_str())], &arguments).await
}

#[tokio::test]
async fn what_is_pushed_is_pulled_and_seen_in_traffic() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let Some((scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let maistra = ["--maistra", "--phase", "PreAuthZ", "--priority", "7"];
    for (layout, flags) in [("cncf", &[][..]), ("compat", &["--compat"]), ("maistra", &maistra)] {
        let (header, rest) = (format!("x-{layout}"), format!("team/{layout}:v1"));
        let module = modules::header(&header, "pushed");
        let pushed = push(&registry, &module, &rest, flags).await;
        assert_eq!((pushed.code, pushed.stderr.as_str()), (Some(0), ""), "{pushed:?}");
        let said = pushed.json();
        let (sha256, digest) = (Digest::of(&module).to_string(), said["digest"].as_str().unwrap());
        let url = format!("oci://{}@{digest}", registry.reference(&rest));
        let expected =
            json!({"reference": url, "digest": digest, "layout": layout, "sha256": sha256, "size": module.len()});
        assert_eq!(said, expected);
        // The same module is the same image, packed or not, as often as it is pushed.
        assert_eq!(push(&registry, &gzip(&module), &rest, flags).await.json(), expected);
        scene.plugin(layout, &url, json!({}));
        scene.until_header(&header, Some("pushed")).await;
    }
}

#[tokio::test]
async fn a_module_that_no_envoy_takes_is_pushed_only_by_force() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let port = registry.host().rsplit_once(':').unwrap().1.parse().unwrap();
    let tags = async || get(port, "/v2/team/bad/tags/list").await.unwrap().body;
    let module = modules::no_abi_marker();
    let refused = push(&registry, &module, "team/bad:v1", &[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.json()["refused"].as_str().unwrap().contains("proxy_abi_version"), "{refused:?}");
    assert!(!tags().await.contains("v1"));
    let forced = push(&registry, &module, "team/bad:v1", &["--force"]).await;
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(forced.stderr.starts_with("warning  no known Envoy takes it"), "{forced:?}");
    assert!(tags().await.contains("v1"));
}

#[tokio::test]
async fn who_has_logged_in_may_push_and_nobody_else() {
    let module = modules::header("x", "y");
    for guard in [Guard::Passwords, Guard::Tokens] {
        let Some(registry) = registry(guard).await else { return };
        let refused = push(&registry, &module, "bob/a:v1", &[]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("without credentials"), "{refused:?}");
        let pushed = push_as(Some(BOB), &registry, &module, "bob/a:v1", &[]).await;
        assert_eq!(pushed.code, Some(0), "{pushed:?}");
        if guard == Guard::Tokens {
            let elsewhere = push_as(Some(BOB), &registry, &module, "alice/a:v1", &[]).await;
            assert_eq!(elsewhere.code, Some(2), "{elsewhere:?}");
            assert!(!elsewhere.stderr.contains(BOB.password), "{elsewhere:?}");
        }
    }
}

#[tokio::test]
async fn a_push_that_the_best_credential_is_not_let_in_for_is_tried_with_the_next_one() {
    let module = modules::header("x", "y");
    for guard in [Guard::Passwords, Guard::Tokens] {
        let Some(registry) = registry(guard).await else { return };
        let (host, user) = (registry.host(), |password: &str| json!({"username": "bob", "password": password}));
        // The longest match goes first.
        let both = |right: &str| json!({"auths": {format!("{host}/bob/a"): user("outdated"), &host: user(right)}});
        let refused = push_with(Some(both("wrong").to_string()), &registry, &module, "bob/a:v1", &[]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
        assert!(refused.stderr.contains("401 Unauthorized") && !refused.stderr.contains("outdated"), "{refused:?}");
        let pushed = push_with(Some(both(BOB.password).to_string()), &registry, &module, "bob/a:v1", &[]).await;
        assert_eq!((pushed.code, pushed.stderr.as_str()), (Some(0), ""), "{guard:?} {pushed:?}");
    }
}
