// SPDX-License-Identifier: Apache-2.0

package meter

import (
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

func (g *generator) statements(n int) Code {
	var c Code
	for range 1 + g.IntN(n) {
		c = Seq(c, g.statement())
	}
	return c
}

// body opens a label around statements.
func (g *generator) body(loop bool, n int) Code {
	g.labels = append(g.labels, loop)
	defer func() { g.labels = g.labels[:len(g.labels)-1] }()
	return g.within(func() Code { return g.statements(n) })
}

// statement makes code that leaves the stack as it was.
func (g *generator) statement() Code {
	if g.depth > 4 {
		return Seq(g.value(I32), Set(g.pick(I32)))
	}
	t := numbers[g.IntN(len(numbers))]
	switch g.IntN(16) {
	case 0:
		return Block(g.body(false, 4))
	case 1:
		return Seq(g.value(I32), If(g.body(false, 3)))
	case 2:
		return Seq(g.value(I32), Op(0x04, 0x40), g.body(false, 3), Op(0x05), g.body(false, 3), Op(0x0b))
	case 3, 4: // a loop of some rounds, counted by a local that nothing else sets
		count := len(g.locals) - 2 + g.IntN(2)
		return Seq(I32Const(int32(g.IntN(20))), Set(count),
			Loop(g.tick(), g.body(true, 3), Get(count), I32Const(1), Sub(), Tee(count), I32Const(0), Op(0x4a), BrIf(0)))
	case 5:
		return g.branch()
	case 6:
		return g.invoke()
	case 7:
		return g.bulk()
	case 8:
		return Seq(g.address(), g.value(I32), Op(g.oneOf(0x36, 0x3a, 0x3b), 0, 1))
	case 9:
		return Seq(g.address(), g.value(I64), Op(0x37, 0, 5))
	case 10:
		return Seq(g.value(I32), I32Const(1), Op(0x71), MemoryGrow(), Drop())
	case 11:
		if t == I32 || t == I64 {
			return Seq(g.value(t), GlobalSet(int(numbersAt(t))))
		}
	case 12:
		if g.IntN(10) == 0 {
			return Seq(g.value(I32), If(Unreachable()))
		}
	}
	return Seq(g.value(t), Set(g.pick(t)))
}

// branch leaves a block, if a number says so.
func (g *generator) branch() Code {
	for range 5 {
		i := 1 + g.IntN(len(g.labels))
		if i == len(g.labels) { // the function itself: return, with results
			return Seq(g.value(I32), If(g.values(g.funcs[len(g.funcs)-1].results), g.leave(len(g.labels))))
		}
		if !g.labels[len(g.labels)-i] {
			switch g.IntN(3) {
			case 0:
				return Seq(g.value(I32), If(Br(i)))
			case 1:
				return Seq(g.value(I32), BrIf(i-1))
			}
			return Seq(g.value(I32), If(g.value(I32), Op(0x0e, 2, byte(i), byte(i), byte(i))))
		}
	}
	return nil
}

// leave returns, by one of two ways.
func (g *generator) leave(label int) Code {
	if g.IntN(2) == 0 {
		return Return()
	}
	return Br(label)
}

// invoke calls a function, directly or by the table, and drops what it returns.
func (g *generator) invoke() Code {
	f := g.funcs[g.IntN(len(g.funcs))]
	c := Seq(g.values(f.params), Call(f.index))
	if g.IntN(3) == 0 {
		c = Seq(g.values(f.params), I32Const(int32(f.index)), U32(U32([]byte{0x11}, g.types[f.index]), 0))
	}
	for range f.results {
		c = Seq(c, Drop())
	}
	return c
}

// bulk is an instruction that works on a length.
func (g *generator) bulk() Code {
	length := Seq(g.value(I32), I32Const(0x1ffff), Op(0x71))
	switch g.IntN(9) {
	case 0, 1:
		return Seq(g.address(), g.address(), length, MemoryCopy())
	case 2:
		return Seq(g.address(), g.value(I32), length, MemoryFill())
	case 3:
		return Seq(g.address(), I32Const(3), g.value(I32), I32Const(31), Op(0x71), Op(0xfc, 8, 0, 0))
	case 4:
		return Seq(I32Const(5), I32Const(0), g.value(I32), I32Const(3), Op(0x71), Op(0xfc, 12, 1, 0))
	case 5:
		return Seq(I32Const(5), I32Const(0), g.value(I32), I32Const(7), Op(0x71), Op(0xfc, 14, 0, 0))
	case 6:
		return Seq(Op(0xd0, FuncRef), g.value(I32), I32Const(3), Op(0x71), Op(0xfc, 15, 0), Drop())
	case 7:
		return Seq(I32Const(7), Op(0xd0, FuncRef), I32Const(1), Op(0xfc, 17, 0))
	}
	return Seq(Op(0xfc, 16, 0), Set(g.pick(I32)))
}
