//! Makes an image of a module: the blobs and the manifest to push. Pure.
//!
//! The same module gives the same bytes, whoever pushes it and when: there is no clock in it, and all dates are the epoch.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use serde::Serialize;
use tar::{Builder, Header};

use super::error::ImageError;
use super::maistra::ManifestDefaults;
use super::media_types::{CNCF_CONFIG, CNCF_LAYER, OCI_CONFIG, OCI_MANIFEST, OCI_TAR_GZIP};
use crate::model::Digest;

/// For whom the image is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// CNCF's artifact: the module as it is.
    Cncf,
    /// A container image with `plugin.wasm`, as Istio and Envoy Gateway read it.
    Compat,
    /// A container image with this `manifest.yaml`, and the module where it says.
    Maistra { manifest: String },
}

/// An image that is ready to be pushed: the blobs first, then the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    pub media_type: &'static str,
    pub manifest: Bytes,
    /// Config and layers.
    pub blobs: Vec<Bytes>,
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Fails only over a `manifest.yaml` that would not be read.
pub fn compose(module: &Bytes, recipe: &Recipe) -> Result<Composed, ImageError> {
    Ok(match recipe {
        Recipe::Cncf => cncf(module),
        Recipe::Compat => container(&[("plugin.wasm", module)]),
        Recipe::Maistra { manifest } => {
            let defaults = ManifestDefaults::parse(manifest.as_bytes())?;
            container(&[("manifest.yaml", manifest.as_bytes()), (defaults.module.trim_start_matches('/'), module)])
        }
    })
}

fn cncf(module: &Bytes) -> Composed {
    let config = CncfConfig {
        created: EPOCH,
        architecture: "wasm",
        os: "wasip1",
        layer_digests: vec![tagged(Digest::of(module))],
    };
    let annotations = BTreeMap::from([("org.opencontainers.image.title", "plugin.wasm")]);
    let layer = Written { annotations, ..Written::of(CNCF_LAYER, module) };
    composed(CNCF_CONFIG, json(&config), layer, module.clone(), BTreeMap::new())
}

/// One gzipped layer. Processor and system are the ones that Istio and most nodes ask for.
fn container(files: &[(&str, &[u8])]) -> Composed {
    let tar = tar(files);
    let config = ContainerConfig {
        created: EPOCH,
        architecture: "amd64",
        os: "linux",
        config: BTreeMap::new(),
        rootfs: RootFs { kind: "layers", diff_ids: vec![tagged(Digest::of(&tar))] },
    };
    let layer = gzip(&tar);
    let annotations = BTreeMap::from([("module.wasm.image/variant", "compat")]);
    composed(OCI_CONFIG, json(&config), Written::of(OCI_TAR_GZIP, &layer), layer.into(), annotations)
}

fn composed(
    config_type: &'static str,
    config: Bytes,
    layer: Written,
    content: Bytes,
    annotations: BTreeMap<&'static str, &'static str>,
) -> Composed {
    let manifest = WrittenManifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: Written::of(config_type, &config),
        layers: vec![layer],
        annotations,
    };
    Composed { media_type: OCI_MANIFEST, manifest: json(&manifest), blobs: vec![config, content] }
}

/// In the order in which the fields stand in the image specification.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest {
    schema_version: u8,
    media_type: &'static str,
    config: Written,
    layers: Vec<Written>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, &'static str>,
}

/// A descriptor.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: &'static str,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, &'static str>,
}

impl Written {
    fn of(media_type: &'static str, content: &[u8]) -> Self {
        Self { media_type, digest: tagged(Digest::of(content)), size: content.len(), annotations: BTreeMap::new() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CncfConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<String>,
}

#[derive(Serialize)]
struct ContainerConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    /// What a container would run: nothing. Some readers expect the field.
    config: BTreeMap<(), ()>,
    rootfs: RootFs,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

fn tagged(digest: Digest) -> String {
    format!("sha256:{digest}")
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("plain structs with string keys are JSON").into()
}

const IN_MEMORY: &str = "writing to memory does not fail";

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).expect(IN_MEMORY);
    }
    builder.into_inner().expect(IN_MEMORY)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    let written: io::Result<Vec<u8>> = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect(IN_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::MODULE;
    use super::super::{Consumer, Document, Extracted, Layout, UnpackLimits, parse};
    use super::*;

    const MAISTRA: &str = "schemaVersion: 1\nphase: PreAuthZ\npriority: 100\nmodule: /lib/extension.wasm\n";

    fn made(recipe: Recipe) -> Composed {
        compose(&Bytes::from_static(MODULE), &recipe).unwrap()
    }

    fn text(json: &[u8]) -> &str {
        str::from_utf8(json).unwrap()
    }

    /// As a registry would give it back.
    fn extracted(composed: &Composed) -> Extracted {
        let Ok(Document::Image(manifest)) = parse(&composed.manifest, Some(composed.media_type)) else { panic!() };
        let find = |digest| composed.blobs.iter().find(|blob| Digest::of(blob) == digest).unwrap().clone();
        let blobs = manifest.blobs().unwrap().iter().map(|blob| find(blob.digest)).collect();
        assert_eq!(find(manifest.config.digest).len() as u64, manifest.config.size);
        manifest.extract_for(Consumer::Plugin, blobs, &UnpackLimits::default()).unwrap()
    }

    #[test]
    fn what_is_made_is_what_is_read() {
        let cases = [
            (Recipe::Cncf, Layout::Cncf),
            (Recipe::Compat, Layout::CompatOci),
            (Recipe::Maistra { manifest: MAISTRA.to_owned() }, Layout::Maistra),
            // Readable for Istio as well.
            (Recipe::Maistra { manifest: MAISTRA.replace("/lib/extension.wasm", "plugin.wasm") }, Layout::Maistra),
        ];
        for (recipe, layout) in cases {
            let is_maistra = matches!(recipe, Recipe::Maistra { .. });
            let extracted = extracted(&made(recipe));
            assert_eq!((extracted.layout, extracted.module.as_ref()), (layout, MODULE));
            assert_eq!(extracted.defaults.map(|defaults| defaults.priority), is_maistra.then_some(100));
        }
    }

    #[test]
    fn a_manifest_that_would_not_be_read_is_not_made() {
        let error = compose(&Bytes::from_static(MODULE), &Recipe::Maistra { manifest: "phase: later".to_owned() });
        assert!(matches!(error, Err(ImageError::Manifest { .. })));
    }

    #[test]
    fn an_artifact_is_written_to_the_letter() {
        let composed = made(Recipe::Cncf);
        let digest = Digest::of(MODULE);
        assert_eq!(
            text(&composed.blobs[0]),
            format!(
                r#"{{"created":"1970-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","layerDigests":["sha256:{digest}"]}}"#
            )
        );
        assert_eq!(
            text(&composed.manifest),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"#,
                r#""application/vnd.wasm.config.v0+json","digest":"sha256:"#,
                r#"f0008e8ea386c51432cec6f4267e350797c9ac65e88e7fb8fdd70574210681d4","size":161},"layers":[{"mediaType":"#,
                r#""application/wasm","digest":"sha256:"#,
                r#"93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476","size":8,"annotations":{"#,
                r#""org.opencontainers.image.title":"plugin.wasm"}}]}"#
            )
        );
        assert_eq!(composed.blobs[1], MODULE);
    }

    #[test]
    fn a_container_image_is_written_to_the_letter() {
        let composed = made(Recipe::Compat);
        assert_eq!(
            text(&composed.blobs[0]),
            concat!(
                r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"#,
                r#""layers","diff_ids":["sha256:80439b6e6d5b8285207a091d35f1b38026fdbffa30724b5f2c9fae673003787d"]}}"#
            )
        );
        // How well the layer is compressed is for the library to say.
        let layer = &composed.blobs[1];
        let manifest = text(&composed.manifest).replace(&Digest::of(layer).to_string(), "LAYER");
        assert_eq!(
            manifest.replace(&format!(r#""size":{}}}]"#, layer.len()), r#""size":SIZE}]"#),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"#,
                r#""application/vnd.oci.image.config.v1+json","digest":"sha256:"#,
                r#"9ef0a83c3c00b1afbeb5abf359e63ef765cea32a253c9889317c9f871fc36199","size":196},"layers":[{"mediaType":"#,
                r#""application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:LAYER","size":SIZE}],"annotations":{"#,
                r#""module.wasm.image/variant":"compat"}}"#
            )
        );
    }
}
