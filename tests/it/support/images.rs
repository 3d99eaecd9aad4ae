//! Images with a module, in every layout and as other tools make them: by hand, and not by the code under test.

use std::io::Write as _;

use serde_json::{Value, json};
use wasmplane::model::Digest;

use super::registry::{self, Registry};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const RAW: &str = "application/wasm";

/// What a registry holds of a reference.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
    /// Images that an index speaks of.
    pub children: Vec<Image>,
}

impl Image {
    /// Puts it into the registry; an index's images have tags of their own.
    pub fn publish(&self, registry: &Registry, repository: &str, tag: &str) {
        for (number, child) in self.children.iter().enumerate() {
            child.publish(registry, repository, &format!("{tag}-{number}"));
        }
        let stored = registry::Image { manifest: self.manifest.clone(), blobs: self.blobs.clone() };
        registry.publish(repository, tag, &stored);
    }
}

pub const LAYOUTS: [&str; 14] = [
    "cncf",
    "artifact-type",
    "solo",
    "wasm-to-oci",
    "compat-oci",
    "compat-oci-plain",
    "compat-oci-zstd",
    "compat-docker",
    "compat-any-folder",
    "maistra",
    "maistra-layers",
    "maistra-and-compat",
    "index",
    "docker-list",
];

/// An image of one of [`LAYOUTS`].
pub fn layout(name: &str, module: &[u8]) -> Image {
    let plugin = || tar(&[("plugin.wasm", module)]);
    let oci = |layers: Vec<(&str, Vec<u8>)>| image(OCI, OCI_CONFIG, b"{}", &layers);
    let manifest: &[u8] = b"schemaVersion: 1\nname: a\nphase: PreAuthZ\npriority: 100\nmodule: extension.wasm\n";
    match name {
        "cncf" => image(OCI, "application/vnd.wasm.config.v0+json", br#"{"os":"wasip1"}"#, &[(RAW, module.to_vec())]),
        "artifact-type" => {
            let mut document = document(OCI, "application/vnd.oci.empty.v1+json", b"{}", &[(RAW, module.to_vec())]);
            document["artifactType"] = "application/vnd.istio.wasm".into();
            Image { manifest: json_bytes(&document), blobs: vec![b"{}".to_vec(), module.to_vec()], children: vec![] }
        }
        "solo" => {
            let config = "application/vnd.module.wasm.config.v1+json";
            let runtime = br#"{"type":"envoy_proxy","abiVersions":["v0.2.1"],"config":{"rootIds":["a"]}}"#;
            let content = ("application/vnd.module.wasm.content.layer.v1+wasm", module.to_vec());
            image(OCI, config, runtime, &[(config, runtime.to_vec()), content])
        }
        "wasm-to-oci" => {
            let content = ("application/vnd.wasm.content.layer.v1+wasm", module.to_vec());
            image(OCI, "application/vnd.wasm.config.v1+json", b"{}", &[content])
        }
        "compat-oci" => oci(vec![("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&plugin()))]),
        "compat-oci-plain" => oci(vec![(OCI_TAR, plugin())]),
        "compat-oci-zstd" => {
            let packed = zstd::encode_all(plugin().as_slice(), 0).expect("memory takes everything");
            oci(vec![("application/vnd.oci.image.layer.v1.tar+zstd", packed)])
        }
        "compat-docker" => image(DOCKER, DOCKER_CONFIG, b"{}", &[(DOCKER_TAR, gzip(&plugin()))]),
        "compat-any-folder" => oci(vec![
            (OCI_TAR, tar(&[("bin/sh", b"#!")])),
            (OCI_TAR, tar(&[("opt/a/plugin.wasm", module), ("opt/a/runtime-config.json", b"{}")])),
        ]),
        "maistra" => {
            let layer = tar(&[("manifest.yaml", manifest), ("extension.wasm", module)]);
            image(DOCKER, DOCKER_CONFIG, b"{}", &[(DOCKER_TAR, gzip(&layer))])
        }
        "maistra-layers" => oci(vec![
            (OCI_TAR, tar(&[("extension.wasm", b"an older one"), ("plugin.wasm", b"hidden"), ("old/x", b"")])),
            (OCI_TAR, tar(&[("extension.wasm", module), (".wh.plugin.wasm", b""), ("old/.wh..wh..opq", b"")])),
            (OCI_TAR, tar(&[("./manifest.yaml", manifest)])),
        ]),
        "maistra-and-compat" => {
            let both = std::str::from_utf8(manifest).unwrap().replace("extension.wasm", "plugin.wasm");
            oci(vec![(OCI_TAR, tar(&[("manifest.yaml", both.as_bytes()), ("plugin.wasm", module)]))])
        }
        "index" => index(OCI_INDEX, layout("compat-oci", module), &[("linux", "arm64"), ("wasi", "wasm")]),
        "docker-list" => index(DOCKER_LIST, layout("compat-docker", module), &[("linux", "s390x"), ("linux", "amd64")]),
        other => panic!("no layout {other}"),
    }
}

/// A container image of OCI's with these tar layers.
pub fn container(layers: &[Vec<u8>]) -> Image {
    let layers: Vec<_> = layers.iter().map(|layer| (OCI_TAR, layer.clone())).collect();
    image(OCI, OCI_CONFIG, b"{}", &layers)
}

/// An image that holds one blob, whatever it is called.
pub fn image(media_type: &str, config_type: &str, config: &[u8], layers: &[(&str, Vec<u8>)]) -> Image {
    let contents = layers.iter().map(|(_, content)| content.clone());
    Image {
        manifest: json_bytes(&document(media_type, config_type, config, layers)),
        blobs: [config.to_vec()].into_iter().chain(contents).collect(),
        children: Vec::new(),
    }
}

fn document(media_type: &str, config_type: &str, config: &[u8], layers: &[(&str, Vec<u8>)]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|(media_type, content)| descriptor(media_type, content)).collect();
    json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": descriptor(config_type, config), "layers": layers,
    })
}

/// The last of the platforms has the right image, the others one without module.
fn index(media_type: &str, right: Image, platforms: &[(&str, &str)]) -> Image {
    let child_type = if media_type == OCI_INDEX { OCI } else { DOCKER };
    let mut children: Vec<Image> =
        platforms[1..].iter().map(|_| container(&[tar(&[("nothing", b"of use")])])).collect();
    if child_type == DOCKER {
        children = platforms[1..].iter().map(|_| image(DOCKER, DOCKER_CONFIG, b"{}", &[])).collect();
    }
    children.push(right);
    let entries = children.iter().zip(platforms).map(|(child, (os, architecture))| {
        let mut entry = descriptor(child_type, &child.manifest);
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    });
    let document = json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": entries.collect::<Vec<_>>(),
    });
    Image { manifest: json_bytes(&document), blobs: Vec::new(), children }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(content)), "size": content.len()})
}

fn json_bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).expect("memory takes everything");
    }
    builder.into_inner().expect("memory takes everything")
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory takes everything")
}
