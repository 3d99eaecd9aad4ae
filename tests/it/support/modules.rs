//! Modules for tests, assembled when a test asks for them. Each says what it does to a request.

/// The plugin of `examples/hello`: response header `x-hello: <its configuration>`.
pub fn hello() -> Vec<u8> {
    assemble(include_str!("../../../examples/hello/plugin.wat"))
}

/// Adds the response header `name: value`.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    assemble(&plugin(&Parts { imports: ADD_HEADER, body: &on_response(name, value), ..Parts::default() }))
}

/// [`header`], for Envoy 1.39 and later alone: older ones lack one of its imports.
pub fn header_for_newer(name: &str, value: &str) -> Vec<u8> {
    let imports =
        [ADD_HEADER, r#"(import "wasi_snapshot_preview1" "fd_sync" (func (param i32) (result i32)))"#].concat();
    assemble(&plugin(&Parts { imports: &imports, body: &on_response(name, value), ..Parts::default() }))
}

/// Appends its letter to the request header `x-order`; [`super::http::Response::order`] reads what the upstream got.
pub fn order(letter: &str) -> Vec<u8> {
    let body = format!(
        r#"(data (i32.const 1024) "x-order") (data (i32.const 1280) "{letter}")
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $add_header (i32.const 0) (i32.const 1024) (i32.const 7) (i32.const 1280) (i32.const {length})))
    (i32.const 0))"#,
        length = letter.len(),
    );
    assemble(&plugin(&Parts { imports: ADD_HEADER, body: &body, ..Parts::default() }))
}

/// Counts, per VM: response headers `x-count` (answers so far) and `x-configured` (how often it was configured). An
/// Envoy has a VM per worker, so ask one with `concurrency(1)`.
pub fn counter() -> Vec<u8> {
    let body = r#"(global $count (mut i32) (i32.const 0))
  (global $configured (mut i32) (i32.const 0))
  (data (i32.const 1024) "x-count") (data (i32.const 1040) "x-configured")
  ;; Writes the number's digits so that they end at 2048, and adds the header.
  (func $add_number (param $name i32) (param $name_length i32) (param $number i32)
    (local $at i32)
    (local.set $at (i32.const 2048))
    (loop $digits
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (br_if $digits (local.tee $number (i32.div_u (local.get $number) (i32.const 10)))))
    (drop
      (call $add_header (i32.const 2) (local.get $name) (local.get $name_length)
        (local.get $at) (i32.sub (i32.const 2048) (local.get $at)))))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (call $add_number (i32.const 1024) (i32.const 7) (global.get $count))
    (call $add_number (i32.const 1040) (i32.const 12) (global.get $configured))
    (i32.const 0))"#;
    let configure = "(global.set $configured (i32.add (global.get $configured) (i32.const 1))) (i32.const 1)";
    assemble(&plugin(&Parts { imports: ADD_HEADER, configure, body, ..Parts::default() }))
}

/// Tells what it runs in: response headers `x-env` (its environment, each variable followed by a semicolon) and
/// `x-root` (its root id).
pub fn surroundings() -> Vec<u8> {
    let imports = format!(
        r#"{ADD_HEADER}
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))"#
    );
    let body = r#"(data (i32.const 1024) "x-env") (data (i32.const 1040) "x-root") (data (i32.const 1056) "plugin_root_id")
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (local $at i32) (local $end i32)
    (drop (call $environ_sizes (i32.const 4096) (i32.const 4100)))
    (drop (call $environ (i32.const 8192) (i32.const 12288)))
    (local.set $at (i32.const 12288))
    (local.set $end (i32.add (i32.const 12288) (i32.load (i32.const 4100))))
    (block $done
      (loop $zeros
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 59))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $zeros)))
    (drop
      (call $add_header (i32.const 2) (i32.const 1024) (i32.const 5) (i32.const 12288) (i32.load (i32.const 4100))))
    (drop (call $get_property (i32.const 1056) (i32.const 14) (i32.const 4104) (i32.const 4108)))
    (drop
      (call $add_header (i32.const 2) (i32.const 1040) (i32.const 6)
        (i32.load (i32.const 4104)) (i32.load (i32.const 4108))))
    (i32.const 0))"#;
    assemble(&plugin(&Parts { imports: &imports, body, ..Parts::default() }))
}

/// Traps on each request.
pub fn traps() -> Vec<u8> {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)"#;
    assemble(&plugin(&Parts { body, ..Parts::default() }))
}

/// Sound to look at, but `proxy_on_configure` says no: only an Envoy finds out.
pub fn refuses_its_configuration() -> Vec<u8> {
    assemble(&plugin(&Parts { configure: "(i32.const 0)", ..Parts::default() }))
}

/// Says no to an empty configuration and to one whose first key begins with the letter b, as in `{"bad":1}`; else
/// response header `name: value`.
pub fn picky(name: &str, value: &str) -> Vec<u8> {
    let imports = format!(
        r#"{ADD_HEADER}
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))"#
    );
    let configure = "(if (i32.lt_u (local.get $length) (i32.const 2)) (then (return (i32.const 0))))
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $length) (i32.const 4096) (i32.const 4100)))
    (i32.ne (i32.load8_u offset=2 (i32.load (i32.const 4096))) (i32.const 98))";
    let body = on_response(name, value);
    assemble(&plugin(&Parts { imports: &imports, configure, body: &body, ..Parts::default() }))
}

/// Imports a function that no host has.
pub fn bad_import() -> Vec<u8> {
    let imports = r#"(import "env" "proxy_no_such_call" (func $no_such_call (param i32) (result i32)))"#;
    assemble(&plugin(&Parts { imports, configure: "(call $no_such_call (i32.const 1))", ..Parts::default() }))
}

/// Keeps its memory to itself: Envoy 1.40 crashes on it.
pub fn no_exported_memory() -> Vec<u8> {
    assemble(&plugin(&Parts { memory: "(memory 2)", ..Parts::default() }))
}

/// No `proxy_abi_version_…`: not a proxy-wasm module.
pub fn no_abi_marker() -> Vec<u8> {
    assemble(&plugin(&Parts { abi: "", ..Parts::default() }))
}

const ADD_HEADER: &str =
    r#"(import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))"#;

/// What differs from the plugin that does nothing.
struct Parts<'a> {
    imports: &'a str,
    memory: &'a str,
    abi: &'a str,
    /// The body of `proxy_on_configure`, with `$root` and `$length`.
    configure: &'a str,
    body: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            imports: "",
            memory: r#"(memory (export "memory") 2)"#,
            abi: r#"(func (export "proxy_abi_version_0_2_1"))"#,
            configure: "(i32.const 1)",
            body: "",
        }
    }
}

fn plugin(parts: &Parts<'_>) -> String {
    let Parts { imports, memory, abi, configure, body } = parts;
    format!(
        r#"(module
  {imports}
  {memory}
  {abi}
  (global $heap (mut i32) (i32.const 65536))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $length) (i32.const 65536)))))))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    {configure})
  {body})"#
    )
}

fn on_response(name: &str, value: &str) -> String {
    format!(
        r#"(data (i32.const 1024) "{name}") (data (i32.const 1280) "{value}")
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $add_header (i32.const 2) (i32.const 1024) (i32.const {}) (i32.const 1280) (i32.const {})))
    (i32.const 0))"#,
        name.len(),
        value.len(),
    )
}

fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the modules of the tests assemble")
}

/// Put after a module, makes it larger by so many bytes of this value, and does nothing.
pub fn custom_section(fill: u8, size: usize) -> Vec<u8> {
    let content = [&b"\x04fill"[..], &vec![fill; size]].concat();
    // Its length in LEB128.
    let (mut section, mut rest) = (vec![0], content.len());
    while rest >= 0x80 {
        section.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    section.push(rest as u8);
    [section, content].concat()
}

/// The same module with so many bytes more.
pub fn padded(module: Vec<u8>, bytes: usize) -> Vec<u8> {
    [module, custom_section(0, bytes)].concat()
}
