//! Would an Envoy of a given release take a module? Pure; the rules are those of Envoy's Wasm host, in its order.

use super::contents::{Contents, Import, Item};
use super::{advice, host, shown};
use crate::model::EnvoyVersion;

/// What an Envoy would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// With the reason, which names the symbol at fault.
    Refused(String),
}

const MARKER_PREFIX: &str = "proxy_abi_version_";
/// Envoy gives a module at most 1 GiB.
const MAX_MEMORY_PAGES: u64 = 16_384;
/// More missing symbols than this are counted, not named.
const MAX_NAMED: usize = 5;

/// The ABI that counts: of the markers that Envoy knows, the one exported first.
pub fn abi(contents: &Contents) -> Option<&'static str> {
    let functions = contents.exports.iter().filter(|export| matches!(export.item, Item::Function(_)));
    functions
        .filter_map(|export| export.name.strip_prefix(MARKER_PREFIX))
        .find_map(|version| host::ABIS.into_iter().find(|marker| *marker == version))
}

/// The verdict of one release on a valid core module.
pub fn judge(contents: &Contents, release: EnvoyVersion) -> Verdict {
    let Some(abi) = abi(contents) else {
        return Verdict::Refused(no_abi(contents));
    };
    let mut reasons = contents.faults.clone();
    reasons.extend(missing_imports(contents, abi, release));
    reasons.extend(no_allocator(contents));
    reasons.extend(wrong_callbacks(contents, abi, release));
    reasons.extend(memory_fault(contents));
    if reasons.is_empty() { Verdict::Accepted } else { Verdict::Refused(reasons.join("; ")) }
}

fn no_abi(contents: &Contents) -> String {
    let unknown = contents.exports.iter().find(|export| export.name.starts_with(MARKER_PREFIX));
    match (unknown, advice::origin(contents)) {
        (Some(marker), _) => {
            let marker = shown::name(&marker.name);
            format!("its ABI marker {marker} is not one that Envoy knows (0_1_0, 0_2_0, 0_2_1)")
        }
        (None, Some(origin)) => {
            format!("not a proxy-wasm plugin: no proxy_abi_version_… is exported; this is {origin}")
        }
        (None, None) => "not a proxy-wasm plugin: no proxy_abi_version_… is exported".to_owned(),
    }
}

fn missing_imports(contents: &Contents, abi: &str, release: EnvoyVersion) -> Vec<String> {
    first(contents.imports.iter().filter_map(|import| import_fault(import, abi, release)), "imports")
}

/// The first few; the others are counted, so that a hostile module fills no status.
fn first(mut faults: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let mut named: Vec<_> = faults.by_ref().take(MAX_NAMED).collect();
    let unnamed = faults.count();
    if unnamed > 0 {
        named.push(format!("and {unnamed} more {what}"));
    }
    named
}

fn import_fault(import: &Import, abi: &str, release: EnvoyVersion) -> Option<String> {
    let Import { module, name, item } = import;
    let symbol = || format!("{}.{}", shown::name(module), shown::name(name));
    let signature = match item {
        Item::Function(signature) => signature,
        // Envoy makes these itself, whatever their names.
        Item::Memory { .. } | Item::Table => return None,
        Item::Global | Item::Tag => {
            return Some(format!("imports the {item} {}, which Envoy does not provide", symbol()));
        }
    };
    match host::function(abi, module, name) {
        None => Some(format!("imports {}, which {}", symbol(), advice::absent(module, name, abi))),
        Some(function) if !function.releases.contains(&release) => {
            let since = function.releases.iter().find(|known| **known > release);
            let since = since.map(|known| format!(" ({known} does)")).unwrap_or_default();
            Some(format!("imports {}, which this Envoy does not provide{since}", symbol()))
        }
        Some(function) if function.signature != signature => {
            let host = function.signature;
            Some(format!("imports {} as {}, but Envoy has {host}", symbol(), shown::name(signature)))
        }
        Some(_) => None,
    }
}

fn no_allocator(contents: &Contents) -> Option<String> {
    let has_one = contents.function("malloc").or_else(|| contents.function("proxy_on_memory_allocate")).is_some();
    (!has_one).then(|| "exports neither proxy_on_memory_allocate nor malloc".to_owned())
}

/// Envoy looks its callbacks up by name and refuses a wrong type; others may be called as they like.
fn wrong_callbacks(contents: &Contents, abi: &str, release: EnvoyVersion) -> Vec<String> {
    let fault = |(name, wanted): (&str, &str)| {
        let signature = contents.function(name).filter(|signature| *signature != wanted)?;
        Some(format!("exports {name} as {}, but Envoy calls it as {wanted}", shown::name(signature)))
    };
    let looked_up = host::callbacks(abi, release).filter(|(name, _)| is_looked_up(contents, name));
    first(looked_up.filter_map(fault), "exports")
}

fn is_looked_up(contents: &Contents, name: &str) -> bool {
    match name {
        "main" | "__main_void" => contents.function("_initialize").is_some(),
        "_start" => contents.function("_initialize").is_none(),
        "proxy_on_memory_allocate" => contents.function("malloc").is_none(),
        _ => true,
    }
}

fn memory_fault(contents: &Contents) -> Option<String> {
    if !contents.has_shared_memory() {
        return Some("exports no memory (Envoy would crash on it): export the one named \"memory\"".to_owned());
    }
    let pages = contents.memory_pages;
    (pages > MAX_MEMORY_PAGES).then(|| format!("starts with {} MiB of memory, and Envoy allows 1024 MiB", pages / 16))
}
