//! All files' good resources made one: who wins where two files declare the same resource.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{Content, Identity};
use super::memory::{FileMemory, Good};
use super::report::about_file;
use super::{Finding, Loaded, Origin};

/// Where a resource was declared.
#[derive(Clone, Copy)]
struct Candidate<'f> {
    file: &'f Path,
    good: &'f Good,
}

/// Merges `files`; `faults` are those of no file.
pub(super) fn merge(files: &BTreeMap<PathBuf, FileMemory>, faults: Vec<Finding>) -> Loaded {
    let mut loaded = Loaded { faults, ..Loaded::default() };
    let mut candidates: BTreeMap<&Identity, Vec<Candidate<'_>>> = BTreeMap::new();
    for (file, memory) in files {
        loaded.faults.extend(memory.faults.iter().cloned());
        loaded.warnings.extend(memory.warnings.iter().cloned());
        if !memory.text.is_empty() {
            loaded.last_good.insert(file.clone(), memory.text.clone());
        }
        for good in &memory.good {
            candidates.entry(&good.identity).or_default().push(Candidate { file, good });
        }
    }
    for (identity, candidates) in candidates {
        // What stands in a file goes before what only once stood in one; then the smaller path, then the first.
        let Some(winner) = candidates.iter().min_by_key(|candidate| candidate.good.is_stale) else { continue };
        insert(&mut loaded, identity, &winner.good.content);
        let origin = Origin { file: winner.file.to_owned(), outline: winner.good.outline.clone() };
        loaded.origins.insert(identity.to_string(), origin);
        let losers = candidates.iter().filter(|candidate| candidate.good.content != winner.good.content);
        let told = losers.filter(|loser| !loser.good.is_stale || winner.good.is_stale);
        loaded.faults.extend(told.map(|loser| overruled(identity, loser, winner)));
    }
    loaded.faults.sort();
    loaded.warnings.sort();
    loaded
}

fn insert(loaded: &mut Loaded, identity: &Identity, content: &Content) {
    match (identity, content) {
        (Identity::Plugin(id), Content::Plugin(plugin)) => {
            loaded.plugins.insert(id.clone(), plugin.clone());
        }
        (Identity::Template(id), Content::Template(template)) => {
            loaded.templates.insert(id.clone(), template.clone());
        }
        (Identity::Secret(namespace, name), Content::Secret(secret)) => {
            loaded.secrets.insert((namespace.clone(), name.clone()), secret.clone());
        }
        _ => {}
    }
}

fn overruled(identity: &Identity, loser: &Candidate<'_>, winner: &Candidate<'_>) -> Finding {
    let plugin = match identity {
        Identity::Plugin(id) => Some(id.clone()),
        _ => None,
    };
    let (here, there) = (loser.file.display(), winner.file.display());
    let place = winner.good.place;
    Finding {
        line: loser.good.place.line,
        column: loser.good.place.column,
        resource: identity.to_string(),
        plugin,
        ..about_file(
            loser.file,
            format!("declared twice with different content: {there}:{} is used, not {here}", place.line),
        )
    }
}
