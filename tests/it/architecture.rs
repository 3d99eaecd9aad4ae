//! The rooms import downwards only: see the drawing in `src/lib.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the ground up. A room may import those of earlier rows, and itself; neighbours never import one another.
const FLOORS: [&[&str]; 7] = [
    &["model", "protobuf", "disk"],
    &["snapshot"],
    &["sources", "modules", "compile"],
    &["xds"],
    &["rollout"],
    &["plane"],
    &["commands", "config", "telemetry", "main", "lib"],
];

const TOP: usize = FLOORS.len() - 1;

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("room {room} is on no floor"))
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rooms named by `crate::ROOM` in a line of code, braces after `crate::` included.
fn rooms_named(code: &str) -> Vec<String> {
    let code = code.split("//").next().unwrap_or_default();
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(['}', ',']).map(str::trim).map(str::to_owned).collect(),
            None => vec![rest.to_owned()],
        })
        .map(|path| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|room| room.chars().next().is_some_and(char::is_lowercase))
        .collect()
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for file in source_files(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for named in rooms_named(line).into_iter().filter(|named| named != room) {
                *seen.entry(named.clone()).or_default() += 1;
                let is_allowed = floor(&named) < floor(room) || (floor(room) == TOP && floor(&named) == TOP);
                if !is_allowed {
                    upward.push(format!("{}:{}: {room} imports {named}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(seen.len() >= 8, "the reader of imports sees nothing: {seen:?}");
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn every_way_to_name_a_room_is_seen() {
    assert_eq!(rooms_named("use crate::model::{Plugin, Proxy};"), ["model"]);
    assert_eq!(rooms_named("use crate::{plane, telemetry};"), ["plane", "telemetry"]);
    assert_eq!(rooms_named("fn f(x: crate::xds::Hello, y: &crate::compile::Kind)"), ["xds", "compile"]);
    assert_eq!(rooms_named("// crate::plane in a comment"), Vec::<String>::new());
}
