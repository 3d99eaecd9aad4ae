//! `inspect` of images in a real registry, and of what is no image.

use serde_json::{Value, json};
use wasmplane::model::Digest;

use crate::support::control_plane::{Printed, wasmplane};
use crate::support::modules;
use crate::support::registry::{Guard, Image, registry};

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(blob)), "size": blob.len()})
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A container image of one layer.
fn image(layer: &[u8]) -> Image {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    Image { manifest: manifest.to_string().into_bytes(), blobs: vec![b"{}".to_vec(), layer.to_vec()] }
}

async fn inspect(arguments: &[&str]) -> Printed {
    wasmplane(&[&["inspect", "--format", "json"], arguments].concat()).await
}

#[tokio::test]
async fn an_image_is_inspected_with_its_digests_its_layout_and_its_defaults() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let module = modules::header_for_newer("x-a", "a");
    let manifest =
        b"schemaVersion: 1\nname: mine\nversion: 1.0.0\nphase: PreAuthZ\npriority: 100\nmodule: extension.wasm\n";
    let layer = tar(&[("manifest.yaml", manifest), ("extension.wasm", &module)]);
    let image_of_mine = image(&layer);
    registry.publish("acme/mine", "1", &image_of_mine);

    let reference = registry.reference("acme/mine:1");
    let reference = format!("oci://{}", reference.trim_start_matches("oci://"));
    let printed = inspect(&[&reference]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let report = printed.json();
    let defaults = json!({
        "name": "mine", "description": null, "version": "1.0.0", "phase": "PreAuthZ", "priority": 100,
        "module": "extension.wasm",
    });
    assert_eq!((&report["layout"], &report["defaults"]), (&json!("maistra"), &defaults), "{report:#}");
    assert_eq!(report["image"], Digest::of(&image_of_mine.manifest).to_string());
    assert_eq!(report["sha256"], Digest::of(&module).to_string());
    let older = inspect(&["--envoy", "1.36", &reference]).await;
    assert_eq!(older.code, Some(1), "{older:?}");
    assert!(older.json()["verdict"]["reason"].as_str().unwrap().contains("fd_sync"), "{older:?}");

    // No module in it, no such tag, nobody there: 2, and one line that says so.
    let empty = tar(&[("README", b"nothing")]);
    registry.publish("acme/empty", "1", &image(&empty));
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
