// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
)

// Values of the ABI: https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#types.
const (
	statusOK              = 0
	statusNotFound        = 1
	statusBadArgument     = 2
	statusParseFailure    = 4
	statusCASMismatch     = 8
	statusInternalFailure = 10
	statusUnimplemented   = 12
)

const (
	mapRequestHeaders   = 0
	mapRequestTrailers  = 1
	mapResponseHeaders  = 2
	mapResponseTrailers = 3
	mapCallHeaders      = 6
	mapCallTrailers     = 7
)

const (
	bufferRequestBody  = 0
	bufferResponseBody = 1
	bufferCallBody     = 4
	bufferVMConfig     = 6
	bufferPluginConfig = 7
)

// Actions. Those above 1 are Envoy's own filter statuses, which Higress' SDK returns; of a body, 2 and 3 are the same as 1 here.
const (
	actionContinue       = 0
	actionStopIteration  = 1
	actionEndStream      = 2 // of headers: continue, without a body
	actionDropChunk      = 3 // of a body: stop, and do not keep what came
	streamTypeRequest    = 0
	streamTypeResponse   = 1
	rootContext          = 1
	streamContext        = 2
	levelDebug           = 1
	levelInfo            = 2
	versionPrefix        = "proxy_abi_version_"
	importModule         = "env"
	exportAllocate       = "proxy_on_memory_allocate"
	exportMalloc         = "malloc" // of older SDKs
	exportStart          = "_start" // of modules built as programs
	exportContextCreate  = "proxy_on_context_create"
	exportVMStart        = "proxy_on_vm_start"
	exportConfigure      = "proxy_on_configure"
	exportRequestHeaders = "proxy_on_request_headers"
	exportRequestBody    = "proxy_on_request_body"
	exportResponseHeader = "proxy_on_response_headers"
	exportResponseBody   = "proxy_on_response_body"
	exportCallResponse   = "proxy_on_http_call_response"
	exportDone           = "proxy_on_done"
	exportLog            = "proxy_on_log"
)

// versions that are spoken here. The last is Higress', which adds functions that are refused.
var versions = []string{"0_2_0", "0_2_1", "0_2_100"}

// Speaks reports whether a module says that it speaks proxy-wasm, of whatever version.
func Speaks(m *meter.Module) bool { return version(m) != "" }

func version(m *meter.Module) string {
	for _, e := range m.Exports {
		if v, ok := strings.CutPrefix(e.Name, versionPrefix); ok {
			return v
		}
	}
	return ""
}

const (
	i32 = "\x7f"
	i64 = "\x7e"
)

// exports that are called here, with their types; a third of the parameters of headers is not there in 0.1.
var exports = []struct{ name, params, results string }{
	{exportAllocate, i32, i32},
	{exportMalloc, i32, i32},
	{exportStart, "", ""},
	{exportContextCreate, i32 + i32, ""},
	{exportVMStart, i32 + i32, i32},
	{exportConfigure, i32 + i32, i32},
	{exportRequestHeaders, i32 + i32 + i32, i32},
	{exportRequestBody, i32 + i32 + i32, i32},
	{exportResponseHeader, i32 + i32 + i32, i32},
	{exportResponseBody, i32 + i32 + i32, i32},
	{exportCallResponse, i32 + i32 + i32 + i32 + i32, ""},
	{exportDone, i32, i32},
	{exportLog, i32, ""},
}

// check refuses what is no plugin of this ABI, or one that could not be called.
func check(m *meter.Module) error {
	var errs []error
	switch v := version(m); {
	case v == "":
		return fmt.Errorf("it exports no %s…: it is no plugin of proxy-wasm", versionPrefix)
	case !slices.Contains(versions, v):
		return fmt.Errorf("it speaks version %s of proxy-wasm; here are spoken %s", v, strings.Join(versions, ", "))
	}
	for _, e := range exports {
		f, ok := m.Export(e.name)
		if ok && (string(f.Params) != e.params || string(f.Results) != e.results) {
			errs = append(errs, fmt.Errorf("its export %s has %d parameters and %d results of types that proxy-wasm 0.2 does not have",
				e.name, len(f.Params), len(f.Results)))
		}
	}
	if allocator(m) == "" {
		errs = append(errs, fmt.Errorf("it exports neither %s nor %s", exportAllocate, exportMalloc))
	}
	if !m.Memory {
		errs = append(errs, errors.New("it does not export its memory under the name memory"))
	}
	return errors.Join(append(errs, host.CheckImports(m, importModule, functions))...)
}

func allocator(m *meter.Module) string {
	for _, name := range []string{exportAllocate, exportMalloc} {
		if _, ok := m.Export(name); ok {
			return name
		}
	}
	return ""
}
