//! The corpora, and changes of them, on each run of the tests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::image::fixtures::{File, Folder, HardLink, Symlink, block, descriptor, end, entry, gzip, tar, zstd};
use super::super::image::media_types::{CNCF_CONFIG, CNCF_LAYER, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, OCI_TAR_GZIP};
use super::TARGETS;

/// Changed versions of each file of a corpus.
const CHANGES: usize = 500;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// By name, so that every run is the same.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(corpus(target))
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Numbers that look like chance, and are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// A few changes such as fuzzers make.
    fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let place = self.below(data.len());
            match self.below(7) {
                0 if !data.is_empty() => data[place] ^= 1 << self.below(8),
                1 if !data.is_empty() => data[place] = [0, 0xff, b'/', b'.', b'7', b'"'][self.below(6)],
                2 => data.truncate(place),
                3 => data.insert(place, self.below(256) as u8),
                4 => {
                    let end = (place + self.below(600)).min(data.len());
                    data.drain(place..end);
                }
                5 => {
                    let from = self.below(other.len());
                    let part = &other[from..(from + self.below(600)).min(other.len())];
                    data.splice(place..place, part.iter().copied());
                }
                _ => {
                    let end = (place + 512).min(data.len());
                    data.extend_from_within(place..end);
                }
            }
        }
    }
}

#[test]
fn the_corpora_hold_whatever_is_changed_in_them() {
    for (target, run) in TARGETS {
        let files = files(target);
        assert!(files.len() >= 3, "{target} has a corpus");
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for (_, data) in &files {
            run(data);
            for _ in 0..CHANGES {
                let (_, other) = &files[dice.below(files.len())];
                let mut changed = data.clone();
                dice.change(&mut changed, other);
                run(&changed);
            }
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let settings = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        let program = fs::read_to_string(folder.join("fuzz_targets").join(format!("{target}.rs"))).unwrap();
        assert!(program.contains(&format!("fuzz::{target}(data)")), "{target}");
        assert!(settings.contains(&format!("name = \"{target}\"")), "{target}");
    }
}

/// What fuzzers start from, and where it comes from.
#[test]
#[ignore = "writes fuzz/corpus: cargo test --lib the_corpora_are_written -- --ignored"]
fn the_corpora_are_written() {
    let write = |target: &str, name: &str, content: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), content).unwrap();
    };
    let module = wat::parse_str(MODULE).unwrap();
    let plugin = tar(&[File("plugin.wasm", &module)]);
    let maistra = tar(&[Folder("lib"), File("manifest.yaml", MANIFEST), File("lib/a.wasm", &module)]);
    let long = entry("././@LongLink", b'L', format!("{}/plugin.wasm\0", "a".repeat(120)).as_bytes());
    let pax = entry("pax", b'x', b"20 path=plugin.wasm\n");
    let file = entry("x", b'0', &module);
    let bodies: [(&str, Vec<u8>); 10] = [
        ("module", module.clone()),
        ("gzip", gzip(&module)),
        ("zstd", zstd(&module)),
        ("tar", plugin.clone()),
        ("tar-gzip", gzip(&plugin)),
        ("tar-zstd", zstd(&plugin)),
        ("maistra", maistra.clone()),
        ("gnu-long-name", [long, file.clone(), end()].concat()),
        ("pax", [pax, file, end()].concat()),
        ("sparse", [block(b"plugin.wasm", b'S', b"00000000010", b""), end()].concat()),
    ];
    for (name, body) in bodies {
        write("body", name, &body);
    }
    let whiteouts = tar(&[File("lib/.wh..wh..opq", b""), File(".wh.plugin.wasm", b""), Symlink("b", "lib/a.wasm")]);
    let links = tar(&[File("a", &module), HardLink("plugin.wasm", "a"), Symlink("m", "../m"), Symlink("n", "/n")]);
    let stacks = [("replace", &plugin, &plugin), ("hide", &maistra, &whiteouts), ("link", &whiteouts, &links)];
    for (name, lower, upper) in stacks {
        let length = u16::try_from(lower.len()).unwrap().to_le_bytes();
        write("layers", name, &[&[1], length.as_slice(), lower, upper].concat());
    }
    let image = |config: &str, layer: &str| {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(config, b"{}"),
            "layers": [descriptor(layer, &module)], "annotations": {"a": "b"}})
    };
    let mut child = descriptor(OCI_MANIFEST, b"child");
    child["platform"] = json!({"os": "wasi", "architecture": "wasm"});
    let documents = [
        ("artifact", 0, image(CNCF_CONFIG, CNCF_LAYER)),
        ("container", 0, image(OCI_CONFIG, OCI_TAR_GZIP)),
        ("unknown", 4, image("application/x", "application/y")),
        ("index", 1, json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})),
        ("schema-1", 4, json!({"schemaVersion": 1, "fsLayers": [], "history": []})),
    ];
    for (name, content_type, document) in documents {
        write("manifest", name, &[&[content_type], document.to_string().as_bytes()].concat());
    }
    write("extension_manifest", "whole", MANIFEST);
    write("extension_manifest", "flow", b"{phase: PostStats, priority: -5, module: /a.wasm, other: [1, {b: 2}]}");
    write("extension_manifest", "anchors", b"a: &a {b: 1}\nphase: *a\nc:\n  <<: *a\n  d: |\n    text\n");
    let runtime = json!({"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {"rootIds": ["a", ""]}});
    write("runtime_config", "whole", runtime.to_string().as_bytes());
    write("runtime_config", "snakes", br#"{"abi_versions": ["v0-1"], "config": {"root_ids": ["\u0061"], "b": [{}]}}"#);
    write("runtime_config", "empty", b"{}");
    let auth = json!({"auths": {"ghcr.io/team": {"auth": "dXNlcjpwYXNz"}, "*.example.com:5000": {"username": "u",
        "password": "p"}, "https://index.docker.io/v1/": {"identitytoken": "t"}}});
    write("docker_config", "auths", auth.to_string().as_bytes());
    write("docker_config", "helpers", br#"{"credsStore": "desktop", "credHelpers": {"gcr.io": "gcloud"}}"#);
    write("docker_config", "empty", br#"{"auths": {"[::1]:5000/a": {}, "a/b/../c": {"auth": "Og=="}}}"#);
    write("wasm", "plugin", &module);
    write("wasm", "component", b"\0asm\x0d\0\x01\0");
    write("wasm", "imports", &wat::parse_str(IMPORTS).unwrap());
    let level = |number| format!("(func $f{number} call $f{0} call $f{0})", number + 1);
    let doubling: String = (0..60).map(level).collect();
    write("wasm", "doubling-start", &wat::parse_str(format!("(module {doubling} (func $f60) (start $f0))")).unwrap());
}

const MANIFEST: &[u8] =
    b"schemaVersion: 1\nname: a\nversion: 1.0.0\nphase: PreAuthZ\npriority: 100\nmodule: lib/a.wasm\n";

const MODULE: &str = r#"(module
    (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1)
    (func (export "malloc") (param i32) (result i32) (i32.const 0))
    (func (export "_initialize")) (func (export "proxy_on_tick") (param i32)))"#;

const IMPORTS: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_sync" (func (param i32) (result i32)))
    (import "odd \n module" "\1b[31m" (func (param i64 f32 f64)))
    (table 1 funcref) (global (mut i32) (i32.const 7))
    (func (export "proxy_abi_version_0_2_0")) (memory (export "memory") 1 2)
    (func $start (drop (call $log (i32.const 0) (i32.const 8) (i32.const 2)))) (start $start)
    (data (i32.const 8) "hi"))"#;
