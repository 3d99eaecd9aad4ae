//! Compiles our own `.proto` files and takes Envoy's descriptors out of the `envoy-types` crate.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let admin = protox::compile(["wasmplane/admin/v1/admin.proto"], ["proto"])?;
    fs::write(out.join("admin.fds"), admin.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(admin)?;

    let mut envoy = envoy_descriptors()?;
    let typed_structs =
        protox::compile(["xds/type/v3/typed_struct.proto", "udpa/type/v1/typed_struct.proto"], ["proto"])?;
    envoy.file.extend(typed_structs.file.into_iter().filter(|file| file.name().ends_with("typed_struct.proto")));
    for file in &mut envoy.file {
        // Comments are four fifths of the set and nobody asks for them.
        file.source_code_info = None;
    }
    fs::write(out.join("discovery.fds"), closure(&envoy, &DISCOVERY).encode_to_vec())?;
    fs::write(out.join("envoy.fds"), envoy.encode_to_vec())?;
    Ok(())
}

/// The services that wasmplane serves, for gRPC reflection.
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
fn envoy_descriptors() -> Result<FileDescriptorSet, Box<dyn Error>> {
    let path = envoy_types_dir()?.join("src/generated/types.bin");
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(FileDescriptorSet::decode(&bytes[..])?)
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
