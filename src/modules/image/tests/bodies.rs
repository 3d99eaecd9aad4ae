//! What servers and files give.

use super::super::fixtures::{File, Folder, MODULE, entry, gzip, tar, zstd};
use super::super::{Extracted, ImageError, Layout, UnpackLimits, unwrap};

fn open(body: Vec<u8>) -> Result<Extracted, ImageError> {
    unwrap(body.into(), &UnpackLimits::default())
}

fn error(body: Vec<u8>) -> String {
    open(body).unwrap_err().to_string()
}

#[test]
fn a_module_is_found_however_it_is_packed() {
    let archive = tar(&[Folder("out/"), File("out/README", b"x"), File("out/filter.wasm", MODULE)]);
    let bodies = [
        gzip(MODULE),
        zstd(MODULE),
        archive.clone(),
        gzip(&archive),
        zstd(&archive),
        gzip(&zstd(MODULE)),
        tar(&[File("plugin.wasm.gz", &gzip(MODULE))]),
        gzip(&tar(&[File("a.wasm", &zstd(MODULE))])),
        tar(&[File("inner.tar", &tar(&[File("plugin.wasm", MODULE)]))]),
        tar(&[File("a.wasm", b"x"), File("plugin.wasm", MODULE)]),
        // zstd may begin with a frame that is to be skipped, gzip may have several members.
        [b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec(), zstd(MODULE)].concat(),
        [gzip(&MODULE[..3]), gzip(&MODULE[3..])].concat(),
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let extracted = open(body).unwrap();
        assert_eq!((extracted.layout, extracted.module.as_ref()), (Layout::Packed, MODULE), "body {number}");
    }
}

#[test]
fn what_is_not_packed_is_handed_on_as_it_is() {
    for body in [MODULE.to_vec(), b"<html>".to_vec(), Vec::new(), vec![b'a'; 2000], vec![0; 2000]] {
        let bytes = bytes::Bytes::from(body);
        let extracted = unwrap(bytes.clone(), &UnpackLimits::default()).unwrap();
        assert_eq!((extracted.layout, extracted.module.as_ptr()), (Layout::Plain, bytes.as_ptr()));
    }
}

#[test]
fn an_archive_of_before_1988_is_one_all_the_same() {
    let mut archive = entry("old.wasm", b'0', MODULE);
    archive[257..265].fill(0);
    let sum = archive[..148].iter().chain(&archive[156..512]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(open(archive).unwrap().module, MODULE);
}

#[test]
fn a_maistra_archive_gives_its_defaults() {
    let manifest = b"schemaVersion: 1\nphase: PreStats\npriority: 3\nmodule: a/extension.bin\n";
    let body = tar(&[File("manifest.yaml", manifest), File("a/extension.bin", MODULE), File("b.wasm", b"x")]);
    let extracted = open(body).unwrap();
    assert_eq!((extracted.layout, extracted.module.as_ref()), (Layout::Packed, MODULE));
    assert_eq!(extracted.defaults.unwrap().priority, 3);
}

#[test]
fn an_archive_without_one_module_says_what_is_in_it() {
    assert_eq!(
        error(tar(&[File("a.wasm", b"x"), File("b.wasm", b"x")])),
        "the body: more than one module: a.wasm, b.wasm; name the right one plugin.wasm"
    );
    assert_eq!(error(tar(&[File("a", b"x"), File("b", b"x")])), "the body: no .wasm file in it; files seen: a, b");
    let saved = tar(&[File("manifest.json", b"[]"), File("repositories", b"{}"), File("0/layer.tar", b"x")]);
    assert!(error(saved).starts_with("the body: it is a saved container image: push it to a registry"));
}

#[test]
fn wrappings_are_counted() {
    let mut body = MODULE.to_vec();
    for _ in 0..4 {
        body = gzip(&body);
    }
    assert_eq!(open(body.clone()).unwrap().module, MODULE);
    let too_often = "the body: packed more than 4 times over: publish the .wasm file itself";
    assert_eq!(error(gzip(&body)), too_often);
    assert_eq!(error(tar(&[File("a", &body)])), too_often);
    assert_eq!(error(gzip(&gzip(&gzip(&gzip(&tar(&[File("a", MODULE)])))))), too_often);
}
