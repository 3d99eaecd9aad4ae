//! What `explain` and `diff` say of a connected Envoy, beside what then happens on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::control_plane::{Printed, wasmplane};
use crate::support::envoy::{CHAIN, Envoy, FILTER, NO_WASM, envoy};
use crate::support::modules;
use crate::support::scene::{Scene, plugin};

/// The manifests that run, and this file beside them or in its place.
struct Change {
    folder: tempfile::TempDir,
}

impl Change {
    fn of(scene: &Scene) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(scene.control.config()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        Self { folder }
    }

    fn with(self, file: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(file), text).unwrap();
        self
    }

    async fn ask(&self, scene: &Scene, flags: &[&str]) -> Printed {
        let folder = self.folder.path().display().to_string();
        scene.control.ask(&[&["diff", "--config", &folder], flags].concat()).await
    }

    async fn json(&self, scene: &Scene) -> Value {
        self.ask(scene, &["--format", "json"]).await.json()
    }
}

async fn listeners_changed(running: &Envoy) -> u64 {
    let of = async |name: &str| running.stat(&format!("listener_manager.listener_{name}")).await;
    // One that only changes its filter chains is modified, too.
    of("modified").await + of("removed").await
}

async fn a_change_is_foretold(version: &str, mode: &str, drains: &[&str]) {
    let Some((scene, running)) = Scene::with_envoy(version, Protocol::Delta).await else { return };
    let hello = scene.control.module("hello.wasm", &modules::hello());
    scene.plugin("one", &hello, json!({"pluginConfig": {"secret": "first"}}));
    scene.until_header("x-hello", Some(r#"{"secret":"first"}"#)).await;
    scene.until_all("default/one", "programmed", 1).await;

    let same = Change::of(&scene).ask(&scene, &[]).await;
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), "nothing changes for 1 proxy\n"), "{same:?}");

    // Its configuration is edited: nothing drains, and nobody is told the secret.
    let edit = plugin("one", &hello, json!({"pluginConfig": {"secret": "second"}}));
    let change = Change::of(&scene).with("one.yaml", &edit);
    let foretold = change.ask(&scene, &["--format", "json", "--fail-on-drain"]).await;
    assert_eq!(foretold.code, Some(0), "{foretold:?}");
    let proxy = &foretold.json()["proxies"][0];
    assert_eq!((&proxy["mode"], &proxy["listeners"], &proxy["drains"]), (&json!(mode), &json!(["in"]), &json!([])));
    assert!(!foretold.stdout.contains("second") && foretold.stdout.contains("(hidden)"), "{foretold:?}");
    assert!(change.ask(&scene, &["--show-config"]).await.stdout.contains("second"));
    let before = listeners_changed(&running).await;
    scene.control.write("one.yaml", &edit);
    scene.until_header("x-hello", Some(r#"{"secret":"second"}"#)).await;
    scene.until_all("default/one", "programmed", 1).await;
    assert_eq!(listeners_changed(&running).await, before);

    // A second plugin comes.
    let order = scene.control.module("order.wasm", &modules::order("a"));
    let text = plugin("two", &order, json!({"priority": 7}));
    let change = Change::of(&scene).with("two.yaml", &text);
    assert_eq!(change.json(&scene).await["proxies"][0]["drains"], json!(drains));
    let code = change.ask(&scene, &["--fail-on-drain"]).await.code;
    assert_eq!(code, Some(i32::from(!drains.is_empty())));
    scene.control.write("two.yaml", &text);
    scene.until("both", |answer| answer.order() == "a").await;
    scene.until_all("default/two", "programmed", 1).await;
    assert_eq!(listeners_changed(&running).await - before, drains.len() as u64);

    let nobody = scene.control.ask(&["explain", "--proxy", "nobody"]).await;
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.stderr.contains("no proxy \"nobody\" is connected"), "{nobody:?}");
}

#[tokio::test]
async fn a_change_in_chain_mode_is_foretold() {
    a_change_is_foretold(CHAIN, "chain", &[]).await;
}

#[tokio::test]
async fn a_change_in_filter_mode_is_foretold() {
    a_change_is_foretold(FILTER, "filter", &["in"]).await;
}

#[tokio::test]
async fn a_connected_envoy_is_explained() {
    for (version, mode, state) in [(CHAIN, "chain", "Programmed"), (NO_WASM, "no-wasm", "Unsupported")] {
        let Some(setup) = envoy(version).await else { continue };
        let scene = Scene::start().await;
        let hello = scene.control.module("hello.wasm", &modules::hello());
        scene.plugin("one", &hello, json!({"failStrategy": "FAIL_OPEN"}));
        scene.plugin("off", &hello, json!({"match": [{"mode": "CLIENT"}]}));
        let _running = scene.envoy(setup.node("e1")).await;
        scene.until_all("default/one", if mode == "chain" { "programmed" } else { "unsupported" }, 1).await;

        let answer = scene.control.ask(&["explain", "--proxy", "e1", "--format", "json"]).await.json();
        assert_eq!((&answer["proxy"]["id"], &answer["mode"]), (&json!("e1"), &json!(mode)));
        assert_eq!(answer["plugins"].as_array().map(Vec::len), Some(2), "{answer:#}");
        let one = answer["plugins"].as_array().unwrap().iter().find(|it| it["plugin"] == "default/one").unwrap();
        assert_eq!(one["state"], state, "{answer:#}");
        assert_eq!(answer["listeners"][0]["http"], json!(["default/one"]));
        let off = json!({"plugin": "default/off", "reason": "match[0] wants mode CLIENT and the listener is INBOUND"});
        assert_eq!(answer["listeners"][0]["skipped"], json!([off]));
    }
}

/// Stands in front of a server and keeps what it is told.
async fn listener_in(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let keep = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (keep, server) = (Arc::clone(&keep), TcpStream::connect(server).await.unwrap());
            tokio::spawn(async move {
                let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                let mut chunk = vec![0; 64 << 10];
                while let Ok(length @ 1..) = from.read(&mut chunk).await {
                    keep.lock().unwrap().extend_from_slice(&chunk[..length]);
                    to.write_all(&chunk[..length]).await.unwrap();
                }
            });
        }
    });
    (address, heard)
}

#[tokio::test]
async fn the_passwords_of_secrets_do_not_travel_to_the_control_plane_that_is_asked() {
    let scene = Scene::start().await;
    scene.plugin("one", "oci://r.test/one:v1", json!({}));
    scene.until_status("default/one", "known", |status| !status.is_null()).await;
    let secret = |name: &str, config: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
        })
    };
    let good = secret("pull", r#"{"auths": {"r.test": {"username": "u", "password": "hunter2"}}}"#);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [secret("other", "hunter2"), good]});
    let change = Change::of(&scene)
        .with("one.yaml", &plugin("one", "oci://r.test/one:v2", json!({"imagePullSecret": "pull"})))
        .with("secrets.yaml", &list.to_string())
        .with("broken.yaml", "kind: Secret\nstringData: {a: hunter2\n");
    let (address, heard) = listener_in(scene.control.admin()).await;
    let (folder, address) = (change.folder.path().display().to_string(), address.to_string());
    let printed = wasmplane(&["diff", "--config", &folder, "--server", &address, "--format", "json"]).await;
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(heard.contains("oci://r.test/one:v2") && !heard.contains("hunter2"), "{heard}");

    // The answer is whole all the same.
    assert_eq!(printed.code, Some(1), "{printed:?}");
    let answer = printed.json();
    let fields: Vec<_> = answer["manifests"][0]["fields"].as_array().unwrap().iter().map(|it| &it["field"]).collect();
    assert_eq!(fields, ["url", "imagePullSecret"], "{answer:#}");
    let rejected: Vec<_> = answer["rejected"].as_array().unwrap().iter().map(|it| it["resource"].clone()).collect();
    let broken = change.folder.path().join("broken.yaml").display().to_string();
    assert_eq!(rejected, [json!(broken), json!("Secret default/other")], "{answer:#}");
    assert!(!printed.stdout.contains("hunter2"));
}
