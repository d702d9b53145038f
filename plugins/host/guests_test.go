// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"
	"time"

	"github.com/weir-proxy/weir/plugins/abi"
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// Where a test guest keeps things in its memory.
const (
	inputAt  = 8192 // what weir_alloc gives
	answerAt = 1024 // what it answers with
)

// builder begins a plugin whose weir_alloc gives one buffer, with imports that come before it.
func builder(imports func(m *Builder)) *Builder {
	m := NewBuilder()
	if imports != nil {
		imports(m)
	}
	m.Memory(2, -1)
	m.Func(exportVersion, nil, nil, nil)
	m.Func(exportAlloc, Types{I32}, Types{I32}, nil, I32Const(inputAt))
	return m
}

// answering pushes an answer of n bytes at answerAt.
func answering(n int) Code { return I64Const(answerAt<<32 | int64(n)) }

// goOn pushes an empty answer.
func goOn() Code { return I64Const(0) }

// hook adds an export that takes a message.
func hook(m *Builder, name string, locals Types, code ...Code) int {
	return m.Func(name, Types{I32, I32}, Types{I64}, locals, code...)
}

// saying is a plugin that gives the same answer to every request and event.
func saying(answer []byte) *Builder {
	m := builder(nil)
	m.Data(answerAt, answer)
	hook(m, exportRequest, nil, answering(len(answer)))
	hook(m, exportEvent, nil, answering(len(answer)))
	return m
}

func newHost(t testing.TB, o Options) *Host {
	t.Helper()
	h, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// patient are limits that do not depend on how busy the machine is.
func patient() Limits { return Limits{Time: time.Minute, TimeToStart: time.Minute, Concurrency: 4} }

func load(t testing.TB, h *Host, wasm []byte, change ...func(s *Source)) *Plugin {
	t.Helper()
	s := Source{Name: "test", Wasm: wasm, Limits: patient()}
	for _, c := range change {
		c(&s)
	}
	p, err := h.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func request() *abi.Exchange {
	return &abi.Exchange{
		ID: "x", Caller: abi.Caller{Tenant: 7}, Asked: abi.Asked{Model: "m"}, Channels: []string{"east", "west"},
		Messages: []abi.Message{{Role: "user", Texts: []abi.Text{{ID: 0, Text: "hello"}}}},
	}
}

func event() *abi.Event {
	return &abi.Event{Caller: abi.Caller{Tenant: 7}, Kind: abi.KindText, Text: "hello"}
}
