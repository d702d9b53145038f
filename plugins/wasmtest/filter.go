// SPDX-License-Identifier: Apache-2.0

package wasmtest

import (
	"encoding/binary"
	"slices"
)

// Filter is a plugin that speaks proxy-wasm 0.2.1 and treats every exchange alike.
type Filter struct {
	Header   string // the value of x-filter that it sends to the provider; empty: none
	Copy     string // instead: the header whose value x-filter gets
	Body     string // in the place of each request's body; empty: as it came
	Tail     string // behind each response; not empty: it has a hook for responses
	Upstream string // it asks this one, GET /judge, and lets only those requests through for which the answer is 200; else it answers 403 "judged"
	Metric   string // a counter that each request adds one to; empty: none
	Traps    bool   // requests end in a trap
	Picky    bool   // it refuses an empty configuration, with the words "an empty configuration"
	Schema   string // custom section weir.schema
}

// filterBuilder is a filter in the making.
type filterBuilder struct {
	*Builder
	imports map[string]int
	texts   int // where the next text goes
}

// Where a filter keeps things in its memory.
const (
	filterOut   = 16
	filterTexts = 1024
	filterHeap  = 1 << 16
)

// What a filter names by numbers: https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#types.
const (
	filterRequestHeaders = 0
	filterCallHeaders    = 6
	filterRequestBody    = 0
	filterResponseBody   = 1
	filterLogWarn        = 3
)

// Wasm returns the module.
func (f Filter) Wasm() []byte {
	b := &filterBuilder{Builder: NewBuilder(), imports: map[string]int{}, texts: filterTexts}
	five := Types{I32, I32, I32, I32, I32}
	for name, params := range map[string]Types{
		"proxy_log": five[:3], "proxy_replace_header_map_value": five, "proxy_get_header_map_value": five, "proxy_set_buffer_bytes": five,
		"proxy_http_call": slices.Concat(five, five), "proxy_continue_stream": five[:1], "proxy_send_local_response": slices.Concat(five, five[:3]),
	} {
		b.imports[name] = b.Import("env", name, params, Types{I32})
	}
	if f.Metric != "" {
		b.imports["proxy_define_metric"] = b.Import("env", "proxy_define_metric", five[:4], Types{I32})
		b.imports["proxy_increment_metric"] = b.Import("env", "proxy_increment_metric", Types{I32, I64}, Types{I32})
	}
	b.Memory(4, 64)
	top := b.Global(I32, true, I32Const(filterHeap))
	b.Func("proxy_abi_version_0_2_1", nil, nil, nil)
	b.Func("proxy_on_memory_allocate", Types{I32}, Types{I32}, nil, GlobalGet(top), GlobalGet(top), Get(0), Add(), GlobalSet(top))
	if f.Picky {
		b.Func("proxy_on_configure", Types{I32, I32}, Types{I32}, nil,
			If0(Get(1), b.call("proxy_log", I32Const(filterLogWarn), b.text("an empty configuration"))), Get(1))
	}
	f.requests(b)
	if f.Tail != "" {
		b.Func("proxy_on_response_body", Types{I32, I32, I32}, Types{I32}, nil,
			Get(2), If(b.call("proxy_set_buffer_bytes", I32Const(filterResponseBody), Get(1), I32Const(0), b.text(f.Tail))), I32Const(0))
	}
	if f.Schema != "" {
		b.Custom("weir.schema", []byte(f.Schema))
	}
	return b.Bytes()
}

// requests adds the hooks for requests.
func (f Filter) requests(b *filterBuilder) {
	var head, body Code
	action := I32Const(0)
	switch {
	case f.Traps:
		head = Unreachable()
	case f.Upstream != "":
		head = Seq(b.text(f.Upstream), b.text(pairs(":method", "GET", ":path", "/judge", ":authority", "judge")),
			I32Const(0), I32Const(0), I32Const(0), I32Const(0), I32Const(2000), I32Const(filterOut), Call(b.imports["proxy_http_call"]),
			If(b.refuse())) // if it cannot even be called
		action = I32Const(1)
	}
	if f.Header != "" {
		head = Seq(b.call("proxy_replace_header_map_value", I32Const(filterRequestHeaders), b.text("x-filter"), b.text(f.Header)), head)
	}
	if f.Copy != "" {
		head = Seq(b.call("proxy_get_header_map_value", I32Const(filterRequestHeaders), b.text(f.Copy), I32Const(filterOut), I32Const(filterOut+4)),
			b.call("proxy_replace_header_map_value", I32Const(filterRequestHeaders), b.text("x-filter"),
				I32Const(filterOut), I32Load(), I32Const(filterOut+4), I32Load()), head)
	}
	if f.Metric != "" {
		head = Seq(b.call("proxy_define_metric", I32Const(0), b.text(f.Metric), I32Const(filterOut)),
			b.call("proxy_increment_metric", I32Const(filterOut), I32Load(), I64Const(1)), head)
	}
	if f.Body != "" {
		body = b.call("proxy_set_buffer_bytes", I32Const(filterRequestBody), I32Const(0), Get(1), b.text(f.Body))
	}
	hook := Types{I32, I32, I32}
	b.Func("proxy_on_request_headers", hook, Types{I32}, nil, head, action)
	b.Func("proxy_on_request_body", hook, Types{I32}, nil, body, I32Const(0))
	if f.Upstream == "" {
		return
	}
	b.Func("proxy_on_http_call_response", Types{I32, I32, I32, I32, I32}, nil, nil,
		If0(Get(2), b.refuse(), Return()), // there was no answer
		b.call("proxy_get_header_map_value", I32Const(filterCallHeaders), b.text(":status"), I32Const(filterOut), I32Const(filterOut+4)),
		I32Const(filterOut), I32Load(), I32Load(), I32Const(0xffffff), Op(0x71), // i32.and
		I32Const(0x303032), Op(0x47), // i32.ne of "200"
		If(b.refuse(), Return()),
		b.call("proxy_continue_stream", I32Const(0)))
}

// refuse answers 403.
func (b *filterBuilder) refuse() Code {
	return b.call("proxy_send_local_response", I32Const(403), I32Const(0), I32Const(0), b.text("judged"), I32Const(0), I32Const(0), I32Const(-1))
}

// text puts a text into memory and returns the instructions for its address and length.
func (b *filterBuilder) text(s string) Code {
	at := b.texts
	b.Data(at, []byte(s))
	b.texts += len(s) + 1
	return Seq(I32Const(int32(at)), I32Const(int32(len(s))))
}

// call calls a function and drops its status.
func (b *filterBuilder) call(name string, args ...Code) Code {
	return Seq(Seq(args...), Call(b.imports[name]), Drop())
}

// pairs encodes headers, names and values in turn.
func pairs(all ...string) string {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(all)/2))
	for _, s := range all {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
	}
	for _, s := range all {
		out = append(append(out, s...), 0)
	}
	return string(out)
}
