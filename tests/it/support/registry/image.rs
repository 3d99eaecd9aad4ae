//! Images with a module in them, as `wkg` and `wasmplane push` make them.

use serde_json::json;
use wasmplane::model::Digest;

/// A manifest and its blobs.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
}

/// A CNCF Wasm artifact.
pub fn image(module: &[u8]) -> Image {
    let config =
        json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [format!("sha256:{}", Digest::of(module))]});
    let config = config.to_string().into_bytes();
    let descriptor = |media_type: &str, blob: &[u8]| json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(blob)), "size": blob.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.wasm.config.v0+json", &config),
        "layers": [descriptor("application/wasm", module)],
    });
    Image { manifest: manifest.to_string().into_bytes(), blobs: vec![config, module.to_vec()] }
}

impl Image {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
