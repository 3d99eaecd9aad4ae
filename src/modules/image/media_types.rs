//! The media types that images with a module are made of.

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The documents that can be read: for a registry's `Accept` header.
pub const DOCUMENTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// Docker's first format, which names no media types for its layers.
pub const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The module of a CNCF artifact, as it is.
pub const CNCF_LAYER: &str = "application/wasm";
/// The module of a WebAssemblyHub image, as it is.
pub const SOLO_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// `runtime-config.json` of a WebAssemblyHub image: both its config and its other layer.
pub const SOLO_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
/// The module of an image that wasm-to-oci or cosign made, as it is.
pub const WASM_TO_OCI_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";

pub const OCI_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers of container images. Which of them are compressed, and how, their content says.
const TAR_LAYERS: [&str; 10] = [
    "application/vnd.oci.image.layer.v1.tar",
    OCI_TAR_GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

pub fn is_tar_layer(media_type: &str) -> bool {
    TAR_LAYERS.contains(&media_type)
}

/// A header's media type without its parameters, in lower case.
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
