use super::*;

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;
const ALLOCATOR: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 0))"#;
const MEMORY: &str = r#"(memory (export "memory") 1)"#;
const START: &str = r#"(func (export "_initialize")) (func (export "proxy_on_tick") (param i32))"#;

fn module(parts: &[&str]) -> Vec<u8> {
    wat::parse_str(format!("(module {})", parts.concat())).unwrap()
}

/// The one reason that all releases give; empty if all accept.
fn verdict(bytes: &[u8]) -> String {
    let report = inspect(bytes);
    let mut reasons: Vec<_> = report.verdicts.iter().map(|(_, verdict)| reason(verdict).unwrap_or_default()).collect();
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "the releases differ: {reasons:?}");
    reasons[0].to_owned()
}

#[test]
fn a_plain_plugin_is_accepted_by_every_release_without_warnings() {
    let import = r#"(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))"#;
    let bytes = module(&[import, MARKER, ALLOCATOR, MEMORY, START]);
    let report = inspect(&bytes);
    assert_eq!((report.format, report.abi, report.size), (Format::CoreModule, Some("0_2_1"), bytes.len()));
    assert_eq!(report.digest, Digest::of(&bytes));
    assert_eq!((report.refusals(), report.refusal_by_all()), (vec![], None));
    assert_eq!(report.warnings, [""; 0]);
}

#[test]
fn what_envoy_takes_is_not_refused() {
    let allocate = r#"(func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))"#;
    let cases: [&[&str]; 9] = [
        &[MARKER, allocate, MEMORY],
        &[MARKER, ALLOCATOR, r#"(memory (export "other") 1)"#],
        &[r#"(import "env" "memory" (memory 1))"#, MARKER, ALLOCATOR],
        &[r#"(import "env" "table" (table 1 funcref))"#, MARKER, ALLOCATOR, MEMORY],
        &[r#"(import "env" "pthread_equal" (func (param i32 i32) (result i32)))"#, MARKER, ALLOCATOR, MEMORY],
        &[MARKER, ALLOCATOR, r#"(memory (export "memory") 16384)"#],
        &[MARKER, ALLOCATOR, MEMORY, r#"(func (export "proxy_on_whatever"))"#],
        &[MARKER, ALLOCATOR, MEMORY, START, r#"(func (export "_start") (param i32))"#],
        &[MARKER, ALLOCATOR, MEMORY, "(type $s (struct (field i32))) (func $f return_call $f)"],
    ];
    for parts in cases {
        assert_eq!(verdict(&module(parts)), "", "{parts:?}");
    }
}

#[test]
fn every_refusal_names_what_is_wrong() {
    let other = "not a proxy-wasm plugin: no proxy_abi_version_… is exported";
    let cases: [(&[&str], &str); 12] = [
        (&[ALLOCATOR, MEMORY], other),
        (
            &[r#"(global (export "proxy_abi_version_0_2_1") i32 (i32.const 1))"#, ALLOCATOR, MEMORY],
            "its ABI marker proxy_abi_version_0_2_1 is not one that Envoy knows (0_1_0, 0_2_0, 0_2_1)",
        ),
        (
            &[r#"(func (export "proxy_abi_version_9_9_9"))"#, ALLOCATOR, MEMORY],
            "its ABI marker proxy_abi_version_9_9_9 is not one that Envoy knows (0_1_0, 0_2_0, 0_2_1)",
        ),
        (&[MARKER, MEMORY], "exports neither proxy_on_memory_allocate nor malloc"),
        (&[MARKER, ALLOCATOR], "exports no memory (Envoy would crash on it): export the one named \"memory\""),
        (
            &[MARKER, ALLOCATOR, "(memory 1)"],
            "exports no memory (Envoy would crash on it): export the one named \"memory\"",
        ),
        (
            &[MARKER, ALLOCATOR, r#"(memory (export "memory") 16400)"#],
            "starts with 1025 MiB of memory, and Envoy allows 1024 MiB",
        ),
        (
            &[r#"(import "env" "proxy_no_such_call" (func))"#, MARKER, ALLOCATOR, MEMORY],
            "imports env.proxy_no_such_call, which Envoy does not provide",
        ),
        (
            &[
                r#"(import "env" "proxy_get_configuration" (func (param i32 i32) (result i32)))"#,
                MARKER,
                ALLOCATOR,
                MEMORY,
            ],
            "imports env.proxy_get_configuration, which Envoy provides to modules of ABI 0.1.0 only, and this is 0.2.1",
        ),
        (
            &[r#"(import "env" "proxy_log" (func (param i32)))"#, MARKER, ALLOCATOR, MEMORY],
            "imports env.proxy_log as i32 -> void, but Envoy has i32 i32 i32 -> i32",
        ),
        (
            &[r#"(import "env" "g" (global i32))"#, MARKER, ALLOCATOR, MEMORY],
            "imports the global env.g, which Envoy does not provide",
        ),
        (
            &[MARKER, ALLOCATOR, MEMORY, r#"(func (export "proxy_on_tick"))"#],
            "exports proxy_on_tick as void -> void, but Envoy calls it as i32 -> void",
        ),
    ];
    for (parts, expected) in cases {
        assert_eq!(verdict(&module(parts)), expected);
    }
}

#[test]
fn what_keeps_a_module_from_starting_or_would_crash_envoy_is_refused() {
    const LOG: &str = r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#;
    let memories = r#"imports memories or tables that Envoy does not make"#;
    let unsafe_types = "types that Envoy would crash on (only numbers, funcref and externref are safe to import or \
                        export): export f";
    let cases: [(&[&str], &str); 13] = [
        (&[r#"(func (export "f") (param v128))"#], unsafe_types),
        (&[r#"(global (export "f") anyref (ref.null any))"#], unsafe_types),
        (&[r#"(table (export "f") 1 i31ref)"#], unsafe_types),
        (&[r#"(tag (export "f"))"#], unsafe_types),
        (&["(table 6000000 funcref) (table 6000000 funcref)"], "its tables begin with 12000000 entries"),
        (
            &[r#"(data (i32.const 65536) "x")"#],
            "cannot start: a data segment ends at 65537, and there is room for 65536",
        ),
        (&[r#"(data (i32.const -1) "x")"#], "cannot start: a data segment ends at 4294967296"),
        (&["(table 1 funcref) (func $f) (elem (i32.const 1) $f)"], "cannot start: a segment of its table ends at 2"),
        (&["(func $s unreachable) (start $s)"], "cannot start: its start section traps"),
        (&[r#"(@custom "name" "\01\05\01\00\02\ff")"#], "its name section is damaged, and Envoy reads it: "),
        (&[r#"(import "a" "m" (memory 1 1 shared))"#], memories),
        (&[r#"(import "a" "t" (table 1 funcref)) (import "a" "u" (table 1 funcref))"#], memories),
        (
            &[LOG, "(func $s (drop (call $log (i32.const 2) (i32.const 0) (i32.const 0)))) (start $s)"],
            "its start section calls env.proxy_log, on which Envoy would crash: run that code in _initialize",
        ),
    ];
    for (parts, expected) in cases {
        // Imports go first.
        let text = verdict(&module(&[parts, &[MARKER, ALLOCATOR, MEMORY]].concat()));
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn a_hostile_module_fills_no_status_and_clears_no_screen() {
    let long = "x".repeat(5_000);
    let imports: String = (0..100).map(|n| format!(r#"(import "{long}" "\1b[2J{n}" (func))"#)).collect();
    let exports: String = (0..100).map(|n| format!(r#"(func (export "{n}{long}") (param v128))"#)).collect();
    let parts: [&[&str]; 4] = [
        &[&imports, &exports, MARKER, ALLOCATOR, MEMORY],
        &[&format!(r#"(func (export "proxy_abi_version_{long}"))"#)],
        &[&format!(r#"(@custom "{long}" "") (func (export "{long}"))"#)],
        &[MARKER, ALLOCATOR, MEMORY, &format!(r#"(func (export "proxy_on_tick") (param {}))"#, "i64 ".repeat(999))],
    ];
    for parts in parts {
        let text = verdict(&module(parts));
        assert!(text.len() < 2_000 && !text.contains(char::is_control), "{} bytes: {text:.3000}", text.len());
    }
}

#[test]
fn a_function_that_only_newer_releases_look_up_is_judged_per_release() {
    let report = inspect(&module(&[
        MARKER,
        ALLOCATOR,
        MEMORY,
        r#"(func (export "_initialize")) (func (export "__main_void"))"#,
    ]));
    let reason = "exports __main_void as void -> void, but Envoy calls it as void -> i32";
    let refusing = [EnvoyVersion::new(1, 39, 3), EnvoyVersion::new(1, 40, 0)];
    assert_eq!(report.refusals(), refusing.map(|release| (release, reason.to_owned())));
}

#[test]
fn who_made_a_module_and_its_name_are_read() {
    let named = r#"(module $mine (@producers (language "Rust" "2024") (processed-by "rustc" "1.90")))"#;
    let contents = inspect(&wat::parse_str(named).unwrap()).contents;
    let producers: Vec<_> = contents.producers.iter().map(|by| [&*by.field, &*by.name, &*by.version]).collect();
    assert_eq!(contents.name, "mine");
    assert_eq!(producers, [["language", "Rust", "2024"], ["processed-by", "rustc", "1.90"]]);
}

#[test]
fn several_faults_are_told_together_and_many_are_counted() {
    let imports: String = (0..8).map(|n| format!(r#"(import "env" "x{n}" (func))"#)).collect();
    let text = verdict(&module(&[&imports, MARKER, ALLOCATOR]));
    assert!(text.contains("imports env.x4") && !text.contains("env.x5"), "{text}");
    assert!(text.contains("and 3 more imports; exports no memory"), "{text}");
}

#[test]
fn a_module_that_only_newer_releases_can_link_is_refused_by_the_older_ones() {
    let import = r#"(import "wasi_snapshot_preview1" "fd_filestat_set_size" (func (param i32 i64) (result i32)))"#;
    let report = inspect(&module(&[import, MARKER, ALLOCATOR, MEMORY, START]));
    let reason = "imports wasi_snapshot_preview1.fd_filestat_set_size, which this Envoy does not provide (1.39.3 does)";
    let refusing = [EnvoyVersion::new(1, 36, 4), EnvoyVersion::new(1, 37, 0)];
    assert_eq!(report.refusals(), refusing.map(|release| (release, reason.to_owned())));
    assert_eq!(report.refusal_by_all(), None);
}

#[test]
fn of_several_markers_the_first_counts() {
    let import = r#"(import "env" "proxy_get_configuration" (func (param i32 i32) (result i32)))"#;
    let older = r#"(func (export "proxy_abi_version_0_1_0"))"#;
    assert_eq!(verdict(&module(&[import, older, MARKER, ALLOCATOR, MEMORY])), "");
    assert_ne!(verdict(&module(&[import, MARKER, older, ALLOCATOR, MEMORY])), "");
}

#[test]
fn other_peoples_modules_are_called_by_their_names() {
    let cases = [
        (r#"(import "wbg" "__wbg_log" (func))"#, "a wasm-bindgen module"),
        (r#"(import "./app_bg.js" "x" (func))"#, "a wasm-bindgen module"),
        (r#"(import "env" "emscripten_resize_heap" (func (param i32) (result i32)))"#, "an Emscripten program"),
        (r#"(import "gojs" "runtime.wasmExit" (func (param i32)))"#, "a Go program for browsers"),
        (r#"(@custom "dylink.0" "")"#, "a dynamic library"),
        (
            r#"(import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start"))"#,
            "a WASI command-line program",
        ),
    ];
    for (parts, expected) in cases {
        let text = verdict(&module(&[parts]));
        assert!(text.starts_with("not a proxy-wasm plugin") && text.contains(expected), "{text}");
    }
    let bindgen = r#"(import "__wbindgen_placeholder__" "__wbindgen_describe" (func (param i32)))"#;
    let text = verdict(&module(&[bindgen, MARKER, ALLOCATOR, MEMORY]));
    assert!(
        text.starts_with("imports __wbindgen_placeholder__.__wbindgen_describe, which is wasm-bindgen's"),
        "{text}"
    );
}

#[test]
fn what_is_no_module_at_all_is_named_with_advice() {
    let component = wat::parse_str("(component)").unwrap();
    let cases: [(&[u8], &str); 5] = [
        (&component, "not a WebAssembly module but a WebAssembly component: Envoy takes core modules"),
        (b"", "not a WebAssembly module but an empty file: look at what wrote it"),
        (b"\x1f\x8b\x08", "not a WebAssembly module but a gzip file: publish the unpacked .wasm file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a WebAssembly module but a Git LFS pointer: "),
        (b"<html>404", "not a WebAssembly module but an HTML page: look at it"),
    ];
    for (bytes, expected) in cases {
        let text = verdict(bytes);
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn a_module_cut_short_anywhere_is_refused() {
    let whole = module(&[MARKER, ALLOCATOR, MEMORY, START]);
    for length in 1..whole.len() {
        assert_ne!(verdict(&whole[..length]), "", "{length} of {}", whole.len());
    }
    assert!(verdict(&whole[..whole.len() - 1]).starts_with("damaged or cut short"));
}

#[test]
fn a_compiled_module_that_nothing_starts_gets_a_warning() {
    const COMPILED: &str = r#"(@custom "producers" "\00")"#;
    let warnings = |parts: &[&str]| inspect(&module(parts)).warnings;
    assert!(warnings(&[MARKER, ALLOCATOR, MEMORY, COMPILED])[0].starts_with("nothing starts it"));
    assert_eq!(warnings(&[MARKER, ALLOCATOR, MEMORY]).len(), 1, "written by hand: no main function to miss");
    let by_section = warnings(&[MARKER, ALLOCATOR, MEMORY, COMPILED, "(func $s) (start $s)"]);
    assert!(by_section[0].starts_with("it exports no proxy_on_"));
}

#[test]
fn what_is_slow_to_compile_is_code_and_not_a_large_custom_section() {
    let mut padded = module(&[MARKER, ALLOCATOR, MEMORY]);
    let before = inspect(&padded);
    // 20 MiB and the name, in LEB128.
    padded.extend([0, 0x82, 0x80, 0x80, 0x0a, 1, b'x']);
    padded.resize(padded.len() + (20 << 20), 0);
    let after = inspect(&padded);
    assert_eq!((after.warnings, after.contents.custom_sections), (before.warnings, vec!["x".to_owned()]));
    assert!((1..100).contains(&after.contents.code_size), "{}", after.contents.code_size);

    let large = Contents { code_size: 15 << 20, ..Contents::default() };
    let slow = "15 MiB of code are slow to compile: expect Envoy to take seconds on each start";
    assert!(advice::warnings(&large).contains(&slow.to_owned()));
}
