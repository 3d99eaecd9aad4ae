/* Adds to each response the headers that its configuration names, e.g. {"custom-header": "hello"}.
 *
 * No SDK and no libc: what Envoy offers is imported from "env", what it calls is exported. The ABI is proxy-wasm 0.2.1.
 * Texts with escapes are refused: this is an example, not a JSON parser. */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name), used))
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))

enum { RESPONSE_HEADERS = 2, PLUGIN_CONFIGURATION = 7, CRITICAL = 5 };

IMPORT(proxy_log) uint32_t proxy_log(uint32_t level, const char *text, size_t length);
IMPORT(proxy_get_buffer_bytes)
uint32_t proxy_get_buffer_bytes(uint32_t buffer, uint32_t start, uint32_t length, char **data, size_t *size);
IMPORT(proxy_add_header_map_value)
uint32_t proxy_add_header_map_value(uint32_t map, const char *name, size_t name_length, const char *value,
                                    size_t value_length);

/* Memory is handed out and never taken back: Envoy asks for it once per configuration. */
extern unsigned char __heap_base;
static uintptr_t top;

EXPORT(proxy_on_memory_allocate) void *allocate(size_t size) {
  if (top == 0) top = (uintptr_t)&__heap_base;
  uintptr_t start = top;
  top = (top + size + 15) & ~(uintptr_t)15;
  size_t pages = __builtin_wasm_memory_size(0), wanted = (top + 65535) / 65536;
  if (wanted > pages && __builtin_wasm_memory_grow(0, wanted - pages) == (size_t)-1) return NULL;
  return (void *)start;
}

/* The configuration that counts: the last that was fit. wasmplane gives each plugin a VM of its own, so one is enough;
 * requests that are under way when it is edited see the new one. */
static const char *configuration;
static size_t configuration_length;

static size_t skip_space(size_t at) {
  while (at < configuration_length) {
    char next = configuration[at];
    if (next != ' ' && next != '\n' && next != '\t' && next != '\r') break;
    at++;
  }
  return at;
}

/* Reads "text" at `*at` and moves behind it; 0 if there is none. */
static int text(size_t *at, const char **start, size_t *length) {
  size_t first = skip_space(*at) + 1, end = first;
  if (first > configuration_length || configuration[first - 1] != '"') return 0;
  for (; end < configuration_length && configuration[end] != '"'; end++) {
    if (configuration[end] == '\\') return 0;
  }
  if (end == configuration_length) return 0;
  *start = configuration + first, *length = end - first, *at = end + 1;
  return 1;
}

static int is(char expected, size_t *at) {
  *at = skip_space(*at);
  if (*at >= configuration_length || configuration[*at] != expected) return 0;
  ++*at;
  return 1;
}

/* Walks over {"name": "value", …}; adds the headers, or only looks whether it can be read. */
static int headers(int add) {
  size_t at = 0, name_length, value_length;
  const char *name, *value;
  if (skip_space(at) == configuration_length) return 1;
  if (!is('{', &at)) return 0;
  if (is('}', &at)) return skip_space(at) == configuration_length;
  do {
    if (!text(&at, &name, &name_length) || !is(':', &at) || !text(&at, &value, &value_length)) return 0;
    if (add) proxy_add_header_map_value(RESPONSE_HEADERS, name, name_length, value, value_length);
  } while (is(',', &at));
  return is('}', &at) && skip_space(at) == configuration_length;
}

EXPORT(proxy_abi_version_0_2_1) void abi_version(void) {}
EXPORT(_initialize) void initialize(void) {} /* Runs first; there is nothing to set up. */
EXPORT(proxy_on_context_create) void on_context_create(uint32_t context, uint32_t root) { (void)context, (void)root; }
EXPORT(proxy_on_vm_start) uint32_t on_vm_start(uint32_t context, uint32_t size) { return (void)context, (void)size, 1; }

EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t context, uint32_t size) {
  static const char complaint[] = "the configuration is no object of plain texts";
  char *data = NULL;
  size_t length = 0;
  (void)context;
  if (size > 0 && proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &data, &length) != 0) return 0;
  const char *before = configuration;
  size_t length_before = configuration_length;
  configuration = data, configuration_length = length;
  if (headers(0)) return 1;
  configuration = before, configuration_length = length_before;
  proxy_log(CRITICAL, complaint, sizeof complaint - 1);
  return 0;
}

EXPORT(proxy_on_response_headers) uint32_t on_response_headers(uint32_t context, uint32_t count, uint32_t end) {
  (void)context, (void)count, (void)end;
  headers(1);
  return 0;
}
