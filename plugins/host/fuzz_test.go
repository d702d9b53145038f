// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"testing"

	"github.com/weir-proxy/weir/plugins/abi"
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// FuzzAnswer has a guest answer with the bytes and the pointer that the fuzzer makes up: the host takes a verdict that keeps the rules or reports a failure of the
// plugin, and the next call is as good as new.
func FuzzAnswer(f *testing.F) {
	m := builder(nil)
	// The pointer is the end of the input, which is the end of the body.
	last := Code{0x29, 0, 0}
	hook(m, exportRequest, nil, Get(0), Get(1), Add(), I32Const(8), Sub(), last)
	hook(m, exportEvent, nil, goOn())
	p := load(f, newHost(f, Options{}), m.Bytes())
	pointer := func(b []byte, at, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, at<<32|n) }
	f.Add(pointer(denial(), inputAt+8+29, uint64(len(denial()))), int64(7))
	f.Add(pointer(nil, 0, 1<<31), int64(7))
	f.Add(pointer(nil, 1<<32-1, 1), int64(8))
	tenant := int64(0)
	f.Fuzz(func(t *testing.T, body []byte, _ int64) {
		if len(body) < 8 || len(body) > 1<<16 {
			return
		}
		tenant++ // of its own, so that the plugin is not left alone
		x := &abi.Exchange{Caller: abi.Caller{Tenant: tenant}, Body: body, Messages: []abi.Message{{Texts: []abi.Text{{ID: 3, Text: "hällo"}}}}}
		r := p.Request(t.Context(), x, Closed)
		switch {
		case r.Failure != nil && r.Failure.Reason != BadPointer && r.Failure.Reason != BadAnswer:
			t.Fatalf("the failure is %v", r.Failure)
		case r.Failure != nil && (r.Verdict.Action != abi.Deny || r.Verdict.Denial.Code != "plugin_failed"):
			t.Fatalf("a failure leads to %+v", r.Verdict)
		case r.Failure == nil:
			if err := r.Verdict.CheckRequest(x); err != nil {
				t.Fatalf("a verdict was taken although %v", err)
			}
		}
		if r := p.Event(t.Context(), &abi.Event{Caller: abi.Caller{Tenant: tenant}}, Closed); r.Failure != nil {
			t.Fatalf("the next call: %v", r.Failure)
		}
	})
}
