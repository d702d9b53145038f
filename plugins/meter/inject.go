// SPDX-License-Identifier: Apache-2.0

package meter

import "fmt"

// piece is how many bytes memory.copy and memory.fill handle between two looks at the fuel.
const piece = 1 << 16

// injected are the functions and types that the meter adds to a module.
type injected struct {
	fuel, stack uint32            // globals
	refuel      uint32            // the import
	slow, deep  uint32            // functions: ask for fuel; the stack is used up
	types       map[string]uint32 // by their encoding
	added       []funcType
	funcs       []uint32 // types of the functions
	codes       [][]byte
	helpers     map[helper]uint32
}

// helper names a function that stands in for a bulk instruction.
type helper struct {
	opcode byte // behind 0xfc; opMemoryGrow for that
	a, b   uint32
}

// begin lays out the indices: types and functions of the meter come behind those of the module, so that only the import moves anything.
func (x *injected) begin(d *decoder) {
	x.fuel, x.stack = uint32(len(d.globals)), uint32(len(d.globals)+1)
	x.refuel = uint32(len(d.imported))
	x.types, x.helpers = map[string]uint32{}, map[helper]uint32{}
	x.slow = x.function(d, funcType{}, func(b []byte, _ uint32) []byte {
		b = appendU32(append(b, opGlobalGet), x.fuel)
		b = appendU32(append(b, opCall), x.refuel)
		return appendU32(append(b, opGlobalSet), x.fuel)
	})
	x.deep = x.function(d, funcType{}, func(b []byte, _ uint32) []byte {
		b = appendSigned(append(b, opI64Const), StackExhausted)
		b = appendU32(append(b, opCall), x.refuel)
		return append(b, opDrop, opUnreachable)
	})
}

// typeOf returns the index of a function type, which it adds if need be.
func (x *injected) typeOf(d *decoder, t funcType) uint32 {
	key := string(t.params) + ">" + string(t.results)
	i, ok := x.types[key]
	if !ok {
		i = uint32(len(d.types) + len(x.added))
		x.types[key] = i
		x.added = append(x.added, t)
	}
	return i
}

// function adds a function; write is given its code so far and a local of type i64 that it may use.
func (x *injected) function(d *decoder, t funcType, write func(b []byte, scratch uint32) []byte) uint32 {
	i := uint32(len(d.imported) + 1 + len(d.funcs) + len(x.funcs))
	x.funcs = append(x.funcs, x.typeOf(d, t))
	x.codes = append(x.codes, nil)
	at := len(x.codes) - 1
	b := write([]byte{1, 1, i64}, uint32(len(t.params)))
	x.codes[at] = append(b, opEnd)
	return i
}

// take writes: fuel -= cost; if check, ask for more when it is below zero.
func (x *injected) take(b []byte, scratch uint32, cost int64, check bool) []byte {
	if cost == 0 && !check {
		return b
	}
	b = appendU32(append(b, opGlobalGet), x.fuel)
	b = appendSigned(append(b, opI64Const), cost)
	b = append(b, opI64Sub)
	return x.settle(b, scratch, check)
}

// settle writes: the balance on the operand stack is the fuel now.
func (x *injected) settle(b []byte, scratch uint32, check bool) []byte {
	if !check {
		return appendU32(append(b, opGlobalSet), x.fuel)
	}
	b = appendU32(append(b, opLocalTee), scratch)
	b = appendU32(append(b, opGlobalSet), x.fuel)
	b = appendU32(append(b, opLocalGet), scratch)
	return x.ifNegative(b, x.slow)
}

func (x *injected) ifNegative(b []byte, call uint32) []byte {
	b = append(b, opI64Const, 0, opI64LtS, opIf, empty)
	b = appendU32(append(b, opCall), call)
	return append(b, opEnd)
}

// push writes: stack -= words; trap if that is below zero.
func (x *injected) push(b []byte, scratch uint32, words int64) []byte {
	b = appendU32(append(b, opGlobalGet), x.stack)
	b = appendSigned(append(b, opI64Const), words)
	b = append(b, opI64Sub)
	b = appendU32(append(b, opLocalTee), scratch)
	b = appendU32(append(b, opGlobalSet), x.stack)
	b = appendU32(append(b, opLocalGet), scratch)
	return x.ifNegative(b, x.deep)
}

// pop writes: stack += words; ask for fuel if there is none.
func (x *injected) pop(b []byte, words int64) []byte {
	b = appendU32(append(b, opGlobalGet), x.stack)
	b = appendSigned(append(b, opI64Const), words)
	b = append(b, opI64Add)
	b = appendU32(append(b, opGlobalSet), x.stack)
	b = appendU32(append(b, opGlobalGet), x.fuel)
	return x.ifNegative(b, x.slow)
}

// resultType writes the type of a block without parameters.
func (d *decoder) resultType(b []byte, results []byte) []byte {
	switch len(results) {
	case 0:
		return append(b, empty)
	case 1:
		return append(b, results[0])
	}
	return appendSigned(b, int64(d.extra.typeOf(d, funcType{results: results})))
}

// obstacle notes why memory and globals are not all of a module's state.
func (d *decoder) obstacle(instruction string) {
	if d.out.Obstacle == "" {
		d.out.Obstacle = fmt.Sprintf("it uses %s, which changes more than memory and globals", instruction)
	}
}
