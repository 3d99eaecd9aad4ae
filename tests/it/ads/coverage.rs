//! Every assertion of the protocol has a test on a socket that names it, or a reason why it is not offered.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How many there are of each kind.
const KINDS: [(&str, u32); 2] = [("S", 35), ("D", 36)];

fn all() -> BTreeSet<String> {
    KINDS.into_iter().flat_map(|(kind, count)| (1..=count).map(move |number| format!("{kind}{number}"))).collect()
}

/// The assertions that a line names.
fn named(line: &str) -> impl Iterator<Item = String> {
    let words = line.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| all().contains(*word)).map(str::to_owned)
}

/// Those that the doc comments of tests name, in a file.
fn tested(text: &str) -> BTreeSet<String> {
    let (mut tested, mut comment) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            comment.extend(named(words));
        } else if line.starts_with("#[tokio::test") || line.starts_with("#[test]") {
            tested.extend(comment.drain(..));
        } else {
            comment.clear();
        }
    }
    tested
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![fs::read_to_string(path).unwrap()] })
        .collect()
}

#[test]
fn every_assertion_of_the_protocol_is_tested_on_a_socket_or_not_offered() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let tested: BTreeSet<_> = files(&tests).iter().flat_map(|text| tested(text)).collect();
    let table = fs::read_to_string(tests.join("ads/mod.rs")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | "));
    let not_offered: BTreeSet<_> = rows.flat_map(|row| named(row.split('|').next().unwrap_or_default())).collect();
    let both: Vec<_> = tested.intersection(&not_offered).collect();
    assert!(both.is_empty(), "tested and not offered: {both:?}");
    let neither: Vec<_> = all().into_iter().filter(|it| !tested.contains(it) && !not_offered.contains(it)).collect();
    assert!(neither.is_empty(), "neither tested nor said not to be offered: {neither:?}");
}

#[test]
fn only_the_comments_of_tests_count() {
    let text = "/// S1, and\n/// S2.\n#[tokio::test]\nasync fn a() {}\n\n/// S3\nfn b() {} // S4\n\n/// S99, D01, XS5\n#[test]\n";
    assert_eq!(tested(text), ["S1", "S2"].map(str::to_owned).into());
}
