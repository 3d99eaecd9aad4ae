//! Finds the module in a container image: `plugin.wasm`, or what Maistra's `manifest.yaml` names. Pure.
//!
//! The layers are read twice: once for the names, once for the one file that is wanted; so a large image costs time and
//! not memory.

use std::ops::ControlFlow;

use super::archive::{Tally, walk};
use super::error::{ImageError, listed, shown};
use super::limits::{Budget, CUT, UnpackLimits, bytes};
use super::maistra::{MANIFEST_LIMIT, ManifestDefaults};
use super::packing::open;
use super::path;
use super::runtime_config::{self, RUNTIME_CONFIG_LIMIT, RuntimeConfig};
use super::tree::{Layer, Lost, Place, Tree};
use super::{Consumer, Extracted, Layout};

/// The layers of one image, lowest first.
pub struct Container<'a> {
    layers: Vec<(String, &'a [u8])>,
    limits: UnpackLimits,
    tree: Tree,
}

const PLUGIN: &[u8] = b"plugin.wasm";
const MANIFEST: &[u8] = b"manifest.yaml";
const RUNTIME_CONFIG: &[u8] = b"runtime-config.json";

impl<'a> Container<'a> {
    /// Reads the names in all layers, each given with what messages call it.
    pub fn read(layers: Vec<(String, &'a [u8])>, limits: &UnpackLimits) -> Result<Self, ImageError> {
        let budget = Budget::new(limits);
        let mut tally = Tally::default();
        let mut tree = Tree::default();
        for (number, (what, content)) in layers.iter().enumerate() {
            let mut layer = Layer::default();
            let opened = open(what, content, limits.nesting, &budget)?;
            refuse_bare_module(what, &opened.head)?;
            walk(what, opened.reader, &budget, &mut tally, |entry, _| {
                let failed = |reason: &str| ImageError::Broken { what: what.clone(), reason: reason.to_owned() };
                layer.add(number, entry).map_err(failed)?;
                Ok(ControlFlow::Continue(()))
            })?;
            tree.lay(layer);
        }
        Ok(Self { layers, limits: *limits, tree })
    }

    /// The module, for whoever asks.
    pub fn extract(&self, consumer: Consumer, compat: Layout) -> Result<Extracted, ImageError> {
        let manifest = self.manifest();
        let plugin = match consumer {
            Consumer::Plugin => self.plugin()?,
            Consumer::Extension => None,
        };
        match (plugin, manifest) {
            (Some(place), manifest) => {
                let (defaults, warnings) = match manifest.transpose() {
                    Ok(defaults) => (defaults, Vec::new()),
                    Err(error) => (None, vec![format!("{error}; plugin.wasm is taken without it")]),
                };
                let module = self.content("plugin.wasm", place)?.into();
                // Both name the same file: an extension image that others can read as well.
                let is_named = |defaults: &ManifestDefaults| self.tree.find(defaults.module.as_bytes()) == Ok(place);
                let layout = if defaults.as_ref().is_some_and(is_named) { Layout::Maistra } else { compat };
                let mut extracted = Extracted { module, layout, defaults, runtime: None, warnings };
                if let Some(runtime) = self.runtime_config() {
                    extracted.describe(runtime);
                }
                Ok(extracted)
            }
            (None, Some(manifest)) => {
                let defaults = manifest?;
                let warnings = defaults.warnings.clone();
                let module = self.module_of(&defaults)?;
                Ok(Extracted { module, layout: Layout::Maistra, defaults: Some(defaults), runtime: None, warnings })
            }
            (None, None) => Err(self.nothing(consumer)),
        }
    }

    /// The module of an archive that is no image: `plugin.wasm`, what `manifest.yaml` names, the only `.wasm` file, or the
    /// only file.
    pub fn extract_packed(&self) -> Result<Extracted, ImageError> {
        let has_plugin = self.plugin()?.is_some();
        if has_plugin || self.manifest().is_some() {
            return Ok(Extracted { layout: Layout::Packed, ..self.extract(Consumer::Plugin, Layout::Packed)? });
        }
        let is_wasm = |(path, _): &(&[u8], Place)| path.ends_with(b".wasm");
        let modules: Vec<_> = self.tree.files().filter(is_wasm).collect();
        let files: Vec<_> = self.tree.files().take(2).collect();
        match (&modules[..], &files[..]) {
            ([(path, place)], _) | ([], [(path, place)]) => {
                Ok(Extracted::plain(self.content(&shown(path), *place)?.into(), Layout::Packed))
            }
            ([], _) => Err(self.no_module(format!("{}files seen: {}", self.advice(), self.seen()))),
            _ => Err(self.no_module(format!("more than one module: {}; name the right one plugin.wasm", self.seen()))),
        }
    }

    /// What else the archive may be.
    fn advice(&self) -> &'static str {
        let is_saved_image =
            [b"oci-layout".as_slice(), b"manifest.json"].iter().any(|name| self.tree.find(name).is_ok());
        if is_saved_image {
            "it is a saved container image: push it to a registry (skopeo copy, docker load and push); "
        } else {
            "no .wasm file in it; "
        }
    }

    /// Istio takes it from any folder of the last layer; so do we, and look further down where the last one has none.
    fn plugin(&self) -> Result<Option<Place>, ImageError> {
        let in_root = match self.tree.find(PLUGIN) {
            Ok(place) => Some(place),
            Err(Lost::Absent) => None,
            Err(Lost::Not(reason)) => return Err(self.no_module(format!("plugin.wasm {reason}"))),
        };
        let named = || self.tree.files().filter(|(path, _)| path::base_name(path) == PLUGIN);
        let Some(highest) = named().map(|(_, place)| place.layer).max() else { return Ok(in_root) };
        if in_root.is_some_and(|place| place.layer >= highest) {
            return Ok(in_root);
        }
        let candidates: Vec<(&[u8], Place)> = named().filter(|(_, place)| place.layer == highest).collect();
        match candidates[..] {
            [(_, place)] => Ok(Some(place)),
            _ => {
                let names = listed(candidates.iter().map(|(path, _)| *path));
                Err(self.no_module(format!("more than one plugin.wasm: {names}; put the right one into the root")))
            }
        }
    }

    /// `None` where there is none.
    fn manifest(&self) -> Option<Result<ManifestDefaults, ImageError>> {
        let place = match self.tree.find(MANIFEST) {
            Ok(place) => place,
            Err(Lost::Absent) => return None,
            Err(Lost::Not(reason)) => return Some(Err(ImageError::Manifest { reason })),
        };
        if place.size > MANIFEST_LIMIT {
            let what = format!("manifest.yaml has {} bytes", place.size);
            return Some(Err(ImageError::TooLarge { what, limit: bytes(MANIFEST_LIMIT) }));
        }
        Some(self.content("manifest.yaml", place).and_then(|text| ManifestDefaults::parse(&text)))
    }

    /// `None` where there is none.
    fn runtime_config(&self) -> Option<Result<RuntimeConfig, ImageError>> {
        let place = self.tree.find(RUNTIME_CONFIG).ok()?;
        if place.size > RUNTIME_CONFIG_LIMIT {
            return Some(Err(runtime_config::too_large(place.size)));
        }
        Some(self.content("runtime-config.json", place).and_then(|text| RuntimeConfig::parse(&text)))
    }

    fn module_of(&self, defaults: &ManifestDefaults) -> Result<bytes::Bytes, ImageError> {
        let name = shown(defaults.module.as_bytes());
        match self.tree.find(defaults.module.as_bytes()) {
            Ok(place) => Ok(self.content(&name, place)?.into()),
            Err(Lost::Not(reason)) => Err(self.no_module(format!("{name}, which manifest.yaml names, {reason}"))),
            Err(Lost::Absent) => {
                let seen = self.seen();
                Err(self.no_module(format!("{name}, which manifest.yaml names, is not there; files seen: {seen}")))
            }
        }
    }

    /// The second reading: one file.
    fn content(&self, name: &str, place: Place) -> Result<Vec<u8>, ImageError> {
        if place.size > self.limits.module {
            let what = format!("{name} has {} bytes", place.size);
            return Err(ImageError::TooLarge { what, limit: bytes(self.limits.module) });
        }
        let (what, content) = &self.layers[place.layer];
        let budget = Budget::new(&self.limits);
        let opened = open(what, content, self.limits.nesting, &budget)?;
        // All at once, where growing would take twice as much for a moment; at most the limit, as was checked.
        let mut found = Vec::with_capacity(usize::try_from(place.size).unwrap_or_default());
        walk(what, opened.reader, &budget, &mut Tally::default(), |entry, reader| {
            if entry.number < place.entry {
                return Ok(ControlFlow::Continue(()));
            }
            reader.read_to_end(&mut found).map_err(|error| budget.judge(what, &error))?;
            Ok(ControlFlow::Break(()))
        })?;
        if found.len() as u64 != place.size {
            let reason = format!("{name} {CUT}");
            return Err(ImageError::Broken { what: what.clone(), reason });
        }
        Ok(found)
    }

    fn nothing(&self, consumer: Consumer) -> ImageError {
        let wanted = match consumer {
            Consumer::Plugin => "none holds plugin.wasm, or manifest.yaml in its root",
            Consumer::Extension => "none holds manifest.yaml in its root",
        };
        self.no_module(format!("{wanted}; files seen: {}", self.seen()))
    }

    fn no_module(&self, reason: String) -> ImageError {
        let what = match self.layers.as_slice() {
            [(what, _)] => what.clone(),
            layers => format!("the image's {} layers", layers.len()),
        };
        ImageError::NoModule { what, reason }
    }

    /// A few names; what might be a module comes first.
    fn seen(&self) -> String {
        let is_wasm = |path: &[u8]| path.ends_with(b".wasm") || path.ends_with(b".wat");
        let names = || self.tree.files().map(|(path, _)| path);
        listed(names().filter(|path| is_wasm(path)).chain(names().filter(|path| !is_wasm(path))))
    }
}

/// Tools that push a plain file call it a tar layer unless told otherwise.
fn refuse_bare_module(what: &str, head: &[u8]) -> Result<(), ImageError> {
    if !head.starts_with(b"\0asm") {
        return Ok(());
    }
    let reason = "its media type says tar, and it is a WebAssembly module: push it as application/wasm \
                  (oras push REF plugin.wasm:application/wasm, or wasmplane push)";
    Err(ImageError::Broken { what: what.to_owned(), reason: reason.to_owned() })
}
