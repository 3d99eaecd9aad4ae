;; Looks at a body before its request goes on: stops at the headers, waits for the whole body, and adds the request header
;; `x-body: seen`. Envoy calls proxy_on_request_body after such a stop only when it is told to
;; (`allow_on_headers_stop_iteration`); else the request stands still until something gives up.
(module
  (import "env" "proxy_add_header_map_value"
    (func $add_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $value i32) (param $value_length i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 1024) "x-body")
  (data (i32.const 1040) "seen")

  (func (export "proxy_abi_version_0_2_1"))
  (global $heap (mut i32) (i32.const 4096))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param $context i32) (param $root i32))

  ;; 1 = stop here, 0 = go on. A request without a body goes on at once.
  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (i32.eqz (local.get $is_end)))

  (func (export "proxy_on_request_body") (param $context i32) (param $length i32) (param $is_end i32) (result i32)
    (if (i32.eqz (local.get $is_end)) (then (return (i32.const 1))))
    (drop (call $add_header (i32.const 0) (i32.const 1024) (i32.const 6) (i32.const 1040) (i32.const 4)))
    (i32.const 0)))
