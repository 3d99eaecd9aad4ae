//! The plugins of `examples/plugins`, built from source by their script, as authors would: inspected, run on real
//! Envoys, edited, refused.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::model::Digest;

use crate::support::control_plane::wasmplane;
use crate::support::envoy::{CHAIN, FILTER};
use crate::support::http::Response;
use crate::support::scene::Scene;

const LANGUAGES: [&str; 4] = ["assemblyscript", "c", "go", "rust"];
/// What the script says where a toolchain is not to be had, and what to do.
const NO_TOOLCHAIN: i32 = 3;
const NOT_FETCHED: i32 = 4;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(sources(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// The module; built once per state of its sources. `None`, said loudly, where its toolchain is not to be had.
async fn built(language: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (plugins, target) = (root.join("examples/plugins"), root.join("target/plugins"));
    let files = sources(&plugins.join(language)).into_iter().chain([plugins.join("build")]);
    let content: Vec<u8> = files.flat_map(|file| std::fs::read(file).unwrap()).collect();
    let module = target.join(format!("{language}-{:.16}.wasm", Digest::of(&content).to_string()));
    if module.exists() {
        return Some(module);
    }
    let mut command = Command::new(plugins.join("build"));
    command.args(["--fetch", language]).arg(&module).stdin(Stdio::null()).kill_on_drop(true);
    let printed = command.output().await.expect("there is a bash");
    let stderr = String::from_utf8_lossy(&printed.stderr);
    match printed.status.code() {
        Some(0) => Some(module),
        Some(NO_TOOLCHAIN | NOT_FETCHED) => {
            // Not eprintln!, whose output the test runner keeps back when the test passes.
            let words = format!("\n*** SKIPPED: no plugin in {language} ***\n*** {}\n\n", stderr.trim());
            std::io::stderr().write_all(words.as_bytes()).expect("stderr is open");
            None
        }
        _ => panic!("examples/plugins/build {language}: {}\n{stderr}", printed.status),
    }
}

#[tokio::test]
async fn who_fetches_is_not_told_to_fetch_what_cannot_be_fetched() {
    // A PATH with all that the script itself needs, and no toolchain.
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").expect("tests run with a PATH");
    for tool in ["bash", "dirname", "basename", "mkdir", "mktemp", "rm", "sed"] {
        let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.exists());
        std::os::unix::fs::symlink(found.expect("a tool of every system"), folder.path().join(tool)).unwrap();
    }
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plugins/build");
    for language in ["go", "rust"] {
        let mut command = Command::new(folder.path().join("bash"));
        command.arg(&build).args(["--fetch", language]).arg(folder.path().join("out.wasm"));
        command.env("PATH", folder.path()).env("CARGO_TARGET_DIR", folder.path()).stdin(Stdio::null());
        let printed = command.output().await.unwrap();
        let stderr = String::from_utf8_lossy(&printed.stderr).into_owned();
        assert_eq!(printed.status.code(), Some(NO_TOOLCHAIN), "{stderr}");
        assert!(stderr.contains("is missing: install it from") && !stderr.contains("--fetch"), "{stderr}");
    }
}

#[tokio::test]
async fn a_plugin_of_each_language_is_built_inspected_run_edited_and_refused() {
    let mut modules = Vec::new();
    for language in LANGUAGES {
        modules.extend(built(language).await.map(|module| (language, module)));
    }
    assert!(!modules.is_empty(), "not one toolchain is to be had");
    for (_, module) in &modules {
        for envoy in ["1.36", "1.40"] {
            let path = module.display().to_string();
            let inspected = wasmplane(&["inspect", "--envoy", envoy, "--format", "json", &path]).await;
            assert_eq!((inspected.code, &inspected.json()["warnings"]), (Some(0), &json!([])), "{inspected:?}");
        }
    }
    for (version, protocol) in [(CHAIN, Protocol::Delta), (FILTER, Protocol::Sotw)] {
        let Some((scene, _running)) = Scene::with_envoy(version, protocol).await else { return };
        for (language, module) in &modules {
            let url = scene.control.module(&format!("{language}.wasm"), &std::fs::read(module).unwrap());
            let header = format!("x-{language}");
            let edit = |value: &str| {
                scene.plugin(language, &url, json!({"pluginConfig": {&header: value, "x-other": "too"}}));
            };
            for value in ["one", "two, with a comma"] {
                edit(value);
                scene.until_header(&header, Some(value)).await;
            }
            // A configuration that the plugin itself refuses: the one before goes on.
            scene.plugin(language, &url, json!({"pluginConfig": {&header: 3}}));
            scene.until_all(&format!("default/{language}"), "rejected", 1).await;
            let answer = scene.get().await.unwrap();
            assert_eq!((answer.status, answer.header(&header)), (200, Some("two, with a comma")));
            // Envoy acknowledges before each of its workers has taken the configuration over.
            edit("three");
            scene.until_header(&header, Some("three")).await;
            scene.until_all(&format!("default/{language}"), "programmed", 1).await;
        }
        let has_all = |answer: &Response| {
            modules.iter().all(|(language, _)| answer.header(&format!("x-{language}")) == Some("three"))
        };
        scene.until("an answer through all of them", has_all).await;
    }
}
