//! How an image is built, told by its media types. Pure.

use std::fmt;

use super::document::{Descriptor, Manifest};
use super::error::{ImageError, listed, shown};
use super::limits::bytes;
use super::media_types::{
    CNCF_CONFIG, CNCF_LAYER, DOCKER_CONFIG, DOCKER_MANIFEST, SOLO_CONFIG, SOLO_LAYER, WASM_TO_OCI_LAYER, is_tar_layer,
};
use super::runtime_config::RUNTIME_CONFIG_LIMIT;

/// Where in its packaging a module was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A container image whose `manifest.yaml` names the module.
    Maistra,
    /// A container image of Docker's with `plugin.wasm`.
    CompatDocker,
    /// A container image of OCI's with `plugin.wasm`.
    CompatOci,
    /// WebAssemblyHub: the module, and runtime-config.json.
    Solo,
    /// CNCF's artifact: the module as the only layer.
    Cncf,
    /// What wasm-to-oci and cosign made.
    WasmToOci,
    /// A body or file that is the module itself.
    Plain,
    /// A body or file that had to be unpacked.
    Packed,
}

impl Layout {
    /// One word; also the name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Maistra => "maistra",
            Self::CompatDocker => "compat-docker",
            Self::CompatOci => "compat-oci",
            Self::Solo => "solo",
            Self::Cncf => "cncf",
            Self::WasmToOci => "wasm-to-oci",
            Self::Plain => "plain",
            Self::Packed => "packed",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maistra => "a Maistra extension image (manifest.yaml)",
            Self::CompatDocker => "a Docker container image with plugin.wasm",
            Self::CompatOci => "an OCI container image with plugin.wasm",
            Self::Solo => "a WebAssemblyHub image",
            Self::Cncf => "a Wasm artifact",
            Self::WasmToOci => "a wasm-to-oci image",
            Self::Plain => "the module itself",
            Self::Packed => "gzip, zstd or tar, or several of them",
        })
    }
}

/// What has to be fetched, and how it is read.
pub(super) enum Shape<'a> {
    /// This layer is the module.
    Layer {
        layout: Layout,
        module: &'a Descriptor,
        /// `runtime-config.json`. Fetched unless it is too large to be one.
        runtime: Option<&'a Descriptor>,
    },
    /// The module is a file in the layers' common file system.
    Container { compat: Layout },
}

/// Layers of an image: as many as Docker stacks.
const MAX_LAYERS: usize = 128;

/// Bytes of all blobs of one image, as they are transferred: they are held in memory until unpacked.
const MAX_BLOBS: u64 = 512 << 20;

const RIGHT: &str = "right would be one layer application/wasm, or the tar layers of a container image with plugin.wasm or \
                     manifest.yaml";

impl Manifest {
    /// The blobs that must be fetched to get the module, in the order in which [`Manifest::extract`] wants them.
    pub fn blobs(&self) -> Result<Vec<&Descriptor>, ImageError> {
        if self.layers.len() > MAX_LAYERS {
            let what = format!("the image has {} layers", self.layers.len());
            return Err(ImageError::TooLarge { what, limit: MAX_LAYERS.to_string() });
        }
        let blobs: Vec<_> = match self.shape()? {
            Shape::Layer { module, runtime, .. } => {
                [module].into_iter().chain(runtime.filter(|blob| blob.size <= RUNTIME_CONFIG_LIMIT)).collect()
            }
            Shape::Container { .. } => self.layers.iter().collect(),
        };
        let size = blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        if size > MAX_BLOBS {
            return Err(ImageError::TooLarge { what: format!("the image has {size} bytes"), limit: bytes(MAX_BLOBS) });
        }
        Ok(blobs)
    }

    /// Whether the module has to be unpacked, which takes memory.
    pub fn is_packed(&self) -> bool {
        matches!(self.shape(), Ok(Shape::Container { .. }))
    }

    pub(super) fn shape(&self) -> Result<Shape<'_>, ImageError> {
        let plain =
            |layout, media_type| Ok(Shape::Layer { layout, module: self.only_layer(media_type)?, runtime: None });
        if self.config.media_type == CNCF_CONFIG {
            return plain(Layout::Cncf, CNCF_LAYER);
        }
        if self.count(SOLO_LAYER) > 0 {
            let (module, runtime) = (self.only_layer(SOLO_LAYER)?, self.runtime_config());
            return Ok(Shape::Layer { layout: Layout::Solo, module, runtime });
        }
        for (media_type, layout) in [(WASM_TO_OCI_LAYER, Layout::WasmToOci), (CNCF_LAYER, Layout::Cncf)] {
            if self.count(media_type) > 0 {
                return plain(layout, media_type);
            }
        }
        if !self.layers.is_empty() && self.layers.iter().all(|layer| is_tar_layer(&layer.media_type)) {
            return Ok(Shape::Container { compat: self.compat() });
        }
        Err(self.unsupported())
    }

    /// wasme writes it twice: as a layer, and as the config.
    fn runtime_config(&self) -> Option<&Descriptor> {
        self.layers.iter().chain([&self.config]).find(|blob| blob.media_type == SOLO_CONFIG)
    }

    fn count(&self, media_type: &str) -> usize {
        self.layers.iter().filter(|layer| layer.media_type == media_type).count()
    }

    fn only_layer(&self, media_type: &str) -> Result<&Descriptor, ImageError> {
        let mut layers = self.layers.iter().filter(|layer| layer.media_type == media_type);
        match (layers.next(), layers.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => {
                let found = format!("the image has {} layers {media_type}", self.count(media_type));
                Err(ImageError::Unsupported { found, right: "right would be one: publish one module per image" })
            }
            (None, _) => Err(self.unsupported()),
        }
    }

    fn compat(&self) -> Layout {
        let is_docker = match self.media_type.as_deref() {
            Some(media_type) => media_type == DOCKER_MANIFEST,
            None => self.config.media_type == DOCKER_CONFIG,
        };
        if is_docker { Layout::CompatDocker } else { Layout::CompatOci }
    }

    fn unsupported(&self) -> ImageError {
        let layers = listed(self.layers.iter().map(|layer| layer.media_type.as_bytes()));
        let count = self.layers.len();
        let config = shown(self.config.media_type.as_bytes());
        let kind = match &self.artifact_type {
            Some(artifact_type) => format!("artifact type {}, config {config}", shown(artifact_type.as_bytes())),
            None => format!("config {config}"),
        };
        ImageError::Unsupported {
            found: format!("no layout that is known: {kind}, {count} layers: {layers}"),
            right: RIGHT,
        }
    }
}
