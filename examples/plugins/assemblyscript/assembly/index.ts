// Adds to each response the headers that its configuration names, e.g. {"custom-header": "hello"}.
//
// No SDK: what Envoy offers is imported from "env", what it calls is exported. The ABI is proxy-wasm 0.2.1. Texts with
// escapes are refused: this is an example, not a JSON parser.

const RESPONSE_HEADERS: u32 = 2;
const PLUGIN_CONFIGURATION: u32 = 7;

@external("env", "proxy_get_buffer_bytes")
declare function getBuffer(buffer: u32, start: u32, length: u32, data: usize, size: usize): u32;

@external("env", "proxy_add_header_map_value")
declare function addHeader(map: u32, name: usize, nameSize: usize, value: usize, valueSize: usize): u32;

class Header {
  constructor(public name: ArrayBuffer, public value: ArrayBuffer) {}
}

// By context: headers of each configuration, and those that a request uses.
const configured = new Map<u32, Header[]>();
const requests = new Map<u32, Header[]>();

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: usize): usize {
  return heap.alloc(size);
}

export function proxy_on_context_create(context: u32, root: u32): void {
  if (root != 0 && configured.has(root)) requests.set(context, configured.get(root));
}

export function proxy_on_vm_start(context: u32, size: u32): u32 {
  return 1;
}

// 0 refuses the configuration: Envoy goes on with the one before.
export function proxy_on_configure(context: u32, size: u32): u32 {
  const headers = parse(configuration(size));
  if (headers === null) return 0;
  configured.set(context, headers);
  return 1;
}

export function proxy_on_response_headers(context: u32, count: u32, endOfStream: u32): u32 {
  if (requests.has(context)) {
    const headers = requests.get(context);
    for (let i = 0; i < headers.length; i++) {
      const name = headers[i].name;
      const value = headers[i].value;
      addHeader(RESPONSE_HEADERS, changetype<usize>(name), name.byteLength, changetype<usize>(value), value.byteLength);
    }
  }
  return 0;
}

export function proxy_on_done(context: u32): u32 {
  return 1;
}

export function proxy_on_delete(context: u32): void {
  requests.delete(context);
  configured.delete(context);
}

// Where Envoy writes the place and the length of what it gives.
const given = memory.data(8);

function configuration(size: u32): string {
  if (size == 0 || getBuffer(PLUGIN_CONFIGURATION, 0, size, given, given + 4) != 0) return "";
  const data = load<u32>(given);
  const text = String.UTF8.decodeUnsafe(data, load<u32>(given, 4));
  heap.free(data);
  return text;
}

// An object of plain texts: the texts lie between quotes, and only marks and space between them.
function parse(text: string): Header[] | null {
  const headers: Header[] = [];
  if (text.trim() == "") return headers;
  if (text.includes("\\")) return null;
  const parts = text.split('"');
  if (parts.length == 1) return text.replaceAll(" ", "") == "{}" ? headers : null;
  if (parts.length % 4 != 1) return null;
  for (let i = 0; i + 4 < parts.length; i += 4) {
    if (parts[i].trim() != (i == 0 ? "{" : ",") || parts[i + 2].trim() != ":") return null;
    headers.push(new Header(String.UTF8.encode(parts[i + 1]), String.UTF8.encode(parts[i + 3])));
  }
  return parts[parts.length - 1].trim() == "}" ? headers : null;
}
