//! The texts and the comments name files that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders whose files are named by their way from the root of the repository.
const FOLDERS: [&str; 8] = ["src/", "docs/", "tests/", "examples/", "fuzz/", "proto/", "envoy-bootstrap/", "benches/"];

/// Everything that is part of the repository, where there is git to say so.
fn committed(root: &Path) -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").arg("-C").arg(root).args(arguments).output();
    String::from_utf8(listed.map(|output| output.stdout).unwrap_or_default())
        .unwrap()
        .lines()
        .map(|line| root.join(line))
        .filter(|path| path.exists())
        .collect()
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

/// Words that begin with one of the folders. A word with a placeholder names no one file.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-/*".contains(c);
    let words = text.split(move |c| !is_part(c)).map(|word| word.trim_end_matches(['.', '-', '/']));
    let is_path = |word: &&str| FOLDERS.iter().any(|folder| word.starts_with(folder) && word.len() > folder.len());
    words.filter(is_path).filter(|word| !word.contains('*') && !word.contains("NAME"))
}

/// Where links of Markdown lead, but for those out of the repository and within the page.
fn linked(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains(':') && !target.starts_with('#')).map(|it| it.split('#').next().unwrap())
}

#[test]
fn every_file_that_a_text_or_a_comment_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = BTreeSet::new();
    let mut seen = 0;
    for file in committed(root) {
        let (is_text, is_code) = (has_extension(&file, "md"), has_extension(&file, "rs"));
        if !is_text && !is_code {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let line = if is_text { line } else { line.split_once("//").map_or("", |(_, comment)| comment) };
            let links = linked(line).filter(|_| is_text).map(|target| file.parent().unwrap().join(target));
            for path in named(line).map(|name| root.join(name)).chain(links) {
                seen += 1;
                if !path.exists() {
                    missing.insert(format!("{}:{}: {}", file.display(), number + 1, path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    // Without git there is nothing to look through.
    assert!(seen > 50 || !root.join(".git").exists(), "{seen}");
}
