//! Images and archives: from what a registry or server sends to the module in it.
//!
//! Comes in: manifests, blobs, bodies. Goes out: the module, how it was packed, and what the image says of it. Pure: no
//! IO, no async, no clock; nothing is ever written to disk. Layouts are told apart by media types and content, never by
//! trial and error, and everything from outside has a limit: over it is refused, never cut.

mod archive;
mod body;
mod compose;
mod container;
mod document;
mod error;
#[cfg(test)]
pub mod fixtures;
mod layout;
mod limits;
mod maistra;
pub mod media_types;
mod packing;
mod path;
mod platform;
mod runtime_config;
mod tree;

use bytes::Bytes;

pub use body::unwrap;
pub use compose::{Composed, Recipe, compose};
pub use document::{DOCUMENT_LIMIT, Descriptor, Document, Index, Manifest, Platform, parse};
pub use error::ImageError;
pub use layout::Layout;
pub use limits::UnpackLimits;
pub use maistra::ManifestDefaults;
pub use runtime_config::RuntimeConfig;

use container::Container;
use layout::Shape;
use limits::bytes;

/// A module, out of its packaging. Nobody has looked yet whether it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    pub module: Bytes,
    pub layout: Layout,
    /// What `manifest.yaml` says, where the image has a valid one.
    pub defaults: Option<ManifestDefaults>,
    /// What `runtime-config.json` says, where the image has one.
    pub runtime: Option<RuntimeConfig>,
    /// What is odd about the packaging, and harmless.
    pub warnings: Vec<String>,
}

impl Extracted {
    fn plain(module: Bytes, layout: Layout) -> Self {
        Self { module, layout, defaults: None, runtime: None, warnings: Vec::new() }
    }

    /// The root id of plugins that name none. Only WebAssemblyHub's own tool ever used it: who reads a container image
    /// passes it over, and so do we.
    pub fn root_id(&self) -> Option<&str> {
        self.runtime.as_ref().filter(|_| self.layout == Layout::Solo).and_then(RuntimeConfig::root_id)
    }

    fn describe(&mut self, runtime: Result<RuntimeConfig, ImageError>) {
        match runtime {
            Ok(runtime) => self.runtime = Some(runtime),
            Err(error) => self.warnings.push(format!("{error}; the module is taken without it")),
        }
    }
}

/// For whom a container image is read, as one image may hold a module for each.
// TODO: ends when ServiceMeshExtension is a kind of plugin: modules are then asked for as `Extension`, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consumer {
    /// WasmPlugin and its like: `plugin.wasm`; an image without one is read as Maistra's.
    #[default]
    Plugin,
    /// ServiceMeshExtension: only what `manifest.yaml` names.
    Extension,
}

impl Manifest {
    /// Takes exactly the blobs of [`Manifest::blobs`], whose digests have been checked. Works for a while: call it on a
    /// thread for blocking work.
    pub fn extract(&self, blobs: Vec<Bytes>, limits: &UnpackLimits) -> Result<Extracted, ImageError> {
        self.extract_for(Consumer::default(), blobs, limits)
    }

    /// As [`Manifest::extract`], for one kind of resource.
    pub fn extract_for(
        &self,
        consumer: Consumer,
        blobs: Vec<Bytes>,
        limits: &UnpackLimits,
    ) -> Result<Extracted, ImageError> {
        let wanted = self.blobs()?;
        assert_eq!(blobs.len(), wanted.len(), "the caller fetches the blobs that the manifest asks for");
        let shape = self.shape()?;
        for (number, (blob, descriptor)) in blobs.iter().zip(&wanted).enumerate() {
            let (actual, expected) = (blob.len() as u64, descriptor.size);
            if actual != expected {
                let what = match (&shape, number) {
                    (Shape::Layer { runtime: Some(_), .. }, 0) => "the module's layer".to_owned(),
                    (Shape::Layer { .. }, 1) => "runtime-config.json".to_owned(),
                    _ => name_of(number, wanted.len()),
                };
                return Err(ImageError::WrongSize { what, expected, actual });
            }
        }
        match shape {
            Shape::Layer { layout, runtime, .. } => {
                let mut blobs = blobs.into_iter();
                let module = blobs.next().expect("one layer was asked for");
                if module.len() as u64 > limits.module {
                    let what = format!("the module has {} bytes", module.len());
                    return Err(ImageError::TooLarge { what, limit: bytes(limits.module) });
                }
                let mut extracted = Extracted::plain(module, layout);
                if let Some(runtime) = runtime {
                    let read = blobs.next().map(|text| RuntimeConfig::parse(&text));
                    extracted.describe(read.unwrap_or_else(|| Err(runtime_config::too_large(runtime.size))));
                }
                Ok(extracted)
            }
            Shape::Container { compat } => container_of(&blobs, limits)?.extract(consumer, compat),
        }
    }
}

fn container_of<'a>(layers: &'a [Bytes], limits: &UnpackLimits) -> Result<Container<'a>, ImageError> {
    let names = (0..layers.len()).map(|number| name_of(number, layers.len()));
    Container::read(names.zip(layers.iter().map(Bytes::as_ref)).collect(), limits)
}

/// As if an image had these layers and no manifest.
#[cfg(any(test, feature = "fuzzing"))]
pub fn extract_layers(consumer: Consumer, layers: &[Bytes], limits: &UnpackLimits) -> Result<Extracted, ImageError> {
    container_of(layers, limits)?.extract(consumer, Layout::CompatOci)
}

/// As messages call a layer.
fn name_of(number: usize, count: usize) -> String {
    match count {
        1 => "the image's only layer".to_owned(),
        _ => format!("layer {} of {count}", number + 1),
    }
}

#[cfg(test)]
mod tests;
