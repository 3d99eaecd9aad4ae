//! Layers and images for tests.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{Document, Manifest, parse};
use crate::model::Digest;

/// Bytes that nobody takes for anything but a module.
pub const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// One entry of an archive.
pub enum Item<'a> {
    File(&'a str, &'a [u8]),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
}

pub use Item::{File, Folder, HardLink, Symlink};

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
            Folder(name) => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, name, std::io::empty()).unwrap();
            }
            Symlink(name, target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
            HardLink(name, target) => {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// A header block such as no well-meant tool writes: nothing is checked.
pub fn block(name: &[u8], kind: u8, size: &[u8], link: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name);
    bytes[124..124 + size.len()].copy_from_slice(size);
    bytes[156] = kind;
    bytes[157..157 + link.len()].copy_from_slice(link);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A header and its content, filled up to whole blocks.
pub fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut entry = block(name.as_bytes(), kind, format!("{:011o}", content.len()).as_bytes(), b"");
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// The end of an archive.
pub fn end() -> Vec<u8> {
    vec![0; 1024]
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
