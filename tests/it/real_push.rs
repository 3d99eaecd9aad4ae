//! `push` to a real registry: who may, what is there afterwards, and what it does.

use serde_json::json;
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::model::Digest;

use crate::support::control_plane::{Printed, wasmplane_with};
use crate::support::envoy::CHAIN;
use crate::support::http::get;
use crate::support::images::gzip;
use crate::support::modules;
use crate::support::registry::{BOB, Guard, Registry, User, registry};
use crate::support::scene::Scene;

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

#[tokio::test]
async fn a_terminal_sees_a_bar_and_a_file_does_not() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wasm");
    std::fs::write(&file, modules::hello()).unwrap();
    let reference = registry.reference("a:v1");
    let binary = env!("CARGO_BIN_EXE_wasmplane");
    for (command, word) in [
        (format!("{binary} push {} {reference}", file.display()), "pushing"),
        (format!("{binary} inspect oci://{reference}"), "fetching"),
    ] {
        let quiet = tokio::process::Command::new("sh").args(["-c", &command]).output().await.unwrap();
        assert!(quiet.status.success() && !String::from_utf8_lossy(&quiet.stderr).contains(word), "{quiet:?}");
        // `script` gives it a terminal.
        let script = tokio::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output().await;
        let Ok(seen) = script else { return eprintln!("SKIPPED: no `script` to make a terminal with") };
        let text = String::from_utf8_lossy(&seen.stdout);
        assert!(seen.status.success() && text.contains(word), "{text}");
    }
}
