;; Says that it was here: appends its plugin's name to the request header `x-trail`, and on the way back to the response
;; header `x-trail`. Which plugins ran, and in which order, can be read from these: requests pass plugins first to last,
;; answers last to first. Needs no configuration.
(module
  (import "env" "proxy_get_property"
    (func $get_property (param $path i32) (param $path_length i32)
                        (param $out_pointer i32) (param $out_length i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $value i32) (param $value_length i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 1024) "x-trail")
  (data (i32.const 1040) "plugin_name")

  (func (export "proxy_abi_version_0_2_1"))
  (global $heap (mut i32) (i32.const 4096))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param $context i32) (param $root i32))

  ;; Map 0 is the request's headers, 2 the response's. The host puts the name on the heap and pointer and length to 2048;
  ;; once the header holds a copy, the heap is as it was.
  (func $leave_trail (param $map i32)
    (local $heap_before i32)
    (local.set $heap_before (global.get $heap))
    (if (i32.eqz (call $get_property (i32.const 1040) (i32.const 11) (i32.const 2048) (i32.const 2052)))
      (then
        (drop
          (call $add_header (local.get $map) (i32.const 1024) (i32.const 7)
            (i32.load (i32.const 2048)) (i32.load (i32.const 2052))))))
    (global.set $heap (local.get $heap_before)))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (call $leave_trail (i32.const 0))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (call $leave_trail (i32.const 2))
    (i32.const 0)))
