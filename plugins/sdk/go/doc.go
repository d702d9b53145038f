// SPDX-License-Identifier: Apache-2.0

// Package weir is for plugins of Weir that are written in Go. A plugin is a function from a request, or a part of a response, to a verdict:
//
//	package main
//
//	import weir "github.com/weir-proxy/weir/plugins/sdk/go"
//
//	//go:wasmexport weir_request
//	func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }
//
//	func judge(x *weir.Exchange) *weir.Verdict {
//		for _, t := range x.Texts() {
//			if strings.Contains(t.Text, "PRIVATE KEY") {
//				return weir.Deny(403, "no_secrets", "Take the key out of the prompt.")
//			}
//		}
//		return weir.GoOn()
//	}
//
//	func main() {}
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o plugin.wasm .
//
// Export only the hooks that you need (weir_configure, weir_request, weir_event, by [Configure], [Request] and [EventHook]): without weir_event the response never leaves the proxy.
// Nothing that a call leaves in memory is there in the next one; what has to last goes into [Verdict.State]. What weir_configure stores lasts: it
// runs before the memory is frozen. The interface is plugins/ABI.md of Weir.
package weir
