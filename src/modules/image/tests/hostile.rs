//! Archives that are meant to hurt: each ends in one clear error, and in little memory.

use std::io::{Read as _, Write as _};

use super::super::fixtures::{File, MODULE, block, end, entry, gzip, tar, zstd};
use super::super::{Layout, UnpackLimits, unwrap};

const SMALL: UnpackLimits = UnpackLimits {
    module: 1 << 20,
    unpacked: 4 << 20,
    entries: 1000,
    name: 100,
    names: 10_000,
    depth: 10,
    nesting: 4,
    window_log: 23,
};

fn open(body: Vec<u8>) -> Result<Layout, String> {
    unwrap(body.into(), &SMALL).map(|extracted| extracted.layout).map_err(|error| error.to_string())
}

fn error(body: Vec<u8>) -> String {
    open(body).unwrap_err()
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn module() -> Vec<u8> {
    entry("plugin.wasm", b'0', MODULE)
}

/// A header with one record before an entry.
fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let digits = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    entry("pax", b'x', format!("{}{rest}", rest.len() + digits).as_bytes())
}

/// Blows up to 64 MiB, or more if it were let.
fn zeros(mut encoder: impl std::io::Write) {
    std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut encoder).unwrap();
}

#[test]
fn compression_bombs_are_cut_off_at_the_limit() {
    let mut gzip_bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zeros(&mut gzip_bomb);
    let gzip_bomb = gzip_bomb.finish().unwrap();
    let mut zstd_bomb = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    zeros(&mut zstd_bomb);
    let zstd_bomb = zstd_bomb.finish().unwrap();
    // Not that it is large: it is not.
    let too_large = "the body unpacks to too much: more than the limit of 1 MiB";
    assert_eq!(error(gzip_bomb.clone()), too_large);
    assert_eq!(error(zstd_bomb.clone()), too_large);
    assert_eq!(error(gzip(&gzip_bomb)), too_large);
    // A thousand small ones after another, as members of one stream.
    assert_eq!(error(gzip(&vec![1; 700 << 10]).repeat(10)), too_large);
    // Behind the end of an archive, where nobody looks.
    let unpacked = "the body unpacks to too much: more than the limit of 4 MiB";
    assert_eq!(error([gzip(&joined(&[module(), end()])), gzip_bomb].concat()), unpacked);
    assert_eq!(error([zstd(&joined(&[module(), end()])), zstd_bomb].concat()), unpacked);
}

#[test]
fn a_zstd_frame_that_asks_for_much_memory_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&[MODULE, &[0; 100_000]].concat()).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(error(frame.clone()), "the body: damaged: Frame requires too much memory for decoding");
    assert!(unwrap(frame.clone().into(), &UnpackLimits::default()).is_ok());
    // Within another frame, whose decoder works at the same time.
    let within = unwrap(zstd(&frame).into(), &UnpackLimits::default()).unwrap_err().to_string();
    assert_eq!(within, "the body: damaged: Frame requires too much memory for decoding");
    assert!(unwrap(zstd(&zstd(&zstd(MODULE))).into(), &UnpackLimits::default()).is_ok());
}

#[test]
fn an_archive_of_a_million_entries_is_refused() {
    let folder = block(b"d", b'5', b"00000000000", b"");
    let million = gzip(&folder.repeat(10_000)).repeat(100);
    let refused = unwrap(million.into(), &UnpackLimits::default()).unwrap_err().to_string();
    assert_eq!(refused, "the body: too many files: more than the limit of 100000 entries");
    // Headers that only describe others count as well.
    assert!(error(entry("g", b'g', b"").repeat(1001)).contains("too many files"));
}

#[test]
fn names_have_limits() {
    let long = "x".repeat(101);
    let name_of = |name: &str| entry("././@LongLink", b'L', format!("{name}\0").as_bytes());
    let too_long = "the body: a name: more than the limit of 100 bytes";
    assert_eq!(
        error(joined(&[name_of(&long[..101]), module(), end()])),
        "the body: a name: more than the limit of 100 bytes"
    );
    assert_eq!(error(joined(&[pax("path", &long), module(), end()])), too_long);
    let huge = entry("././@LongLink", b'L', &[b'x'; 200_000]);
    assert_eq!(error(joined(&[huge, module()])), "the body: a name: more than the limit of 100 bytes");
    let attributes = pax("SCHILY.xattr.a", &"x".repeat(2_000_000));
    assert_eq!(error(joined(&[attributes, module()])), "the body: a PAX header: more than the limit of 1 MiB");
    let many: Vec<u8> = (0..200).flat_map(|number| entry(&format!("{number:090}"), b'0', b"")).collect();
    assert_eq!(error(many), "the body: the names of all entries: more than the limit of 10000 bytes");
    let deep = "a/".repeat(11);
    assert_eq!(error(entry(&deep, b'5', b"")), format!("the body: {deep}: more than 10 folders in one another"));
}

#[test]
fn long_names_are_put_together() {
    let name = format!("{}/plugin.wasm", "a".repeat(80));
    let gnu = entry("././@LongLink", b'L', format!("{name}\0").as_bytes());
    // An attribute may hold anything, line ends and what looks like a record included.
    let odd = pax("SCHILY.xattr.security.x", "a\n9 path=a\n");
    for extra in [gnu, pax("path", &name), odd] {
        assert_eq!(open(joined(&[extra, module(), end()])), Ok(Layout::Packed));
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../plugin.wasm", "a/../../plugin.wasm", "a/.."] {
        let expected = format!("the body: {name}: a name that leads out of its folder");
        assert_eq!(error(joined(&[entry(name, b'0', MODULE), end()])), expected);
    }
    let link = block(b"plugin.wasm", b'1', b"00000000000", b"../../etc/shadow");
    assert!(error(joined(&[link, end()])).ends_with("../../etc/shadow: a name that leads out of its folder"));
    // The root of an image is the image's, so this is no way out.
    assert_eq!(open(joined(&[entry("/plugin.wasm", b'0', MODULE), end()])), Ok(Layout::Packed));
    assert_eq!(
        error(joined(&[entry("./", b'0', MODULE), module(), end()])),
        "the body: ./ has content, and is not a file"
    );
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let huge = block(b"plugin.wasm", b'0', b"77777777777", b"");
    assert_eq!(error(joined(&[huge, end()])), "the body: plugin.wasm (8589934591 bytes): more than the limit of 4 MiB");
    let negative = block(b"plugin.wasm", b'0', &[0xff; 12], b"");
    assert_eq!(error(joined(&[negative, end()])), "the body: damaged: size overflow");
    let nonsense = block(b"plugin.wasm", b'0', b"12x", b"");
    assert!(error(joined(&[nonsense, end()])).starts_with("the body: damaged: "));
    let two = joined(&[pax("size", "9"), module(), end()]);
    assert_eq!(error(two), "the body: plugin.wasm has two different sizes");
    let folder = joined(&[entry("a", b'5', MODULE), module(), end()]);
    assert_eq!(error(folder), "the body: a has content, and is not a file");
    let too_large = entry("plugin.wasm", b'0', &vec![0; (1 << 20) + 1]);
    assert_eq!(error(joined(&[too_large, end()])), "plugin.wasm has 1048577 bytes: more than the limit of 1 MiB");
}

#[test]
fn sparse_files_are_refused() {
    let old = block(b"plugin.wasm", b'S', b"00000000010", b"");
    assert_eq!(
        error(joined(&[old, vec![0; 512], end()])),
        "the body: plugin.wasm is a sparse file: pack it without --sparse"
    );
    let new = joined(&[pax("GNU.sparse.major", "1"), module(), end()]);
    assert_eq!(error(new), "the body: plugin.wasm is a sparse file");
}

#[test]
fn what_two_unpackers_would_read_differently_is_refused() {
    let name = || entry("././@LongLink", b'L', b"a\0");
    assert_eq!(error(joined(&[name(), name(), module()])), "the body: an entry has two names");
    assert_eq!(error(joined(&[module(), name(), end()])), "the body: ends with a header that describes nothing");
    let global = entry("g", b'g', b"10 path=a\n");
    assert_eq!(error(joined(&[global, module()])), "the body: a global header sets path for all entries");
    for records in ["9 path=a", "0 \n", "x path=a\n", "99999999999999999999 a=b\n", "10 path a\n", "12 path=a\n"] {
        let malformed = joined(&[entry("pax", b'x', records.as_bytes()), module()]);
        assert_eq!(error(malformed), "the body: a PAX header is malformed", "{records:?}");
    }
    let extras = pax("a", "b").repeat(17);
    assert_eq!(error(joined(&[extras])), "the body: more than 16 headers describe one entry");
}

#[test]
fn what_is_cut_short_is_noticed() {
    let cut = "the body: ends too early: the upload or download was cut short";
    let whole = joined(&[module(), entry("b", b'0', &[b'x'; 3000]), end()]);
    for packed in [gzip(&whole), zstd(&whole)] {
        for length in [packed.len() / 2, packed.len() - 1] {
            assert_eq!(error(packed[..length].to_vec()), cut, "{length} of {}", packed.len());
        }
    }
    let in_content = &whole[..1024 + 512 + 700];
    assert_eq!(error(in_content.to_vec()), cut);
    assert_eq!(error(whole[..1024 + 100].to_vec()), cut);
    assert_eq!(error(whole[..515].to_vec()), cut);
    let mut changed = gzip(&whole);
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    assert!(error(changed).starts_with("the body: damaged: "));
    let mut changed = whole;
    changed[1024] ^= 1;
    assert_eq!(error(changed), "the body: damaged: archive header checksum mismatch");
}

#[test]
fn duplicate_entries_count_as_the_last_one() {
    let body = tar(&[File("plugin.wasm", b"first"), File("plugin.wasm", MODULE)]);
    assert_eq!(unwrap(body.into(), &SMALL).unwrap().module, MODULE);
}
