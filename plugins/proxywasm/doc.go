// SPDX-License-Identifier: Apache-2.0

// Package proxywasm runs unmodified plugins for Envoy, Istio and Higress: WebAssembly modules that speak proxy-wasm 0.2
// (https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1). [Speaks] recognises them by their exports.
//
//	Host           one for a process: the functions that plugins import, the clients behind proxy_http_call
//	  Plugin       one version of a module with one configuration, its shared data and metrics
//	    stream     one exchange: an instance of its own from the request to the end of the response
//
// Meters, memory and resets are those of package host: each call has fuel and a deadline, each stream begins with the image of the instance that was
// started and configured when the plugin was loaded, and an instance never serves a second tenant. Unlike in Envoy a plugin cannot carry anything from one
// stream to the next in its memory; shared data and metrics are for that, and each tenant has its own.
//
// # One exchange
//
//	request    proxy_on_context_create, proxy_on_request_headers, proxy_on_request_body with the whole body
//	response   proxy_on_response_headers, proxy_on_response_body for each chunk (only if the plugin exports one of them)
//	end        proxy_on_done, proxy_on_log
//
// A plugin is shown :method, :path, :authority, :scheme, content-type, content-length and those headers that it was granted; never the client's key. It may change the body and
// headers, but none that belong to the gateway (see [abi.CheckHeaderName]): such a change has no effect.
//
// # Pausing
//
// A plugin that pauses is waited for as long as one of its proxy_http_calls is under way, up to [Limits].Pause. If it still pauses when nothing can resume it any more, it has
// failed, with three exceptions: at the headers of a request or a response, pausing with StopIteration means that the body is wanted first; at a
// part of a response that is not the last, it means that more of it is wanted.
//
// # What is refused
//
// gRPC calls, shared queues, timers (nothing of a plugin runs between the calls of a stream) and Higress' Redis calls answer Unimplemented. TCP filters are never called.
// A plugin's properties are for itself; with its log, what it has set is logged at the end of the exchange, as Envoy's access log could show it.
// Random numbers begin with the exchange's id: they differ between exchanges and are no secrets. What a plugin logs is dropped unless [Source].Log is set.
// A call of proxy_http_call that was not answered at the end of the stream is cancelled, and none can be made while the plugin is configured.
package proxywasm
