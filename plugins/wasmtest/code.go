// SPDX-License-Identifier: Apache-2.0

package wasmtest

import "slices"

// Op is an instruction whose bytes are given: https://webassembly.github.io/spec/core/binary/instructions.html.
func Op(b ...byte) Code { return b }

// Seq is one instruction after another.
func Seq(code ...Code) Code {
	all := make([][]byte, len(code))
	for i, c := range code {
		all[i] = c
	}
	return slices.Concat(all...)
}

func block(opcode byte, code []Code) Code {
	return append(append(Code{opcode, 0x40}, Seq(code...)...), 0x0b)
}

// Block is a block without results; a branch to it leaves it.
func Block(code ...Code) Code { return block(0x02, code) }

// Loop is a loop without results; a branch to it begins it anew.
func Loop(code ...Code) Code { return block(0x03, code) }

// If does code if the number on the stack is not zero.
func If(code ...Code) Code { return block(0x04, code) }

// Br branches to the label that so many blocks are in between.
func Br(label int) Code { return U32([]byte{0x0c}, label) }

// BrIf branches if the number on the stack is not zero.
func BrIf(label int) Code { return U32([]byte{0x0d}, label) }

// Call calls a function.
func Call(f int) Code { return U32([]byte{0x10}, f) }

// Get pushes a local.
func Get(local int) Code { return U32([]byte{0x20}, local) }

// Set pops a local.
func Set(local int) Code { return U32([]byte{0x21}, local) }

// Tee sets a local and leaves the value.
func Tee(local int) Code { return U32([]byte{0x22}, local) }

// GlobalGet pushes a global.
func GlobalGet(global int) Code { return U32([]byte{0x23}, global) }

// GlobalSet pops a global.
func GlobalSet(global int) Code { return U32([]byte{0x24}, global) }

// I32Const pushes a number.
func I32Const(v int32) Code { return Signed([]byte{0x41}, int64(v)) }

// I64Const pushes a number.
func I64Const(v int64) Code { return Signed([]byte{0x42}, v) }

// I32Load pushes the number that is in memory at the address on the stack.
func I32Load() Code { return Code{0x28, 2, 0} }

// I32Store stores a number; the address comes first.
func I32Store() Code { return Code{0x36, 2, 0} }

// MemoryGrow adds pages to the memory.
func MemoryGrow() Code { return Code{0x40, 0} }

// MemoryCopy copies (to, from, length).
func MemoryCopy() Code { return Code{0xfc, 10, 0, 0} }

// MemoryFill fills (to, value, length).
func MemoryFill() Code { return Code{0xfc, 11, 0} }

// Instructions without operands of their own.
func unary(b byte) Code { return Code{b} }

// Unreachable traps.
func Unreachable() Code { return unary(0x00) }

// Return leaves the function.
func Return() Code { return unary(0x0f) }

// Drop drops a value.
func Drop() Code { return unary(0x1a) }

// Add adds two 32-bit numbers.
func Add() Code { return unary(0x6a) }

// Sub subtracts two 32-bit numbers.
func Sub() Code { return unary(0x6b) }

// If0 does code if what condition leaves is zero.
func If0(condition Code, code ...Code) Code {
	return Seq(condition, unary(0x45), If(code...))
}
