//! Every assertion of the protocol has a test on a socket that claims it and is run, or a reason why it is not offered.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// How many there are of each kind.
const KINDS: [(&str, u32); 2] = [("S", 35), ("D", 36)];

fn all() -> BTreeSet<String> {
    KINDS.into_iter().flat_map(|(kind, count)| (1..=count).map(move |number| format!("{kind}{number}"))).collect()
}

/// The assertions that a row names.
fn named(row: &str) -> impl Iterator<Item = String> {
    let words = row.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| all().contains(*word)).map(str::to_owned)
}

/// The assertions that a comment says something about: `S7, D13: an ACK has no answer`. One that is mentioned otherwise
/// is not claimed.
fn claimed(comment: &str) -> Vec<String> {
    let (mut claimed, mut listed) = (Vec::new(), Vec::new());
    for word in comment.split_whitespace() {
        let name = word.trim_end_matches([',', ':']);
        if !all().contains(name) || name == word {
            listed.clear();
            continue;
        }
        listed.push(name.to_owned());
        if word.ends_with(':') {
            claimed.append(&mut listed);
        }
    }
    claimed
}

/// What the doc comments of functions claim, in a file: the name of the function, and an assertion.
fn claims(text: &str) -> Vec<(String, String)> {
    let (mut claims, mut comment) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            comment = format!("{comment} {words}");
        } else if !line.starts_with("#[") {
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            let name = name.and_then(|line| line.split('(').next()).unwrap_or_default();
            claims.extend(claimed(&comment).into_iter().map(|assertion| (name.to_owned(), assertion)));
            comment.clear();
        }
    }
    claims
}

/// The tests of this program that are run: `module::name`.
fn tests_that_run() -> BTreeSet<String> {
    let listed = |flags: &[&str]| {
        let listed = Command::new(env::current_exe().unwrap()).args(flags).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    &listed(&["--list"]) - &listed(&["--list", "--ignored"])
}

/// Files below a folder, and the modules that they are.
fn files(folder: &Path, module: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: PathBuf| {
        let name = format!("{module}{}", path.file_stem().unwrap().display());
        match path.is_dir() {
            true => files(&path, &format!("{name}::")),
            false => vec![(name.trim_end_matches("::mod").to_owned(), fs::read_to_string(path).unwrap())],
        }
    };
    entries.flat_map(file).collect()
}

#[test]
fn every_assertion_of_the_protocol_is_tested_on_a_socket_or_not_offered() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let running = tests_that_run();
    let claims = files(&tests, "").into_iter().flat_map(|(module, text)| {
        let of_module = move |(name, assertion)| (format!("{module}::{name}"), assertion);
        claims(&text).into_iter().map(of_module)
    });
    let tested: BTreeSet<_> = claims.filter(|(test, _)| running.contains(test)).map(|(_, claimed)| claimed).collect();
    let table = fs::read_to_string(tests.join("ads/mod.rs")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | "));
    let not_offered: BTreeSet<_> = rows.flat_map(|row| named(row.split('|').next().unwrap_or_default())).collect();
    let both: Vec<_> = tested.intersection(&not_offered).collect();
    assert!(both.is_empty(), "tested and not offered: {both:?}");
    let neither: Vec<_> = all().into_iter().filter(|it| !tested.contains(it) && !not_offered.contains(it)).collect();
    assert!(neither.is_empty(), "neither tested nor said not to be offered: {neither:?}");
}

#[test]
fn a_comment_claims_what_it_begins_a_sentence_with() {
    let text = "/// S1, and\n/// S2, D3: as S4 and S5. D6: but not S7:S8, S99: or D01:\n#[tokio::test]\n#[ignore]\n\
        async fn a() {}\n\n/// S9\nfn b() {} // S10: no\n\n/// S11, S12 too: what\n/// D13:\nfn c() {}\n";
    let expected = [("a", "S2"), ("a", "D3"), ("a", "D6"), ("c", "D13")];
    assert_eq!(claims(text), expected.map(|(test, claimed)| (test.to_owned(), claimed.to_owned())));
}

#[test]
fn tests_that_are_ignored_do_not_run() {
    let running = tests_that_run();
    assert!(running.contains("ads::coverage::tests_that_are_ignored_do_not_run"));
    assert!(running.iter().any(|test| test.starts_with("real_hitless::")));
    assert!(!running.contains("real_hitless::hitless_report"));
}
