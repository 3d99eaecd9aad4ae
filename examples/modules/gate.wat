;; A network filter (`type: NETWORK`): closes a connection when what arrives begins with the word that its configuration
;; names. Everything else passes. Of its configuration it knows this one form, and says no to another:
;;
;;   pluginConfig: {refuse: QUIT}
(module
  (import "env" "proxy_get_buffer_bytes"
    (func $get_buffer_bytes (param $buffer i32) (param $start i32) (param $length i32)
                            (param $out_pointer i32) (param $out_length i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close_stream (param $stream i32) (result i32)))

  (memory (export "memory") 2)
  (data (i32.const 1024) "{\"refuse\":\"")

  (func (export "proxy_abi_version_0_2_1"))
  (global $heap (mut i32) (i32.const 4096))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $length)))
    (local.get $pointer))
  (func (export "proxy_on_context_create") (param $context i32) (param $root i32))

  (func $begins_with (param $text i32) (param $start i32) (param $start_length i32) (result i32)
    (local $at i32)
    (loop $next
      (if (i32.eq (local.get $at) (local.get $start_length)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (i32.add (local.get $text) (local.get $at)))
                  (i32.load8_u (i32.add (local.get $start) (local.get $at))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    unreachable)

  ;; The word of the newest configuration, which counts for connections that are open already too.
  (global $word (mut i32) (i32.const 0))
  (global $word_length (mut i32) (i32.const 0))

  ;; Buffer 7 is the configuration: 11 bytes, the word, 2 bytes. The word stays on the heap.
  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (if (i32.lt_u (local.get $length) (i32.const 14)) (then (return (i32.const 0))))
    (drop (call $get_buffer_bytes (i32.const 7) (i32.const 0) (local.get $length) (i32.const 2048) (i32.const 2052)))
    (global.set $word (i32.add (i32.load (i32.const 2048)) (i32.const 11)))
    (global.set $word_length (i32.sub (local.get $length) (i32.const 13)))
    (call $begins_with (i32.load (i32.const 2048)) (i32.const 1024) (i32.const 11)))

  ;; Buffer 2 is what the client sent; stream 2 is its side of the connection. The answer 1 stops what came.
  (func (export "proxy_on_downstream_data") (param $context i32) (param $length i32) (param $is_end i32) (result i32)
    (local $heap_before i32)
    (if (i32.lt_u (local.get $length) (global.get $word_length)) (then (return (i32.const 0))))
    (local.set $heap_before (global.get $heap))
    (drop (call $get_buffer_bytes (i32.const 2) (i32.const 0) (global.get $word_length) (i32.const 2048) (i32.const 2052)))
    (global.set $heap (local.get $heap_before))
    (if (call $begins_with (i32.load (i32.const 2048)) (global.get $word) (global.get $word_length))
      (then
        (drop (call $close_stream (i32.const 2)))
        (return (i32.const 1))))
    (i32.const 0)))
