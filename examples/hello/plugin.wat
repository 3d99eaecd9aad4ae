;; The smallest useful proxy-wasm plugin (ABI 0.2.1): adds `x-hello: <its configuration>` to each response.
;; Without a configuration it adds `x-hello: hello`.
;;
;;   assemble:  cargo run --example assemble -- examples/hello/plugin.wat hello.wasm
;;
;; An Envoy keeps the VM when only the configuration changes. It then makes a new root context in it, while streams of
;; the old one go on, so what was configured is kept per root context, and each stream remembers its own.
;;
;; Memory: 0x000000 constants | 0x010000 CONFIG: root context -> (pointer, length) | 0x090000 ROOT: stream -> root | heap
;; Context ids only grow, so both tables wrap around at 65536 entries.
(module
  (import "env" "proxy_get_buffer_bytes"
    (func $get_buffer_bytes (param $buffer i32) (param $start i32) (param $length i32)
                            (param $out_pointer i32) (param $out_length i32) (result i32)))
  (import "env" "proxy_add_header_map_value"
    (func $add_header (param $map i32) (param $key i32) (param $key_length i32)
                      (param $value i32) (param $value_length i32) (result i32)))

  (memory (export "memory") 14)
  (data (i32.const 1024) "x-hello")
  (data (i32.const 1040) "hello")

  (func (export "proxy_abi_version_0_2_1"))

  ;; The host calls this for room for what it hands over. Nothing is ever freed: fit for an example that gets its
  ;; configuration now and then, not for one that reads bodies.
  (global $heap (mut i32) (i32.const 0x0d0000))
  (func (export "proxy_on_memory_allocate") (param $length i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap
      (i32.and (i32.add (i32.add (global.get $heap) (local.get $length)) (i32.const 15)) (i32.const -16)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $length) (i32.const 65536)))))))
    (local.get $pointer))

  ;; Where CONFIG and ROOT keep the entry of a context.
  (func $config_of (param $root i32) (result i32)
    (i32.add (i32.const 0x010000) (i32.mul (i32.and (local.get $root) (i32.const 65535)) (i32.const 8))))
  (func $root_of (param $context i32) (result i32)
    (i32.add (i32.const 0x090000) (i32.mul (i32.and (local.get $context) (i32.const 65535)) (i32.const 4))))

  (func (export "proxy_on_context_create") (param $context i32) (param $root i32)
    (i32.store (call $root_of (local.get $context)) (local.get $root)))

  (func (export "proxy_on_vm_start") (param $root i32) (param $length i32) (result i32)
    (i32.const 1))

  ;; 1 = this configuration will do. Buffer 7 is the plugin configuration: `pluginConfig` as JSON text.
  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (local $entry i32)
    (local.set $entry (call $config_of (local.get $root)))
    (i32.store (local.get $entry) (i32.const 1040))
    (i32.store offset=4 (local.get $entry) (i32.const 5))
    (if (i32.eqz (local.get $length)) (then (return (i32.const 1))))
    ;; 0 = OK. The host writes pointer and length straight into the entry.
    (i32.eqz
      (call $get_buffer_bytes (i32.const 7) (i32.const 0) (local.get $length)
        (local.get $entry) (i32.add (local.get $entry) (i32.const 4)))))

  ;; Map 2 is the response's headers; the answer 0 lets the response go on.
  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param $is_end i32) (result i32)
    (local $entry i32)
    (local.set $entry (call $config_of (i32.load (call $root_of (local.get $context)))))
    (drop
      (call $add_header (i32.const 2) (i32.const 1024) (i32.const 7)
        (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry))))
    (i32.const 0)))
