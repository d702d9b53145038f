// SPDX-License-Identifier: Apache-2.0

package wasmtest

import "encoding/binary"

// Guest is a plugin of weir/1 (plugins/ABI.md) that answers every call alike.
type Guest struct {
	Request []byte // its answer to requests, such as [Denial]; empty: it goes on; nil: it has no such hook
	Event   []byte // the same for parts of responses
	Traps   bool   // both hooks end in a trap instead
	Spins   int32  // both hooks go round a loop so many times first, which uses 7 of fuel each time
	Picky   bool   // it refuses an empty configuration, with the words "an empty configuration"
	Imports []string
	About   string // custom section weir.about
	Schema  string // custom section weir.schema
}

// Where a guest keeps things in its memory.
const (
	guestInput     = 16384
	guestRequest   = 1024
	guestEvent     = 4096
	guestComplaint = 8192
)

// Wasm returns the module. Of [Guest].Imports it knows log and now.
func (g Guest) Wasm() []byte {
	m := NewBuilder()
	for _, name := range g.Imports {
		switch name {
		case "log":
			m.Import("weir", name, Types{I32, I32, I32}, nil)
		case "now":
			m.Import("weir", name, nil, Types{I64})
		default:
			m.Import("weir", name, nil, nil)
		}
	}
	m.Memory(4, -1)
	m.Func("weir_abi_1", nil, nil, nil)
	m.Func("weir_alloc", Types{I32}, Types{I32}, nil, I32Const(guestInput))
	hook := func(name string, at int64, answer []byte) {
		if answer == nil {
			return
		}
		code := I64Const(0)
		switch {
		case g.Traps:
			code = Unreachable()
		case len(answer) > 0:
			m.Data(int(at), answer)
			code = I64Const(at<<32 | int64(len(answer)))
		}
		if g.Spins > 0 {
			code = Seq(Loop(Get(2), I32Const(1), Add(), Tee(2), I32Const(g.Spins), unary(0x48), BrIf(0)), code) // i32.lt_s
		}
		m.Func(name, Types{I32, I32}, Types{I64}, Types{I32}, code)
	}
	hook("weir_request", guestRequest, g.Request)
	hook("weir_event", guestEvent, g.Event)
	if g.Picky {
		const complaint = "an empty configuration"
		m.Data(guestComplaint, []byte(complaint))
		m.Func("weir_configure", Types{I32, I32}, Types{I64}, nil,
			Get(1), If(I64Const(0), Return()), I64Const(guestComplaint<<32|int64(len(complaint))))
	}
	if g.About != "" {
		m.Custom("weir.about", []byte(g.About))
	}
	if g.Schema != "" {
		m.Custom("weir.schema", []byte(g.Schema))
	}
	return m.Bytes()
}

// Field appends a field of a message of weir/1.
func Field(b []byte, tag uint32, value []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}

// Number is the value of a field that is a number.
func Number(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

// Denial is a verdict that denies.
func Denial(status int64, code, message string) []byte {
	d := Field(Field(Field(nil, 1, Number(status)), 2, []byte(code)), 3, []byte(message))
	return Field(Field(nil, 1, Number(1)), 2, d)
}

// TagVerdict is a verdict that goes on with a tag for the row.
func TagVerdict(name, value string) []byte {
	return Field(nil, 8, Field(Field(nil, 1, []byte(name)), 2, []byte(value)))
}

// EditVerdict is a verdict that replaces bytes of a text.
func EditVerdict(text, start, end int64, with string) []byte {
	e := Field(Field(Field(nil, 1, Number(text)), 2, Number(start)), 3, Number(end))
	return Field(nil, 3, Field(e, 4, []byte(with)))
}
