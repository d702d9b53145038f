// SPDX-License-Identifier: Apache-2.0

package meter

// shape says what follows an opcode.
type shape uint8

const (
	unknown   shape = iota
	plain           // nothing
	blockType       // the type of a block
	label           // a label
	labels          // a list of labels, and one more
	function        // the index of a function
	indirect        // a type and a table
	local           // a local
	global          // a global
	table           // a table
	memArg          // alignment and offset
	memIndex        // a zero byte: the memory
	const32         // a signed number of 32 bits
	const64         // a signed number of 64 bits
	bytes4          // 4 bytes
	bytes8          // 8 bytes
	bytes16         // 16 bytes
	types           // a list of value types
	refType         // a reference type
	lane            // a byte
	memLane         // alignment, offset and a byte
	memInit         // a data segment and a zero byte
	segment         // a data or element segment
	memCopy         // two zero bytes
	tableInit       // an element segment and a table
	tableCopy       // two tables
)

// op is an instruction as the meter knows it.
type op struct {
	shape shape
	cost  uint8
}

// Opcodes that the meter does more with than to count them.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32Eqz       = 0x45
	opI32LtU       = 0x49
	opI32GtU       = 0x4b
	opI64LtS       = 0x53
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd

	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17
)

// What instructions cost. The units are arbitrary but for this: 1 is what a simple instruction takes, some 0.3 ns; a load or a store costs more because it may miss every
// cache, a division because it takes as long as ten additions. Structure is free: it is not there in machine code. These numbers are part of weir/1: changing
// one changes what every plugin uses.
const (
	costFree   = 0
	costPlain  = 1
	costMemory = 3
	costDivide = 6
	costBranch = 2 // by a table
	costCall   = 4
	costIndex  = 8   // a call by a table
	costVector = 2   //
	costBulk   = 16  // any bulk instruction, before its length
	costGrow   = 256 // memory.grow, before its length
)

// How much of a length costs 1 more, as a power of two; pages of memory.grow cost 64 each.
const (
	shiftBytes = 3
	shiftSlots = 0
	growShift  = 6
)

// basic are the opcodes of one byte: https://webassembly.github.io/spec/core/binary/instructions.html.
var basic = func() (t [256]op) {
	each := func(from, to int, o op) {
		for i := from; i <= to; i++ {
			t[i] = o
		}
	}
	t[opUnreachable], t[0x01] = op{plain, costPlain}, op{plain, costFree} // nop
	each(opBlock, opIf, op{blockType, costFree})
	t[opIf].cost = costPlain
	t[opElse], t[opEnd] = op{plain, costFree}, op{plain, costFree}
	t[opBr], t[opBrIf] = op{label, costPlain}, op{label, costPlain}
	t[0x0e] = op{labels, costBranch}
	t[opReturn] = op{plain, costPlain}
	t[opCall], t[opCallIndirect] = op{function, costCall}, op{indirect, costIndex}
	t[opDrop], t[0x1b], t[0x1c] = op{plain, costPlain}, op{plain, costPlain}, op{types, costPlain} // drop, select, select t
	each(opLocalGet, opLocalTee, op{local, costPlain})
	each(opGlobalGet, opGlobalSet, op{global, costPlain})
	t[0x25], t[opTableSet] = op{table, costMemory}, op{table, costMemory}
	each(0x28, 0x3e, op{memArg, costMemory})
	t[opMemorySize], t[opMemoryGrow] = op{memIndex, costPlain}, op{memIndex, costPlain}
	t[opI32Const], t[opI64Const], t[0x43], t[0x44] = op{const32, costPlain}, op{const64, costPlain}, op{bytes4, costPlain}, op{bytes8, costPlain}
	each(0x45, 0xc4, op{plain, costPlain})
	each(0x6d, 0x70, op{plain, costDivide}) // i32
	each(0x7f, 0x82, op{plain, costDivide}) // i64
	for _, i := range []int{0x91, 0x95, 0x9f, 0xa3} {
		t[i].cost = costDivide // square roots, divisions of floating point numbers
	}
	t[opRefNull], t[0xd1], t[opRefFunc] = op{refType, costPlain}, op{plain, costPlain}, op{function, costPlain}
	return t
}()

// misc are the opcodes behind the prefix 0xfc.
var misc = func() (t [18]op) {
	for i := range 8 {
		t[i] = op{plain, costPlain} // saturating truncation
	}
	t[miscMemoryInit], t[miscDataDrop] = op{memInit, costPlain}, op{segment, costPlain}
	t[miscMemoryCopy], t[miscMemoryFill] = op{memCopy, costPlain}, op{memIndex, costPlain}
	t[miscTableInit], t[miscElemDrop], t[miscTableCopy] = op{tableInit, costPlain}, op{segment, costPlain}, op{tableCopy, costPlain}
	t[miscTableGrow], t[miscTableSize], t[miscTableFill] = op{table, costPlain}, op{table, costPlain}, op{table, costPlain}
	return t
}()

// vector are the opcodes behind the prefix 0xfd: https://github.com/WebAssembly/spec/blob/main/proposals/simd/BinarySIMD.md.
var vector = func() (t [256]op) {
	for i := range t {
		t[i] = op{plain, costVector}
	}
	for _, i := range []int{
		0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee,
	} {
		t[i] = op{}
	}
	for i := 0x00; i <= 0x0b; i++ {
		t[i] = op{memArg, costMemory}
	}
	t[0x0c], t[0x0d] = op{bytes16, costVector}, op{bytes16, costVector} // v128.const, i8x16.shuffle
	for i := 0x15; i <= 0x22; i++ {
		t[i] = op{lane, costVector}
	}
	for i := 0x54; i <= 0x5b; i++ {
		t[i] = op{memLane, costMemory}
	}
	t[0x5c], t[0x5d] = op{memArg, costMemory}, op{memArg, costMemory}
	for _, i := range []int{0xe3, 0xe7, 0xef, 0xf3} {
		t[i].cost = costDivide
	}
	return t
}()
