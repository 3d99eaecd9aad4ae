//! What `inspect` says of a module is what real Envoys say, on every release that it knows.

use std::collections::BTreeMap;

use wasmplane::model::EnvoyVersion;
use wasmplane::modules::{Verdict, inspect, releases};

use crate::support::envoy::{CHAIN, FILTER, envoy};
use crate::support::judge::{crashes_on, refused_of};

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;
const OLDER: &str = r#"(func (export "proxy_abi_version_0_1_0"))"#;
const MALLOC: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 0))"#;
const ALLOCATE: &str = r#"(func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const INITIALIZE: &str = r#"(func (export "_initialize"))"#;
const START: &str = r#"(func (export "_start"))"#;
const LOG: &str = r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#;
const SAY: &str = "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 0)))";

/// A module that some Envoy takes, and a part that it may mind.
fn plugin(imports: &str, rest: &str) -> String {
    [imports, MARKER, MALLOC, MEMORY, rest].concat()
}

fn modules() -> Vec<(&'static str, String)> {
    let of = |imports: &str, rest: &str| plugin(imports, rest);
    let bare = |parts: &[&str]| parts.concat();
    let callback = |text: &str| plugin("", text);
    vec![
        ("plain", of("", "")),
        // The marker.
        ("marker-none", bare(&[MALLOC, MEMORY])),
        ("marker-unknown", bare(&[r#"(func (export "proxy_abi_version_9_9_9"))"#, MALLOC, MEMORY])),
        ("marker-global", bare(&[r#"(global (export "proxy_abi_version_0_2_1") i32 (i32.const 1))"#, MALLOC, MEMORY])),
        ("marker-of-any-type", bare(&[r#"(func (export "proxy_abi_version_0_2_1") (param i64))"#, MALLOC, MEMORY])),
        ("marker-after-a-global", of("", r#"(global (export "proxy_abi_version_0_1_0") i32 (i32.const 1))"#)),
        (
            "marker-older-first",
            bare(&[r#"(import "env" "proxy_get_configuration" (func (param i32 i32) (result i32)))"#, OLDER, MARKER, MALLOC, MEMORY]),
        ),
        (
            "marker-older-last",
            bare(&[r#"(import "env" "proxy_get_configuration" (func (param i32 i32) (result i32)))"#, MARKER, OLDER, MALLOC, MEMORY]),
        ),
        // The allocator.
        ("allocator-none", bare(&[MARKER, MEMORY])),
        ("allocator-other", bare(&[MARKER, ALLOCATE, MEMORY])),
        ("allocator-wrong", bare(&[MARKER, r#"(func (export "malloc"))"#, ALLOCATE, MEMORY])),
        ("allocator-other-wrong", of("", r#"(func (export "proxy_on_memory_allocate"))"#)),
        ("allocator-only-other-wrong", bare(&[MARKER, r#"(func (export "proxy_on_memory_allocate"))"#, MEMORY])),
        // Memory and tables.
        ("memory-of-another-name", bare(&[MARKER, MALLOC, r#"(memory (export "mem") 1)"#])),
        ("memory-of-64-bits", bare(&[MARKER, MALLOC, r#"(memory (export "memory") i64 1)"#])),
        ("memory-shared", bare(&[MARKER, MALLOC, r#"(memory (export "memory") 1 1 shared)"#])),
        ("memory-largest", bare(&[MARKER, MALLOC, r#"(memory (export "memory") 16384)"#])),
        ("memory-too-large", bare(&[MARKER, MALLOC, r#"(memory (export "memory") 16385)"#])),
        ("memory-imported", bare(&[r#"(import "any" "name" (memory 1 2))"#, MARKER, MALLOC])),
        ("memory-imported-beside-its-own", of(r#"(import "env" "m" (memory 1))"#, "")),
        ("memory-imported-shared", bare(&[r#"(import "env" "m" (memory 1 2 shared))"#, MARKER, MALLOC])),
        ("memory-imported-64-bits", bare(&[r#"(import "env" "m" (memory i64 1))"#, MARKER, MALLOC])),
        ("memory-imported-twice", bare(&[r#"(import "env" "m" (memory 1)) (import "env" "n" (memory 1))"#, MARKER, MALLOC])),
        ("table-imported", of(r#"(import "env" "t" (table 1 2 externref))"#, "")),
        ("table-imported-64-bits", of(r#"(import "env" "t" (table i64 1 funcref))"#, "")),
        ("table-imported-twice", of(r#"(import "env" "t" (table 1 funcref)) (import "env" "u" (table 1 funcref))"#, "")),
        ("table-too-large", of("", "(table 10000001 funcref)")),
        // Imports.
        ("import-unknown", of(r#"(import "env" "proxy_no_such_call" (func))"#, "")),
        ("import-of-another-abi", of(r#"(import "env" "proxy_continue_request" (func (result i32)))"#, "")),
        ("import-of-another-type", of(r#"(import "env" "proxy_log" (func (param i32)))"#, "")),
        ("import-of-a-reference", of(r#"(import "env" "proxy_log" (func (param externref)))"#, "")),
        ("import-twice", of(&[LOG, LOG].concat().replace("$log", ""), "")),
        ("import-global", of(r#"(import "env" "g" (global i32))"#, "")),
        ("import-of-a-newer-release", of(r#"(import "wasi_snapshot_preview1" "fd_sync" (func (param i32) (result i32)))"#, "")),
        (
            "import-as-wasi-has-it",
            of(r#"(import "wasi_snapshot_preview1" "path_symlink" (func (param i32 i32 i32 i32 i32) (result i32)))"#, ""),
        ),
        ("import-of-wasi-unstable", of(r#"(import "wasi_unstable" "sched_yield" (func (result i32)))"#, "")),
        ("import-of-wasi-preview2", of(r#"(import "wasi:cli/environment@0.2.0" "get-environment" (func (param i32)))"#, "")),
        ("import-of-wasm-bindgen", of(r#"(import "__wbindgen_placeholder__" "__wbindgen_describe" (func (param i32)))"#, "")),
        ("import-abort", of(r#"(import "env" "abort" (func (param i32 i32 i32 i32)))"#, "")),
        // What Envoy calls.
        ("callback-unknown", callback(r#"(func (export "proxy_on_whatever") (param f64))"#)),
        ("callback-wrong", callback(r#"(func (export "proxy_on_tick"))"#)),
        ("callback-global", callback(r#"(global (export "proxy_on_tick") i32 (i32.const 0))"#)),
        ("callback-of-the-older-abi", callback(r#"(func (export "proxy_on_request_headers") (param i32 i32) (result i32) (i32.const 0))"#)),
        (
            "callback-of-the-newer-abi",
            bare(&[
                OLDER,
                MALLOC,
                MEMORY,
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#,
            ]),
        ),
        ("callback-foreign-wrong", callback(r#"(func (export "proxy_on_foreign_function"))"#)),
        ("callback-foreign-older", bare(&[OLDER, MALLOC, MEMORY, r#"(func (export "proxy_on_foreign_function"))"#])),
        ("callback-validate-wrong", callback(r#"(func (export "proxy_validate_configuration"))"#)),
        ("callback-metadata-wrong", callback(r#"(func (export "proxy_on_request_metadata"))"#)),
        // How it starts.
        ("start-both", callback(&[INITIALIZE, r#"(func (export "_start") (param i32))"#].concat())),
        ("start-wrong", callback(r#"(func (export "_start") (param i32))"#)),
        ("start-initialize-wrong", callback(r#"(func (export "_initialize") (param i32))"#)),
        ("start-main-alone", callback(&[START, r#"(func (export "main"))"#].concat())),
        ("start-main-wrong", callback(&[INITIALIZE, r#"(func (export "main"))"#].concat())),
        ("start-main-void", callback(&[INITIALIZE, r#"(func (export "__main_void") (result i32) (i32.const 0))"#].concat())),
        ("start-main-void-wrong", callback(&[INITIALIZE, r#"(func (export "__main_void"))"#].concat())),
        ("start-section", callback("(func $s) (start $s)")),
        ("start-section-traps", callback("(func $s unreachable) (start $s)")),
        (
            "start-section-calls-harmless",
            of(
                r#"(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
                   (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
                   (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))"#,
                "(func $s (drop (call $yield)) (drop (call $equal (i32.const 0) (i32.const 0))) (call $grown (i32.const 0)))
                 (start $s)",
            ),
        ),
        ("start-section-calls-nothing-after-all", of(LOG, &format!("(func $s (if (i32.const 0) (then {SAY}))) (start $s)"))),
        ("start-data-to-the-end", callback(r#"(data (i32.const 65535) "x") (data (i32.const 65536) "")"#)),
        ("start-data-beyond", callback(r#"(data (i32.const 65536) "x")"#)),
        ("start-data-none-beyond", callback(r#"(data (i32.const 65537) "")"#)),
        ("start-data-beyond-imported", bare(&[r#"(import "env" "m" (memory 1))"#, MARKER, MALLOC, r#"(data (i32.const 65536) "x")"#])),
        ("start-elements-beyond", callback("(table 1 funcref) (func $f) (elem (i32.const 1) $f)")),
        // Sections beside the code.
        ("section-name-not-text", callback(r#"(@custom "name" "\01\05\01\00\02\ff\fe")"#)),
        ("section-name-of-locals", callback(r#"(@custom "name" "\02\02\ff\ff")"#)),
        ("section-name-cut", callback(r#"(@custom "name" "\01\05\01\00\02\ff")"#)),
        ("section-name-count", callback(r#"(@custom "name" "\01\03\02\00\00")"#)),
        ("section-name-long", callback(r#"(@custom "name" "\02\05\ff\ff")"#)),
        ("section-any", callback(r#"(@custom "producers" "\ff") (@custom "dylink.0" "")"#)),
        // What V8 compiles.
        ("code-simd", callback("(func (result v128) (v128.const i32x4 0 0 0 0))")),
        ("code-relaxed-simd", callback("(func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))")),
        ("code-tail-call", callback("(func $f return_call $f)")),
        ("code-exceptions", callback("(tag $e) (func (block (try_table (catch_all 0))))")),
        ("code-legacy-exceptions", callback("(func try catch_all end)")),
        ("code-gc", callback("(type $s (struct (field i32))) (func (result (ref $s)) (struct.new $s (i32.const 1)))")),
        ("code-atomics", callback("(func (drop (i32.atomic.load (i32.const 0))))")),
        ("code-two-memories", callback("(memory 1) (func (drop (i32.load 1 (i32.const 0))))")),
        ("code-wide-arithmetic", callback(
            "(func (param i64 i64 i64 i64) (result i64 i64)
               (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
        )),
        ("code-page-sizes", callback("(memory 1 (pagesize 1))")),
        ("code-stack-switching", callback("(type $f (func)) (type $c (cont $f)) (func (param (ref $c)))")),
        ("export-table", callback(r#"(table (export "t") i64 1 externref)"#)),
        ("export-several-results", callback(r#"(func (export "f") (result i32 f64) (i32.const 0) (f64.const 0))"#)),
    ]
}

/// What is no module at all.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let whole = assemble(&plugin("", INITIALIZE));
    vec![
        ("file-component", wat::parse_str("(component)").unwrap()),
        ("file-cut", whole[..whole.len() - 1].to_vec()),
        ("file-cut-to-its-exports", whole[..whole.len() - 30].to_vec()),
        ("file-html", b"<!doctype html><title>404</title>".to_vec()),
        ("file-version-2", b"\0asm\x02\0\0\0".to_vec()),
        ("file-trailing", [&whole[..], b"\n"].concat()),
    ]
}

fn assemble(parts: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {parts})")).unwrap_or_else(|error| panic!("{parts}: {error}"))
}

fn refusal(bytes: &[u8], release: EnvoyVersion) -> Option<String> {
    let report = inspect(bytes);
    let (_, verdict) = report.verdicts.into_iter().find(|(judged, _)| *judged == release).unwrap();
    match verdict {
        Verdict::Accepted => None,
        Verdict::Refused(reason) => Some(reason),
    }
}

#[tokio::test]
async fn each_release_takes_and_refuses_what_inspect_says() {
    let texts = modules().into_iter().map(|(name, text)| (name.to_owned(), assemble(&text)));
    let modules: BTreeMap<_, _> =
        texts.chain(files().into_iter().map(|(name, file)| (name.to_owned(), file))).collect();
    for release in releases() {
        let Some(setup) = envoy(&release.to_string()).await else { continue };
        let by_envoy = refused_of(setup, &modules).await;
        let ours = modules.iter().filter_map(|(name, bytes)| Some((name.clone(), refusal(bytes, *release)?)));
        let ours: BTreeMap<_, _> = ours.collect();
        let too_strict: Vec<_> = ours.iter().filter(|(name, _)| !by_envoy.contains(*name)).collect();
        let too_lax: Vec<_> = by_envoy.iter().filter(|name| !ours.contains_key(*name)).collect();
        assert!(
            too_strict.is_empty() && too_lax.is_empty(),
            "{release}: refused by us alone {too_strict:?}, by it alone {too_lax:?}"
        );
        assert!(by_envoy.len() > 30 && modules.len() - by_envoy.len() > 30, "{release}: {by_envoy:?}");
    }
}

#[tokio::test]
async fn what_inspect_says_envoy_would_crash_on_crashes_it() {
    let initialize = format!(r#"(func (export "_initialize") {SAY})"#);
    let modules = [
        [LOG, MARKER, MALLOC, &initialize].concat(),
        [LOG, MARKER, MALLOC, "(memory 1)", &initialize].concat(),
        plugin(LOG, &format!("(func $s {SAY}) (start $s)")),
        plugin(r#"(import "env" "proxy_done" (func $done (result i32)))"#, "(func $s (drop (call $done))) (start $s)"),
        plugin("", r#"(func (export "f") (param v128))"#),
        plugin("", r#"(func (export "f") (param anyref))"#),
        plugin("", r#"(global (export "g") v128 (v128.const i32x4 0 0 0 0))"#),
        plugin("", r#"(table (export "t") 1 i31ref)"#),
        plugin("", r#"(tag (export "t"))"#),
        plugin(r#"(import "env" "t" (table 1 anyref))"#, ""),
    ];
    for version in [CHAIN, FILTER] {
        let Some(setup) = envoy(version).await else { continue };
        let release = releases().iter().find(|release| release.to_string() == version).unwrap();
        for text in &modules {
            let module = assemble(text);
            let reason = refusal(&module, *release).unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(reason.contains("crash"), "{reason}");
            assert!(crashes_on(setup.clone(), &module).await, "{version} does not crash on {text}");
        }
    }
}

/// A row of the table: an import as it stands in a module, and whether the release has it.
fn table(release: EnvoyVersion) -> Vec<(&'static str, String, bool)> {
    let text = include_str!("../../src/modules/inspect/host-functions.tsv");
    let mut lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let column = lines.next().unwrap().iter().position(|cell| *cell == release.to_string()).unwrap();
    let import = |cells: Vec<&'static str>| {
        // What no release has has no type.
        let (parameters, results) = cells[3].split_once(" -> ").unwrap_or(("void", "void"));
        let list = |word: &str, types: &str| if types == "void" { String::new() } else { format!("({word} {types})") };
        let function = [list("param", parameters), list("result", results)].concat();
        (cells[0], format!(r#"(import "{}" "{}" (func {function}))"#, cells[1], cells[2]), cells[column] == "yes")
    };
    lines.map(import).collect()
}

#[tokio::test]
async fn the_table_of_host_functions_is_what_each_release_provides() {
    for release in releases() {
        let Some(setup) = envoy(&release.to_string()).await else { continue };
        let rows = table(*release);
        let module = |abi: &str, imports: &str| {
            assemble(&[imports, &format!(r#"(func (export "proxy_abi_version_{abi}"))"#), MALLOC, MEMORY].concat())
        };
        let mut modules = BTreeMap::new();
        for abi in ["0_1_0", "0_2_0", "0_2_1"] {
            let of_abi =
                rows.iter().filter(|(row, import, is_there)| *is_there && (*row == abi || import.contains("wasi_")));
            let all: String = of_abi.map(|(_, import, _)| import.as_str()).collect();
            modules.insert(format!("all-{abi}"), module(abi, &all));
        }
        let absent = rows.iter().filter(|(_, _, is_there)| !is_there);
        let absent =
            absent.enumerate().map(|(number, (abi, import, _))| (format!("absent-{number}"), module(abi, import)));
        modules.extend(absent);
        assert!(modules.len() > 20, "{}", modules.len());
        let refused = refused_of(setup, &modules).await;
        let expected = modules.keys().filter(|name| name.starts_with("absent")).cloned().collect();
        assert_eq!(refused, expected, "{release}");
    }
}
