//! The merged view of layers: rule by rule, and against a naive model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::Layout;
use super::super::archive::{Entry, Kind};
use super::super::fixtures::{File, Folder, HardLink, Image, Item, Symlink, image, tar};
use super::super::media_types::{OCI_CONFIG, OCI_MANIFEST};
use super::super::tree::{Layer, Tree};
use super::layouts::extract;

const MANIFEST: &[u8] = b"schemaVersion: 1\nphase: PreAuthZ\npriority: 100\nmodule: lib/extension.wasm\n";

fn layered(layers: &[&[Item<'_>]]) -> Image {
    let tars: Vec<_> = layers.iter().map(|items| ("application/vnd.oci.image.layer.v1.tar", tar(items))).collect();
    image(OCI_MANIFEST, OCI_CONFIG, &tars)
}

/// The module, or what is said instead.
fn found(layers: &[&[Item<'_>]]) -> String {
    match extract(&layered(layers)) {
        Ok(extracted) => String::from_utf8(extracted.module.to_vec()).unwrap(),
        Err(error) => error.to_string().split("; files seen").next().unwrap().to_owned(),
    }
}

const NOTHING: &str = "the image's 2 layers: none holds plugin.wasm, or manifest.yaml in its root";
const LOST: &str = "the image's 2 layers: lib/extension.wasm, which manifest.yaml names, is not there";

#[test]
fn upper_layers_replace_and_hide() {
    let plugin: &[Item<'_>] = &[File("plugin.wasm", b"lower"), File("etc/x", b"")];
    let cases: [(&str, &[Item<'_>]); 9] = [
        ("lower", &[File("etc/plugin.txt", b"")]),
        ("upper", &[File("plugin.wasm", b"upper")]),
        (NOTHING, &[File(".wh.plugin.wasm", b"")]),
        (NOTHING, &[File(".wh..wh..opq", b"")]),
        // Whiteouts say nothing of their own layer, wherever in it they stand.
        ("upper", &[File("plugin.wasm", b"upper"), File(".wh.plugin.wasm", b"")]),
        ("upper", &[File("plugin.wasm", b"upper"), File(".wh..wh..opq", b"")]),
        ("lower", &[File("etc/.wh.plugin.wasm", b""), File("etc/.wh..wh..opq", b""), File(".wh..wh.plnk", b"")]),
        ("the image's 2 layers: plugin.wasm is a folder", &[File("plugin.wasm/x", b"")]),
        ("upper", &[File("plugin.wasm", b"first"), File("plugin.wasm", b"upper")]),
    ];
    for (expected, upper) in cases {
        assert_eq!(found(&[plugin, upper]), expected);
    }
}

#[test]
fn a_manifest_names_a_file_of_any_layer() {
    let lower: &[Item<'_>] = &[File("lib/extension.wasm", b"lower"), File("lib/other", b"")];
    let cases: [(&str, &[Item<'_>]); 6] = [
        ("lower", &[]),
        ("upper", &[File("lib/extension.wasm", b"upper")]),
        (LOST, &[File("lib/.wh.extension.wasm", b"")]),
        (LOST, &[File("lib/.wh..wh..opq", b"")]),
        (LOST, &[File(".wh.lib", b"")]),
        (LOST, &[File("lib", b"a file now")]),
    ];
    for (expected, upper) in cases {
        let manifest = tar(&[File("manifest.yaml", MANIFEST)]);
        let upper = [&manifest[..manifest.len() - 1024], &tar(upper)].concat();
        let layers = [tar(lower), upper];
        let layers = layers.map(|layer| ("application/vnd.oci.image.layer.v1.tar", layer));
        let found = match extract(&image(OCI_MANIFEST, OCI_CONFIG, &layers)) {
            Ok(extracted) => {
                assert_eq!(extracted.layout, Layout::Maistra);
                String::from_utf8(extracted.module.to_vec()).unwrap()
            }
            Err(error) => error.to_string().split("; files seen").next().unwrap().to_owned(),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn plugin_wasm_of_the_highest_layer_is_taken_from_any_folder() {
    let only = "the image's only layer";
    let cases: [(&str, &[&[Item<'_>]]); 5] = [
        ("x", &[&[File("opt/plugin.wasm", b"x")]]),
        ("root", &[&[File("opt/plugin.wasm", b"x"), File("plugin.wasm", b"root")]]),
        ("upper", &[&[File("plugin.wasm", b"root")], &[File("opt/plugin.wasm", b"upper")]]),
        ("lower", &[&[File("a/plugin.wasm", b"lower")], &[File("b", b"")]]),
        (
            &format!(
                "{only}: more than one plugin.wasm: a/plugin.wasm, b/plugin.wasm; put the right one into the root"
            ),
            &[&[File("a/plugin.wasm", b"x"), File("b/plugin.wasm", b"y")]],
        ),
    ];
    for (expected, layers) in cases {
        assert_eq!(found(layers), expected);
    }
}

#[test]
fn links_are_followed_inside_the_image() {
    let file = || File("opt/lib/a.wasm", b"linked");
    let cases: [(&str, &[Item<'_>]); 10] = [
        ("linked", &[file(), Symlink("plugin.wasm", "opt/lib/a.wasm")]),
        ("linked", &[file(), Symlink("plugin.wasm", "/opt/lib/a.wasm")]),
        ("linked", &[file(), Symlink("l", "opt/./lib/"), Symlink("plugin.wasm", "l/../lib/a.wasm")]),
        ("linked", &[file(), HardLink("plugin.wasm", "opt/lib/a.wasm")]),
        ("linked", &[file(), HardLink("plugin.wasm", "/opt/lib/a.wasm")]),
        ("leads out of the image", &[Symlink("plugin.wasm", "../../etc/shadow")]),
        ("leads out of the image", &[file(), Symlink("plugin.wasm", "opt/../../opt/lib/a.wasm")]),
        ("is a symbolic link in a circle", &[Symlink("plugin.wasm", "b"), Symlink("b", "./plugin.wasm")]),
        ("is a folder", &[file(), Symlink("plugin.wasm", "opt/lib")]),
        ("is a hard link to a file that is not there", &[HardLink("plugin.wasm", "opt/nothing")]),
    ];
    for (expected, items) in cases {
        let found = found(&[items]);
        assert_eq!(found.strip_prefix("the image's only layer: plugin.wasm ").unwrap_or(&found), expected);
    }
    // A link that leads nowhere is no plugin.
    assert!(found(&[&[Symlink("plugin.wasm", "nowhere")]]).contains("none holds plugin.wasm"));
    // Each link doubles the way that is left to go.
    let names: Vec<(String, String)> =
        (0..60).map(|step| (format!("l{step}"), format!("l{0}/l{0}", step + 1))).collect();
    let mut items: Vec<Item<'_>> = names.iter().map(|(name, target)| Symlink(name, target)).collect();
    items.push(Symlink("plugin.wasm", "l0"));
    assert!(found(&[&items]).ends_with("plugin.wasm is a symbolic link in a circle"));
}

#[test]
fn a_hard_link_reaches_into_lower_layers_unless_its_name_is_taken() {
    let lower: &[Item<'_>] = &[File("a.wasm", b"lower")];
    assert_eq!(found(&[lower, &[HardLink("plugin.wasm", "a.wasm")]]), "lower");
    assert_eq!(found(&[lower, &[HardLink("plugin.wasm", "a.wasm"), File(".wh.a.wasm", b"")]]), "lower");
    assert_eq!(found(&[lower, &[HardLink("plugin.wasm", "a.wasm"), File("plugin.wasm", b"own")]]), "own");
}

#[test]
fn folders_may_come_after_their_content() {
    let items: &[Item<'_>] = &[File("plugin.wasm", b"x"), Folder("./"), Folder("opt"), Folder("plugin.d/")];
    assert_eq!(found(&[items]), "x");
}

/// The same file system, made as slowly and plainly as can be: each path and what it is, gone through one by one.
#[derive(Default)]
struct Model(BTreeMap<String, Option<(usize, usize)>>);

fn is_at_or_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    /// `None` is a folder.
    fn put(&mut self, path: &str, node: Option<(usize, usize)>) {
        self.0.retain(|other, kept| {
            let is_file_above = kept.is_some() && other != path && is_at_or_below(path, other);
            let is_replaced = node.is_some() && other != path && is_at_or_below(other, path);
            !is_file_above && !is_replaced
        });
        self.0.insert(path.to_owned(), node);
    }

    fn lay(&mut self, number: usize, entries: &[(String, bool)]) {
        let mut own = Self::default();
        for (index, (path, is_file)) in entries.iter().enumerate() {
            let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
            if base == ".wh..wh..opq" {
                self.0.retain(|other, _| other == folder || !is_at_or_below(other, folder));
            } else if let Some(hidden) = base.strip_prefix(".wh.") {
                let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
                self.0.retain(|other, _| !is_at_or_below(other, &hidden));
            } else {
                own.put(path, is_file.then_some((number, index)));
            }
        }
        for (path, node) in own.0 {
            self.put(&path, node);
        }
    }

    fn files(&self) -> BTreeMap<String, (usize, usize)> {
        self.0.iter().filter_map(|(path, node)| Some((path.clone(), (*node)?))).collect()
    }
}

fn some_entry() -> impl Strategy<Value = (String, bool)> {
    let name = prop_oneof![4 => "[ab]", 1 => "a0|a!|c"];
    let last = prop_oneof![6 => "[abc]", 2 => "\\.wh\\.[abc]", 1 => Just(".wh..wh..opq".to_owned())];
    (prop::collection::vec(name, 0..3), last, any::<bool>()).prop_map(|(folders, last, is_file)| {
        let path = folders.into_iter().chain([last]).collect::<Vec<_>>().join("/");
        (path, is_file)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_merged_view_is_that_of_a_naive_model(
        layers in prop::collection::vec(prop::collection::vec(some_entry(), 0..8), 1..5),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::default());
        for (number, entries) in layers.iter().enumerate() {
            let mut layer = Layer::default();
            for (index, (path, is_file)) in entries.iter().enumerate() {
                let kind = if *is_file { Kind::File } else { Kind::Directory };
                layer.add(number, Entry { number: index, path: path.clone().into_bytes(), kind, size: 0 }).unwrap();
            }
            tree.lay(layer);
            model.lay(number, entries);
        }
        let files: BTreeMap<String, (usize, usize)> = tree
            .files()
            .map(|(path, place)| (String::from_utf8(path.to_vec()).unwrap(), (place.layer, place.entry)))
            .collect();
        prop_assert_eq!(&files, &model.files());
        for (path, expected) in files {
            let place = tree.find(path.as_bytes()).unwrap();
            prop_assert_eq!((place.layer, place.entry), expected);
        }
    }
}
