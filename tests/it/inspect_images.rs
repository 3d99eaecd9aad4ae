//! `inspect` of images in a real registry, and of what is no image.

use serde_json::{Value, json};
use wasmplane::model::Digest;

use crate::support::control_plane::{Printed, wasmplane};
use crate::support::images::{LAYOUTS, container, layout, tar};
use crate::support::modules;
use crate::support::registry::{Guard, registry};

async fn inspect(arguments: &[&str]) -> Printed {
    wasmplane(&[&["inspect", "--format", "json"], arguments].concat()).await
}

/// What `inspect` calls the layout, in one word and in several.
fn words(name: &str) -> (&'static str, &'static str) {
    match name {
        "cncf" | "artifact-type" => ("cncf", "a Wasm artifact"),
        "solo" => ("solo", "a WebAssemblyHub image"),
        "wasm-to-oci" => ("wasm-to-oci", "a wasm-to-oci image"),
        "compat-docker" | "docker-list" => ("compat-docker", "a Docker container image with plugin.wasm"),
        // As `push --maistra` makes them, plugin.wasm included.
        "maistra" | "maistra-layers" | "maistra-and-compat" => ("maistra", "a Maistra extension image (manifest.yaml)"),
        _ => ("compat-oci", "an OCI container image with plugin.wasm"),
    }
}

#[tokio::test]
async fn each_layout_is_inspected_with_its_name_its_digests_and_its_defaults() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let module = modules::header("x-a", "a");
    for name in LAYOUTS {
        let image = layout(name, &module);
        image.publish(&registry, "acme/a", name);
        let reference = format!("oci://{}", registry.reference(&format!("acme/a:{name}")));
        let printed = inspect(&[&reference]).await;
        assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{name}: {printed:?}");
        let report = printed.json();
        let maistra = |module: &str| json!({"name": "a", "description": null, "version": null, "phase": "PreAuthZ", "priority": 100, "module": module});
        let defaults = match name {
            "maistra" | "maistra-layers" => maistra("extension.wasm"),
            "maistra-and-compat" => maistra("plugin.wasm"),
            _ => Value::Null,
        };
        let runtime = match name {
            "solo" => json!({"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "rootIds": ["a"]}),
            _ => Value::Null,
        };
        // Of an index: what the reference names.
        let (word, sentence) = words(name);
        let digest = format!("sha256:{}", Digest::of(&image.manifest));
        let expected = json!({"layout": word, "image": digest, "defaults": defaults,
            "runtime": runtime, "sha256": Digest::of(&module).to_string(), "size": module.len(), "warnings": []});
        let told: Value = expected.as_object().unwrap().keys().map(|key| (key.clone(), report[key].clone())).collect();
        assert_eq!(told, expected, "{name}");

        let text = wasmplane(&["inspect", &reference]).await.stdout;
        assert!(text.contains(&format!("packed as {sentence}\nimage     {digest}\n")), "{text}");
        assert_eq!(text.contains("phase PreAuthZ, priority 100"), !defaults.is_null(), "{text}");
        assert_eq!(text.contains("root ids a"), !runtime.is_null(), "{text}");
    }
}

#[tokio::test]
async fn an_image_is_judged_and_what_is_none_is_one_line() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let module = modules::header_for_newer("x-a", "a");
    layout("maistra", &module).publish(&registry, "acme/mine", "1");
    let reference = format!("oci://{}", registry.reference("acme/mine:1"));
    let printed = inspect(&[&reference]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let older = inspect(&["--envoy", "1.36", &reference]).await;
    assert_eq!(older.code, Some(1), "{older:?}");
    assert!(older.json()["verdict"]["reason"].as_str().unwrap().contains("fd_sync"), "{older:?}");

    // No module in it, no such tag, nobody there: 2, and one line that says so.
    container(&[tar(&[("README", b"nothing")])]).publish(&registry, "acme/empty", "1");
    for name in [
        reference.replace("acme/mine:1", "acme/empty:1"),
        reference.replace("mine:1", "mine:2"),
        "oci://127.0.0.1:1/a:1".to_owned(),
    ] {
        let printed = inspect(&[&name]).await;
        assert_eq!((printed.code, printed.stdout.as_str()), (Some(2), ""), "{printed:?}");
        assert!(printed.stderr.contains(&name) && printed.stderr.trim().lines().count() == 1, "{printed:?}");
    }
}
