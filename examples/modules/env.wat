;; Tells its environment: response header `x-env`, each variable followed by a semicolon.
(module
  (import "env" "proxy_add_header_map_value"
    (func $add_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $value i32) (param $value_length i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes (param $out_count i32) (param $out_bytes i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get"
    (func $environ (param $pointers i32) (param $bytes i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 1024) "x-env")

  (func (export "proxy_abi_version_0_2_1"))
  (global $heap (mut i32) (i32.const 0x10000))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param $context i32) (param $root i32))

  ;; The variables are at 0x4000, `NAME=value` each with a zero behind it; 2052 holds how many bytes they are. This
  ;; example has room for 48 KiB of them.
  (func (export "proxy_on_vm_start") (param $root i32) (param $length i32) (result i32)
    (local $at i32) (local $end i32)
    (drop (call $environ_sizes (i32.const 2048) (i32.const 2052)))
    (if (i32.gt_u (i32.load (i32.const 2052)) (i32.const 0xc000)) (then (return (i32.const 0))))
    (drop (call $environ (i32.const 0x2000) (i32.const 0x4000)))
    (local.set $at (i32.const 0x4000))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 2052))))
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end))
        (then
          (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 0x3b))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    (i32.const 1))

  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (drop
      (call $add_header (i32.const 2) (i32.const 1024) (i32.const 5)
        (i32.const 0x4000) (i32.load (i32.const 2052))))
    (i32.const 0)))
