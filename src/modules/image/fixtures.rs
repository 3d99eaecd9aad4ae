//! Layers and images for tests.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::{Document, Manifest, parse};
use crate::model::Digest;

/// Bytes that nobody takes for anything but a module.
pub const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// One entry of an archive.
pub enum Item<'a> {
    File(&'a str, &'a [u8]),
}

pub use Item::File;

pub fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        match item {
            File(name, content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, *content).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 3).unwrap()
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("{:?}", Digest::of(content)), "size": content.len()})
}

/// An image as a registry would give it: the manifest that was read, and all layers.
pub struct Image {
    pub manifest: Manifest,
    pub layers: Vec<Bytes>,
}

pub fn image(media_type: &str, config: &str, layers: &[(&str, Vec<u8>)]) -> Image {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, b"{}"),
        "layers": layers.iter().map(|(media_type, content)| descriptor(media_type, content)).collect::<Vec<_>>(),
    });
    let Document::Image(manifest) = parse(document.to_string().as_bytes(), Some(media_type)).unwrap() else {
        panic!("an image is no index")
    };
    Image { manifest, layers: layers.iter().map(|(_, content)| content.clone().into()).collect() }
}
