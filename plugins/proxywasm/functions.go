// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/weir-proxy/weir/plugins/host"
)

// caller is a stream whose guest calls a function.
type caller struct {
	*stream
	guest *host.Instance
}

// args are the arguments of a function; the upper halves of 32-bit ones are cleared.
type args []uint64

// costCall is the fuel that every call takes, besides a unit for each byte that it moves.
const costCall = 200

// functions are all that plugins may import from env: those of proxy-wasm 0.2.1 and of Higress' dialect. What is not served is there too, or plugins that
// never call it could not be loaded.
var functions = map[string]host.Function{
	"proxy_log":                          function(i32+i32+i32, caller.log),
	"proxy_get_log_level":                function(i32, caller.logLevel),
	"proxy_get_current_time_nanoseconds": function(i32, caller.now),
	"proxy_set_tick_period_milliseconds": function(i32, caller.tick),
	"proxy_get_buffer_bytes":             function(five, caller.getBuffer),
	"proxy_get_buffer_status":            function(i32+i32+i32, caller.bufferStatus),
	"proxy_set_buffer_bytes":             function(five, caller.setBuffer),
	"proxy_get_header_map_pairs":         function(i32+i32+i32, caller.getPairs),
	"proxy_get_header_map_size":          function(i32+i32, caller.mapSize),
	"proxy_set_header_map_pairs":         function(i32+i32+i32, caller.setPairs),
	"proxy_get_header_map_value":         function(five, caller.getHeader),
	"proxy_add_header_map_value":         function(five, caller.addHeader),
	"proxy_replace_header_map_value":     function(five, caller.replaceHeader),
	"proxy_remove_header_map_value":      function(i32+i32+i32, caller.removeHeader),
	"proxy_send_local_response":          function(five+i32+i32+i32, caller.sendLocal),
	"proxy_continue_stream":              function(i32, caller.resume),
	"proxy_close_stream":                 function(i32, caller.unimplemented),
	"proxy_set_effective_context":        function(i32, caller.setContext),
	"proxy_done":                         function("", caller.done),
	"proxy_get_status":                   function(i32+i32+i32, caller.status),
	"proxy_http_call":                    function(five+five, caller.httpCall),
	"proxy_get_property":                 function(i32+i32+i32+i32, caller.getProperty),
	"proxy_set_property":                 function(i32+i32+i32+i32, caller.setProperty),
	"proxy_get_shared_data":              function(five, caller.getShared),
	"proxy_set_shared_data":              function(five, caller.setShared),
	"proxy_define_metric":                function(i32+i32+i32+i32, caller.defineMetric),
	"proxy_increment_metric":             function(i32+i64, caller.incrementMetric),
	"proxy_record_metric":                function(i32+i64, caller.recordMetric),
	"proxy_get_metric":                   function(i32+i32, caller.getMetric),
	"proxy_call_foreign_function":        function(five+i32, caller.foreign),

	"proxy_inject_encoded_data_to_filter_chain": function(i32+i32+i32, caller.inject), // Higress

	"proxy_register_shared_queue":      refused(3),
	"proxy_resolve_shared_queue":       refused(5),
	"proxy_dequeue_shared_queue":       refused(3),
	"proxy_enqueue_shared_queue":       refused(3),
	"proxy_grpc_call":                  refused(12),
	"proxy_grpc_stream":                refused(9),
	"proxy_grpc_send":                  refused(4),
	"proxy_grpc_cancel":                refused(1),
	"proxy_grpc_close":                 refused(1),
	"proxy_get_upstream_hosts":         refused(2), // Higress, as the rest
	"proxy_set_upstream_override_host": refused(2),
	"proxy_redis_init":                 refused(7),
	"proxy_redis_call":                 refused(5),
}

const five = i32 + i32 + i32 + i32 + i32

func function(params string, do func(caller, args) uint64) host.Function {
	return host.Function{Params: params, Results: i32, Do: func(g *host.Instance, stack []uint64) {
		g.Charge(costCall)
		for n := range params {
			if params[n] == i32[0] {
				stack[n] &= 0xffffffff
			}
		}
		stack[0] = do(caller{g.Owner().(*stream), g}, stack)
	}}
}

func refused(params int) host.Function {
	return function(strings.Repeat(i32, params), caller.unimplemented)
}

func (caller) unimplemented(args) uint64 { return statusUnimplemented }

// bytes returns a view of memory; text a copy.
func (c caller) bytes(at, n uint64) []byte {
	b := c.guest.Bytes(at, n)
	c.guest.Charge(int64(len(b)))
	return b
}

func (c caller) text(at, n uint64) string { return string(c.bytes(at, n)) }

func (c caller) put32(at uint64, v uint32) { binary.LittleEndian.PutUint32(c.guest.Bytes(at, 4), v) }

func (c caller) put64(at, v uint64) { binary.LittleEndian.PutUint64(c.guest.Bytes(at, 8), v) }

// give hands bytes to the guest, in memory that it gives for them, and writes where they are and how many.
func (c caller) give(b []byte, at, n uint64) uint64 {
	address := uint64(0)
	if len(b) > 0 {
		if c.allocating {
			c.guest.Abort(host.Trap, "its allocator asks the host for what needs memory")
		}
		c.guest.Charge(int64(len(b)))
		c.allocating = true
		got, err := c.guest.Nest(c.plugin.allocate, uint64(len(b)))
		c.allocating = false
		if err != nil {
			c.guest.Rethrow(err)
		}
		address = uint64(uint32(got))
		if address == 0 {
			c.guest.Abort(host.BadPointer, fmt.Sprintf("it gives no memory for %d bytes", len(b)))
		}
		copy(c.guest.Bytes(address, uint64(len(b))), b)
	}
	c.put32(at, uint32(address))
	c.put32(n, uint32(len(b)))
	return statusOK
}

// log is proxy_log(level, address, length); levels go from trace to critical.
func (c caller) log(a args) uint64 {
	level := int(min(a[0], 5)) - 1
	b := c.bytes(a[1], a[2])
	c.guest.Charge(1000)
	if c.plugin.source.Log {
		c.guest.Log(level, b)
	}
	if c.context == rootContext && level >= 1 {
		c.said = string(b[:min(len(b), 300)])
	}
	return statusOK
}

// level is the least that is logged: what is said below it would be for nothing.
func (c caller) level() uint32 {
	if c.plugin.source.Log && c.plugin.module.Verbose() {
		return levelDebug
	}
	return levelInfo
}

func (c caller) logLevel(a args) uint64 {
	c.put32(a[0], c.level())
	return statusOK
}

func (c caller) now(a args) uint64 {
	c.put64(a[0], uint64(c.guest.Now().UnixNano()))
	return statusOK
}

// tick lets a plugin have no timer: between the calls of a stream nothing of it runs.
func (c caller) tick(a args) uint64 {
	if a[0] == 0 {
		return statusOK
	}
	return statusUnimplemented
}

func (c caller) resume(a args) uint64 {
	if a[0] > streamTypeResponse {
		return statusBadArgument
	}
	c.resumed[a[0]] = true
	return statusOK
}

// setContext takes a context for the current one. There are two; what concerns the exchange is the same in both, so that nothing is to be done.
func (c caller) setContext(a args) uint64 {
	if a[0] != rootContext && a[0] != streamContext {
		return statusBadArgument
	}
	return statusOK
}

func (caller) done(args) uint64 { return statusOK }

// status says what became of a gRPC call; there are none.
func (c caller) status(a args) uint64 {
	c.put32(a[0], 0)
	return c.give(nil, a[1], a[2])
}

// foreign is proxy_call_foreign_function(name, its length, argument, its length, result, its length).
func (c caller) foreign(a args) uint64 {
	if c.text(a[0], a[1]) != "get_log_level" {
		return statusNotFound
	}
	return c.give([]byte{byte(c.level()), 0, 0, 0}, a[4], a[5])
}
