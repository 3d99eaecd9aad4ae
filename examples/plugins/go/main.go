// Adds to each response the headers that its configuration names, e.g. {"custom-header": "hello"}.
//
// No SDK: what Envoy offers is imported from "env", what it calls is exported. The ABI is proxy-wasm 0.2.1.
package main

import (
	"encoding/json"
	"unsafe"
)

const (
	responseHeaders     = 2 // a map of headers
	pluginConfiguration = 7 // a buffer
	criticalLog         = 5
)

//go:wasmimport env proxy_log
func hostLog(level uint32, message string) uint32

//go:wasmimport env proxy_get_buffer_bytes
func hostBuffer(buffer, start, length uint32, data unsafe.Pointer, size unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func hostAddHeader(headers uint32, name, value string) uint32

// Headers of each plugin configuration, and which of them a request uses.
var (
	configured = map[uint32]map[string]string{}
	requests   = map[uint32]map[string]string{}
	// What Envoy writes into must not be collected before it is read.
	lent []byte
)

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	lent = make([]byte, size)
	return unsafe.Pointer(unsafe.SliceData(lent))
}

//go:wasmexport proxy_on_context_create
func contextCreate(context, root uint32) {
	if root != 0 {
		requests[context] = configured[root]
	}
}

//go:wasmexport proxy_on_vm_start
func vmStart(context, size uint32) uint32 { return 1 }

//go:wasmexport proxy_on_configure
func configure(context, size uint32) uint32 {
	headers := map[string]string{}
	if size > 0 {
		var data *byte
		var length uint32
		if hostBuffer(pluginConfiguration, 0, size, unsafe.Pointer(&data), unsafe.Pointer(&length)) != 0 {
			return 0
		}
		if err := json.Unmarshal(unsafe.Slice(data, length), &headers); err != nil {
			hostLog(criticalLog, "the configuration is no object of texts: "+err.Error())
			return 0
		}
	}
	configured[context] = headers
	return 1
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, endOfStream uint32) uint32 {
	for name, value := range requests[context] {
		hostAddHeader(responseHeaders, name, value)
	}
	return 0
}

//go:wasmexport proxy_on_done
func done(context uint32) uint32 { return 1 }

//go:wasmexport proxy_on_delete
func onDelete(context uint32) {
	delete(requests, context)
	delete(configured, context)
}

func main() {}
