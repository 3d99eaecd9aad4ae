//! Compiles our own `.proto` files and takes Envoy's descriptors out of the `envoy-types` crate.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::{Message as _, encoding};
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let admin = protox::compile(["wasmplane/admin/v1/admin.proto"], ["proto"])?;
    fs::write(out.join("admin.fds"), admin.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(admin)?;

    let mut typed_structs =
        protox::compile(["xds/type/v3/typed_struct.proto", "udpa/type/v1/typed_struct.proto"], ["proto"])?;
    typed_structs.file.retain(|file| file.name().ends_with("typed_struct.proto"));
    let mut envoy = without_comments(&envoy_descriptors()?)?;
    // Two sets, one after the other, are one set.
    envoy.extend(typed_structs.encode_to_vec());
    let decoded = FileDescriptorSet::decode(&envoy[..])?;
    fs::write(out.join("discovery.fds"), closure(&decoded, &DISCOVERY).encode_to_vec())?;
    fs::write(
        out.join("client_status.fds"),
        closure(&decoded, &["envoy/service/status/v3/csds.proto"]).encode_to_vec(),
    )?;
    fs::write(out.join("envoy.fds"), envoy)?;
    Ok(())
}

/// Comments are four fifths of the set and nobody asks for them. Decoding and encoding the set would lose Envoy's field
/// rules as well, which are extensions, so its bytes are taken apart.
fn without_comments(set: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    // FileDescriptorSet: file = 1. FileDescriptorProto: source_code_info = 9.
    let mut out = Vec::new();
    for (_, file) in fields(set)? {
        let payload = length_delimited(file)?;
        let kept: Vec<u8> =
            fields(payload)?.into_iter().filter(|(tag, _)| *tag != 9).flat_map(|(_, field)| field.to_vec()).collect();
        encoding::bytes::encode(1, &kept, &mut out);
    }
    Ok(out)
}

/// A field's number, and its bytes with the key.
type EncodedField<'a> = (u32, &'a [u8]);

/// The fields of an encoded message.
fn fields(message: &[u8]) -> Result<Vec<EncodedField<'_>>, Box<dyn Error>> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let whole = rest;
        let (tag, wire_type) = encoding::decode_key(&mut rest)?;
        encoding::skip_field(wire_type, tag, &mut rest, encoding::DecodeContext::default())?;
        fields.push((tag, &whole[..whole.len() - rest.len()]));
    }
    Ok(fields)
}

/// What is in a field whose value is a message.
fn length_delimited(field: &[u8]) -> Result<&[u8], Box<dyn Error>> {
    let mut rest = field;
    encoding::decode_key(&mut rest)?;
    encoding::decode_varint(&mut rest)?;
    Ok(rest)
}

/// The services that the xDS port serves, for gRPC reflection.
const DISCOVERY: [&str; 6] = [
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/listener/v3/lds.proto",
    "envoy/service/route/v3/rds.proto",
    "envoy/service/cluster/v3/cds.proto",
    "envoy/service/endpoint/v3/eds.proto",
    "envoy/service/extension/v3/config_discovery.proto",
];

/// The files `roots` and all that they import.
fn closure(set: &FileDescriptorSet, roots: &[&str]) -> FileDescriptorSet {
    let mut wanted: BTreeSet<String> = roots.iter().map(ToString::to_string).collect();
    loop {
        let needed = set.file.iter().filter(|file| wanted.contains(file.name())).flat_map(|file| &file.dependency);
        let next: BTreeSet<String> = wanted.iter().chain(needed).cloned().collect();
        if next == wanted {
            break;
        }
        wanted = next;
    }
    FileDescriptorSet { file: set.file.iter().filter(|file| wanted.contains(file.name())).cloned().collect() }
}

/// The crate ships the descriptors of all it was generated from, but does not export them.
fn envoy_descriptors() -> Result<Vec<u8>, Box<dyn Error>> {
    let path = envoy_types_dir()?.join("src/generated/types.bin");
    Ok(fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn envoy_types_dir() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version=1", "--offline"])
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata names no envoy-types")?;
    Ok(Path::new(manifest).parent().ok_or("envoy-types has no folder")?.to_owned())
}
