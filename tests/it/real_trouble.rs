//! Trouble of every kind: each gives one clear error that names what and where, and nothing else stops.

use std::io::Write as _;

use serde_json::json;
use tokio::net::TcpListener;
use wasmplane::commands::bootstrap::Protocol;

use crate::support::control_plane::ControlPlane;
use crate::support::envoy::CHAIN;
use crate::support::module_server::ModuleServer;
use crate::support::scene::{Scene, listener, plugin, template};
use crate::support::{free_port, modules, wait_until};

/// Waits until the log has a line with all these words, and returns how many there are.
async fn lines_with(control: &ControlPlane, words: &[&str]) -> usize {
    wait_until(&format!("a line of the log with {words:?}"), async || {
        let log = control.log();
        let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        Some(lines.count()).filter(|count| *count > 0)
    })
    .await
}

async fn until_config_errors(scene: &Scene, count: u64) {
    wait_until(&format!("{count} config errors"), async || {
        (scene.metric("wasmplane_config_errors").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_fault_in_the_configuration_is_told_once_and_stops_nothing_else() {
    let Some((scene, _running)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let hello = scene.control.module("hello.wasm", &modules::hello());
    let hello_with = |n: u8| plugin("hello", &hello, json!({"pluginConfig": {"n": n}}));
    scene.control.write("hello.yaml", &hello_with(1));
    scene.until_header("x-hello", Some(r#"{"n":1}"#)).await;

    // Half-written, then emptied, then whole again.
    for (text, words) in [(&hello_with(2)[..60], "hello.yaml"), ("", "has turned empty"), ("# nothing\n", "empty")] {
        scene.control.write("hello.yaml", text);
        until_config_errors(&scene, 1).await;
        lines_with(&scene.control, &["configuration refused", "hello.yaml", words]).await;
        assert_eq!(scene.get().await.unwrap().header("x-hello"), Some(r#"{"n":1}"#));
    }
    scene.control.write("hello.yaml", &hello_with(3));
    scene.until_header("x-hello", Some(r#"{"n":3}"#)).await;
    until_config_errors(&scene, 0).await;

    // An unknown field: what ran goes on, and the plugin's own line says why.
    let wrong = hello_with(4).replace("pluginConfig", "pluginConfg");
    scene.control.write("hello.yaml", &wrong);
    let status = scene.until_status("default/hello", "a warning", |it| it["warnings"].to_string().contains("Confg"));
    let status = status.await;
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("not taken over: spec.pluginConfg"), "{warnings}");
    assert_eq!(lines_with(&scene.control, &["configuration refused", "spec.pluginConfg"]).await, 1);
    assert_eq!(scene.get().await.unwrap().header("x-hello"), Some(r#"{"n":3}"#));

    // Two resources of one name: the smaller path wins, the other is told.
    scene.control.write("hello.yaml", &hello_with(3));
    scene.control.write("zzz.yaml", &hello_with(5));
    assert_eq!(lines_with(&scene.control, &["declared twice", "zzz.yaml", "hello.yaml"]).await, 1);
    assert_eq!(scene.get().await.unwrap().header("x-hello"), Some(r#"{"n":3}"#));
    scene.control.delete("zzz.yaml");
    until_config_errors(&scene, 0).await;

    // A module file that is missing until it is built; a module server that is dead until it lives.
    let server = ModuleServer::start().await;
    let missing = format!("file://{}", scene.control.modules().join("missing.wasm").display());
    for (name, url, word) in [("missing", missing, "missing.wasm"), ("remote", server.url("/r.wasm"), "404")] {
        scene.plugin(name, &url, json!({"pluginConfig": {"n": name}}));
        let status = scene.until_all(&format!("default/{name}"), "notLoaded", 1).await;
        assert!(status["moduleError"].as_str().unwrap().contains(word), "{status}");
        lines_with(&scene.control, &["module not available", word]).await;
    }
    scene.control.write("hello.yaml", &hello_with(6));
    scene.until_header("x-hello", Some(r#"{"n":6}"#)).await;
    scene.control.module("missing.wasm", &modules::header("x-missing", "here"));
    scene.until_header("x-missing", Some("here")).await;
    server.put("/r.wasm", modules::header("x-remote", "here"));
    scene.until_header("x-remote", Some("here")).await;

    // A native template with a typo, and two templates of one listener.
    let typo = template("typo", &[listener("other", free_port(), 1)]).replace("forwardTo", "forwadTo");
    scene.control.write("typo.yaml", &typo);
    lines_with(&scene.control, &["configuration refused", "forwadTo", "typo.yaml"]).await;
    scene.control.delete("typo.yaml");
    scene.control.write("zwei.yaml", &template("zwei", &[listener("in", free_port(), 1)]));
    assert_eq!(lines_with(&scene.control, &["ProxyTemplate default/zwei"]).await, 1);
    assert_eq!(scene.get().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_told_and_plugins_run_all_the_same() {
    let Some(setup) = crate::support::envoy::envoy(CHAIN).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "a file").unwrap();
    let mut scene = Scene::new().await;
    scene.control = std::mem::replace(&mut scene.control, ControlPlane::new()).data_dir(&file);
    scene.control.start().await;
    let _running = scene.envoy(setup).await;
    let url = scene.control.module("hello.wasm", &modules::hello());
    for n in [1, 2] {
        scene.plugin("hello", &url, json!({"pluginConfig": {"n": n}}));
        scene.until_header("x-hello", Some(&format!(r#"{{"n":{n}}}"#))).await;
    }
    scene.until_all("default/hello", "programmed", 1).await;
    let errors: Vec<_> = scene.control.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert!(!errors.is_empty() && errors.len() <= 3, "{errors:#?}");
    assert!(errors.iter().all(|line| line.contains(&*scene.control.data().to_string_lossy())), "{errors:#?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file");
}

/// A disk of its own, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, said loudly, where this user may not mount one.
    fn of(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                let words =
                    format!("\n*** SKIPPED: no disk to fill, as only root may mount one ***\n*** {other:?}\n\n");
                std::io::stderr().write_all(words.as_bytes()).expect("stderr is open");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", self.0.path().display());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_plugins_run_from_memory_until_there_is_room() {
    let Some(disk) = SmallDisk::of("256k") else { return };
    let Some(setup) = crate::support::envoy::envoy(CHAIN).await else { return };
    let mut scene = Scene::new().await;
    scene.control = std::mem::replace(&mut scene.control, ControlPlane::new()).data_dir(disk.0.path());
    scene.control.write("template.yaml", &template("web", &[listener("in", scene.port, scene.upstream.port())]));
    scene.control.start().await;
    let _running = scene.envoy(setup).await;
    let large = |value: &str| [modules::header("x-large", value), modules::custom_section(0, 200_000)].concat();

    let url = scene.control.module("large.wasm", &large("1"));
    scene.plugin("large", &url, json!({}));
    scene.until_header("x-large", Some("1")).await;
    assert_eq!(scene.metric("wasmplane_module_store_writable").await, 1);

    // There is no room for a second one.
    scene.control.module("large.wasm", &large("2"));
    scene.until_header("x-large", Some("2")).await;
    let status = scene.until_all("default/large", "programmed", 1).await;
    assert_eq!(status["moduleError"], "");
    let fault = "No space left on device";
    let printed = scene.control.ask(&["plugins"]).await.stdout;
    assert!(
        printed.contains("modules cannot be stored, and are kept in memory only") && printed.contains(fault),
        "{printed}"
    );
    assert_eq!(scene.metric("wasmplane_module_store_writable").await, 0);
    assert_eq!(lines_with(&scene.control, &["module store cannot be written", fault]).await, 1);
    let folder = disk.0.path().join("modules/sha256");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left of what did not fit");

    // Room is made, and the next module is stored.
    for entry in std::fs::read_dir(&folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    scene.control.module("large.wasm", &large("3"));
    scene.until_header("x-large", Some("3")).await;
    lines_with(&scene.control, &["module store can be written again"]).await;
    assert_eq!(scene.metric("wasmplane_module_store_writable").await, 1);
}

#[tokio::test]
async fn a_port_that_is_taken_ends_serve_with_one_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let printed = ControlPlane::new().xds_listen(address).start_in_vain().await;
    assert_eq!(printed.code, Some(2), "{printed:?}");
    let errors: Vec<_> = printed.stderr.lines().collect();
    assert_eq!(errors.len(), 1, "{printed:?}");
    assert!(errors[0].contains("--xds-listen") && errors[0].contains(&address.to_string()), "{printed:?}");
}

#[tokio::test]
async fn a_second_control_plane_on_one_data_folder_is_refused_and_the_first_goes_on() {
    let scene = Scene::start().await;
    let mut second = ControlPlane::new().data_dir(&scene.control.data());
    let printed = second.start_in_vain().await;
    let words = format!("--data-dir {}: another wasmplane runs on this folder", scene.control.data().display());
    assert!(printed.stderr.contains(&words), "{printed:?}");
    assert_eq!(scene.control.admin_get("/livez").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_flag_that_makes_no_sense_ends_serve_before_anything_listens() {
    for (flag, value, words) in [
        ("--max-streams", "0", "'--max-streams <COUNT>': at least 1"),
        ("--max-streams-per-second", "0", "'--max-streams-per-second <COUNT>': at least 1"),
        ("--modules-url", "ftp://modules.test", "--modules-url ftp://modules.test: "),
    ] {
        let printed = ControlPlane::new().flags(&[flag, value]).start_in_vain().await;
        assert_eq!(printed.code, Some(2), "{printed:?}");
        assert!(printed.stderr.contains(words), "{printed:?}");
        assert!(!printed.stderr.contains("listening"), "{printed:?}");
    }
}
