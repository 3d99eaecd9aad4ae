//! What fuzzers feed with bytes: everything here that reads what strangers wrote.
//!
//! Each target takes any bytes, and asserts what must hold whatever they are. `fuzz/` runs them for hours (cargo-fuzz);
//! the tests beside this file run what the fuzzers start from, and a fixed number of changes of it, each time.

use bytes::Bytes;

use super::image::{self, Document, ManifestDefaults, RuntimeConfig, UnpackLimits, media_types};
use super::inspect::{inspect, releases};
use crate::model::DockerConfig;

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// By the names of their programs and corpora in `fuzz/`.
pub const TARGETS: [Target; 7] = [
    ("body", body),
    ("layers", layers),
    ("manifest", manifest),
    ("extension_manifest", extension_manifest),
    ("runtime_config", runtime_config),
    ("docker_config", docker_config),
    ("wasm", wasm),
];

/// Small, so that the limits are met and a round takes no time.
const LIMITS: UnpackLimits = UnpackLimits {
    module: 64 << 10,
    unpacked: 256 << 10,
    entries: 200,
    name: 200,
    names: 2000,
    depth: 16,
    nesting: 4,
    window_log: 20,
};

/// A message is for a terminal and a status: short, and without characters that do things.
fn check_message(message: &str) {
    assert!(!message.is_empty() && message.len() < 16 << 10, "{} bytes of message", message.len());
    assert!(!message.contains(|character: char| character.is_control()), "{message:?}");
}

/// An http(s) body, or a file.
pub fn body(data: &[u8]) {
    let served = Bytes::copy_from_slice(data);
    match image::unwrap(served.clone(), &LIMITS) {
        Ok(extracted) if extracted.layout == image::Layout::Plain => assert_eq!(extracted.module, served),
        Ok(extracted) => assert!(extracted.module.len() as u64 <= LIMITS.module),
        Err(error) => check_message(&error.to_string()),
    }
}

/// A container image: first the number of layers, then the length of each but the last, of two bytes, then all of them.
pub fn layers(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let mut rest = rest;
    let mut layers = Vec::new();
    for _ in 0..count % 4 {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { return };
        let (layer, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        layers.push(Bytes::copy_from_slice(layer));
        rest = after;
    }
    layers.push(Bytes::copy_from_slice(rest));
    for consumer in [image::Consumer::Plugin, image::Consumer::Extension] {
        match image::extract_layers(consumer, &layers, &LIMITS) {
            Ok(extracted) => assert!(extracted.module.len() as u64 <= LIMITS.module),
            Err(error) => check_message(&error.to_string()),
        }
    }
}

/// What a registry answers: first the number of a content type, then the document.
pub fn manifest(data: &[u8]) {
    let Some((number, document)) = data.split_first() else { return };
    let content_type = media_types::DOCUMENTS.get(usize::from(*number)).copied();
    match image::parse(document, content_type) {
        Ok(Document::Index(index)) => {
            if let Err(error) = index.choose() {
                check_message(&error.to_string());
            }
        }
        Ok(Document::Image(manifest)) => match manifest.blobs() {
            Ok(blobs) => assert!((1..=128).contains(&blobs.len())),
            Err(error) => check_message(&error.to_string()),
        },
        Err(error) => check_message(&error.to_string()),
    }
}

/// Maistra's manifest.yaml.
pub fn extension_manifest(data: &[u8]) {
    match ManifestDefaults::parse(data) {
        Ok(defaults) => assert!(!defaults.module.is_empty()),
        Err(error) => check_message(&error.to_string()),
    }
}

/// WebAssemblyHub's runtime-config.json.
pub fn runtime_config(data: &[u8]) {
    match RuntimeConfig::parse(data) {
        Ok(runtime) => assert!(runtime.root_id().is_none_or(|root_id| (1..=256).contains(&root_id.len()))),
        Err(error) => check_message(&error.to_string()),
    }
}

/// Credentials, of a secret or of the operator.
pub fn docker_config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(config) = DockerConfig::parse(text) {
        for (registry, repository) in [("ghcr.io", "team/plugin"), ("127.0.0.1:5000", "a"), ("[::1]:1", ""), ("", "//")]
        {
            assert!(config.lookup(registry, repository).len() <= 1000);
        }
    }
}

/// A module.
pub fn wasm(data: &[u8]) {
    let report = inspect(data);
    assert_eq!((report.size, report.verdicts.len()), (data.len(), releases().len()));
    for (_, reason) in report.refusals() {
        check_message(&reason);
    }
    report.warnings.iter().for_each(|warning| check_message(warning));
}

#[cfg(test)]
mod tests;
