// SPDX-License-Identifier: Apache-2.0

// Package wasmtest assembles small WebAssembly modules for tests, so that a test of a hostile guest needs no compiler, and shows
// every instruction that it is about.
//
//	m := wasmtest.NewBuilder()
//	m.Memory(1, 1)
//	m.Func("spin", nil, nil, nil, wasmtest.Loop(wasmtest.Br(0)))
//	wasm := m.Bytes()
package wasmtest

import "slices"

// Value types.
const (
	I32       = 0x7f
	I64       = 0x7e
	F32       = 0x7d
	F64       = 0x7c
	V128      = 0x7b
	FuncRef   = 0x70
	ExternRef = 0x6f
)

// Types is a list of value types.
type Types = []byte

// Code is a run of instructions.
type Code []byte

// Builder is a module in the making. Functions are numbered in the order in which they were added, imports first.
type Builder struct {
	types   [][]byte
	imports [][]byte
	funcs   [][]byte
	tables  [][]byte
	memory  []byte
	globals [][]byte
	exports [][]byte
	start   []byte
	elems   [][]byte
	codes   [][]byte
	data    [][]byte
	counted bool
	custom  []byte
}

// NewBuilder returns an empty module.
func NewBuilder() *Builder { return &Builder{} }

// Type returns the index of a function type.
func (m *Builder) Type(params, results Types) int {
	t := Bytes(Bytes([]byte{0x60}, params), results)
	for i, have := range m.types {
		if slices.Equal(have, t) {
			return i
		}
	}
	m.types = append(m.types, t)
	return len(m.types) - 1
}

// Import adds an imported function. All imports come before the first [Builder.Func].
func (m *Builder) Import(module, name string, params, results Types) int {
	if len(m.funcs) > 0 {
		panic("wasmtest: an import after a function")
	}
	b := Bytes(Bytes(nil, []byte(module)), []byte(name))
	m.imports = append(m.imports, U32(append(b, 0), m.Type(params, results)))
	return len(m.imports) - 1
}

// Func adds a function, exported if it has a name, and returns its index. Its locals come behind its parameters. The end is added.
func (m *Builder) Func(name string, params, results, locals Types, code ...Code) int {
	i := len(m.imports) + len(m.funcs)
	m.funcs = append(m.funcs, U32(nil, m.Type(params, results)))
	b := U32(nil, len(locals))
	for _, l := range locals {
		b = append(b, 1, l)
	}
	m.codes = append(m.codes, append(append(b, Seq(code...)...), 0x0b))
	if name != "" {
		m.Export(name, 0, i)
	}
	return i
}

// Export exports a function (0), table (1), memory (2) or global (3).
func (m *Builder) Export(name string, kind byte, index int) {
	m.exports = append(m.exports, U32(append(Bytes(nil, []byte(name)), kind), index))
}

// Memory gives the module a memory, exported as "memory", of pages of 64 KiB. A high below zero means no maximum.
func (m *Builder) Memory(low, high int) {
	m.memory = bounds(nil, low, high)
	m.Export("memory", 2, 0)
}

// Table adds a table of references.
func (m *Builder) Table(reference byte, low, high int) int {
	m.tables = append(m.tables, bounds([]byte{reference}, low, high))
	return len(m.tables) - 1
}

func bounds(b []byte, low, high int) []byte {
	if high < 0 {
		return U32(append(b, 0), low)
	}
	return U32(U32(append(b, 1), low), high)
}

// Global adds a global; init is one instruction.
func (m *Builder) Global(valueType byte, mutable bool, init Code) int {
	b := []byte{valueType, 0}
	if mutable {
		b[1] = 1
	}
	m.globals = append(m.globals, append(append(b, init...), 0x0b))
	return len(m.globals) - 1
}

// Elem fills table 0 from a place on.
func (m *Builder) Elem(at int, funcs ...int) {
	b := append(append([]byte{0}, I32Const(int32(at))...), 0x0b)
	b = U32(b, len(funcs))
	for _, f := range funcs {
		b = U32(b, f)
	}
	m.elems = append(m.elems, b)
}

// Declare adds a passive element segment, which may be used by table.init and lets code refer to the functions.
func (m *Builder) Declare(funcs ...int) int {
	b := U32([]byte{1, 0}, len(funcs))
	for _, f := range funcs {
		b = U32(b, f)
	}
	m.elems = append(m.elems, b)
	return len(m.elems) - 1
}

// Data fills the memory from a place on.
func (m *Builder) Data(at int, data []byte) {
	b := append(append([]byte{0}, I32Const(int32(at))...), 0x0b)
	m.data = append(m.data, Bytes(b, data))
}

// Passive adds a passive data segment.
func (m *Builder) Passive(data []byte) int {
	m.data = append(m.data, Bytes([]byte{1}, data))
	m.counted = true
	return len(m.data) - 1
}

// Start sets the start function.
func (m *Builder) Start(f int) { m.start = U32(nil, f) }

// Custom adds a custom section.
func (m *Builder) Custom(name string, data []byte) {
	m.custom = append(m.custom, 0)
	m.custom = Bytes(m.custom, append(Bytes(nil, []byte(name)), data...))
}

// Bytes returns the binary.
func (m *Builder) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	list := func(id byte, items [][]byte) {
		if len(items) > 0 {
			out = Bytes(append(out, id), append(U32(nil, len(items)), slices.Concat(items...)...))
		}
	}
	list(1, m.types)
	list(2, m.imports)
	list(3, m.funcs)
	list(4, m.tables)
	if m.memory != nil {
		list(5, [][]byte{m.memory})
	}
	list(6, m.globals)
	list(7, m.exports)
	if m.start != nil {
		out = Bytes(append(out, 8), m.start)
	}
	list(9, m.elems)
	if m.counted {
		out = Bytes(append(out, 12), U32(nil, len(m.data)))
	}
	var codes [][]byte
	for _, c := range m.codes {
		codes = append(codes, Bytes(nil, c))
	}
	list(10, codes)
	list(11, m.data)
	return append(out, m.custom...)
}

// U32 appends a number in LEB128.
func U32(b []byte, n int) []byte {
	v := uint32(n)
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// Bytes appends a length and so many bytes.
func Bytes(b, data []byte) []byte { return append(U32(b, len(data)), data...) }

// Signed appends a signed number in LEB128.
func Signed(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
