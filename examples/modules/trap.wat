;; Traps (fails beyond repair, as a bug would) where it is told to; else it adds `x-alive: yes` to each response.
;;
;;   request header `x-trap: request`    traps in proxy_on_request_headers
;;   request header `x-trap: response`   traps in proxy_on_response_headers
;;   any configuration at all            traps in proxy_on_configure
;;
;; Memory: 0x1000 TRAP, one byte per stream, 1 = trap when the response comes | heap
(module
  (import "env" "proxy_get_header_map_value"
    (func $get_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $out_pointer i32) (param $out_length i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $value i32) (param $value_length i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 1024) "x-trap")
  (data (i32.const 1040) "x-alive")
  (data (i32.const 1056) "yes")

  (func (export "proxy_abi_version_0_2_1"))
  (global $heap (mut i32) (i32.const 0x2000))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param $context i32) (param $root i32))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (if (local.get $length) (then unreachable))
    (i32.const 1))

  ;; Ids of contexts only grow; 4096 streams at once have a byte of their own.
  (func $trap_of (param $context i32) (result i32)
    (i32.add (i32.const 0x1000) (i32.and (local.get $context) (i32.const 4095))))

  ;; The words are told apart by their length, which the host puts to 2052; it stays 0 without the header.
  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (local $heap_before i32) (local $length i32)
    (local.set $heap_before (global.get $heap))
    (i32.store (i32.const 2052) (i32.const 0))
    (drop (call $get_header (i32.const 0) (i32.const 1024) (i32.const 6) (i32.const 2048) (i32.const 2052)))
    (local.set $length (i32.load (i32.const 2052)))
    (global.set $heap (local.get $heap_before))
    (if (i32.eq (local.get $length) (i32.const 7)) (then unreachable))
    (i32.store8 (call $trap_of (local.get $context)) (i32.eq (local.get $length) (i32.const 8)))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (if (i32.load8_u (call $trap_of (local.get $context))) (then unreachable))
    (drop (call $add_header (i32.const 2) (i32.const 1040) (i32.const 7) (i32.const 1056) (i32.const 3)))
    (i32.const 0)))
