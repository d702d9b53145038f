// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"math/rand/v2"

	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// generator makes up programs that are valid, end by themselves, and use every kind of instruction that the meter touches.
type generator struct {
	*rand.Rand
	funcs  []signatureOf // that may be called: those that are there, and the one in the making
	locals []byte        // of the function in the making
	depth  int
	labels []bool // open blocks; true for a loop, to which nothing branches by chance
	types  []int
}

type signatureOf struct {
	index           int
	params, results Types
}

var numbers = []byte{I32, I64, F32, F64}

// Globals of every program: one of each number, a count of rounds that are left, and what makes the exports.
const globalRounds = 4

const memoryPages = 3

// program returns a module with some functions, each of which may call those before it and, now and then, itself.
func program(r *rand.Rand) []byte {
	m := NewBuilder()
	m.Memory(memoryPages, memoryPages+2)
	m.Table(FuncRef, 8, 20)
	m.Data(100, []byte("some bytes to begin with"))
	m.Passive([]byte("passive bytes, for memory.init"))
	for i, t := range numbers {
		m.Export(fmt.Sprintf("g%d", i), 3, m.Global(t, true, constantOf(r, t)))
	}
	m.Export("g4", 3, m.Global(I32, true, I32Const(1000)))
	g := &generator{Rand: r}
	for i := range 1 + r.IntN(5) {
		f := signatureOf{i, g.list(4), g.list(3)}
		g.funcs = append(g.funcs, f)
		g.types = append(g.types, m.Type(f.params, f.results))
		g.locals = append(append(append([]byte{}, f.params...), numbers...), I32, I32)
		g.labels, g.depth = []bool{false}, 0
		body := Seq(g.tick(), g.statements(6), g.values(f.results))
		m.Func(fmt.Sprintf("f%d", i), f.params, f.results, g.locals[len(f.params):], body)
	}
	var indices []int
	for _, f := range g.funcs {
		indices = append(indices, f.index)
	}
	m.Elem(0, indices...)
	m.Declare(indices...)
	if r.IntN(3) == 0 {
		m.Start(m.Func("", nil, nil, nil, I32Const(200), I32Const(77), Op(0x3a, 0, 0)))
	}
	return m.Bytes()
}

func (g *generator) list(n int) Types {
	t := make(Types, g.IntN(n))
	for i := range t {
		t[i] = numbers[g.IntN(len(numbers))]
	}
	return t
}

func constantOf(r *rand.Rand, t byte) Code {
	switch t {
	case I32:
		return I32Const(int32(r.Uint32()) >> r.IntN(32))
	case I64:
		return I64Const(int64(r.Uint64()) >> r.IntN(64))
	case F32:
		return Op(0x43, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 0x40)
	}
	return Op(0x44, byte(r.Uint32()), 0, 0, 0, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 0x40)
}

// tick traps when the program has done enough.
func (g *generator) tick() Code {
	return Seq(GlobalGet(globalRounds), I32Const(1), Sub(), GlobalSet(globalRounds), GlobalGet(globalRounds), I32Const(1), Op(0x48), If(Unreachable()))
}

func (g *generator) values(t Types) Code {
	var c Code
	for _, v := range t {
		c = Seq(c, g.value(v))
	}
	return c
}

// within counts how deep things are nested.
func (g *generator) within(f func() Code) Code {
	g.depth++
	defer func() { g.depth-- }()
	return f()
}

// pick returns a local of a type; there is at least one of each.
func (g *generator) pick(t byte) int {
	for {
		if i := g.IntN(len(g.locals) - 2); g.locals[i] == t {
			return i
		}
	}
}

// value makes an expression of a type.
func (g *generator) value(t byte) Code {
	if g.depth > 4 {
		return Get(g.pick(t))
	}
	return g.within(func() Code {
		switch g.IntN(10) {
		case 0, 1:
			return constantOf(g.Rand, t)
		case 2, 3:
			return Get(g.pick(t))
		case 4:
			return GlobalGet(int(numbersAt(t)))
		case 5: // an if with a result
			return Seq(g.value(I32), Op(0x04, t), g.nested(func() Code { return g.value(t) }), Op(0x05), g.nested(func() Code { return g.value(t) }), Op(0x0b))
		case 6: // a block that may be left early with its result
			return Seq(Op(0x02, t), g.nested(func() Code { return Seq(g.value(t), g.value(I32), BrIf(0), Drop(), g.value(t)) }), Op(0x0b))
		case 7:
			return Seq(g.value(t), g.value(t), g.value(I32), Op(0x1b)) // select
		}
		return g.operation(t)
	})
}

func numbersAt(t byte) byte { return I32 - t }

func (g *generator) nested(f func() Code) Code {
	g.labels = append(g.labels, true) // the block has a result: no statement may branch to it
	defer func() { g.labels = g.labels[:len(g.labels)-1] }()
	return f()
}

func (g *generator) oneOf(b ...byte) byte { return b[g.IntN(len(b))] }

// address makes an expression of an address that is mostly in the memory.
func (g *generator) address() Code {
	if g.IntN(50) == 0 {
		return g.value(I32)
	}
	return Seq(g.value(I32), I32Const(0x1ffff), Op(0x71))
}

func (g *generator) operation(t byte) Code {
	switch t {
	case I32:
		switch g.IntN(7) {
		case 0:
			return Seq(g.address(), Op(g.oneOf(0x28, 0x2c, 0x2d, 0x2e, 0x2f), 0, 3))
		case 1:
			return Seq(g.value(I64), g.value(I64), Op(g.oneOf(0x51, 0x52, 0x53, 0x56)))
		case 2:
			return Seq(g.value(F64), Op(0xfc, g.oneOf(2, 3)))
		case 3:
			return Seq(g.value(I32), Op(g.oneOf(0x67, 0x68, 0x69, 0xc0, 0xc1)))
		case 4:
			return Op(0x3f, 0)
		case 5: // v128.load, i8x16.splat, a comparison, and any_true or bitmask: how the SDK for Rust looks for words
			return Seq(g.address(), Op(0xfd, 0, 0, byte(g.IntN(16))), g.value(I32), Op(0xfd, 15), Op(0xfd, g.oneOf(35, 36, 38, 44)), Op(0xfd, g.oneOf(0x53, 0x64)))
		}
		return Seq(g.value(I32), g.value(I32), Op(g.oneOf(0x6a, 0x6b, 0x6c, 0x6d, 0x70, 0x71, 0x73, 0x74, 0x76, 0x77, 0x49, 0x4a)))
	case I64:
		switch g.IntN(4) {
		case 0:
			return Seq(g.address(), Op(g.oneOf(0x29, 0x30, 0x35), 0, 9))
		case 1:
			return Seq(g.value(I32), Op(g.oneOf(0xac, 0xad)))
		case 2:
			return Seq(g.value(I64), Op(0xfd, 18), g.value(I64), Op(0xfd, 30, 1), g.value(I64), Op(0xfd, 18), Op(0xfd, 0xce, 1), Op(0xfd, 29, byte(g.IntN(2))))
		}
		return Seq(g.value(I64), g.value(I64), Op(g.oneOf(0x7c, 0x7d, 0x7e, 0x80, 0x82, 0x83, 0x85, 0x86, 0x88, 0x89)))
	case F32:
		// Of numbers that are not numbers the bits are not defined, so they are not looked at closer than by a comparison.
		return Seq(g.value(I32), Op(g.oneOf(0xb2, 0xb3)), constantOf(g.Rand, F32), Op(g.oneOf(0x92, 0x93, 0x94)))
	}
	return Seq(g.value(I64), Op(g.oneOf(0xb9, 0xba)), constantOf(g.Rand, F64), Op(g.oneOf(0xa0, 0xa1, 0xa2, 0xa3)))
}
