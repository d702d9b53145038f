// SPDX-License-Identifier: Apache-2.0

package meter

// misc takes over an instruction with the prefix 0xfc. Those that work on a length become calls of functions that charge for it.
func (w *rewriter) misc() {
	i := w.r.u32()
	if i >= uint32(len(misc)) {
		w.r.fail("opcode 0xfc %#x is not of WebAssembly 2.0", i)
		return
	}
	w.charge(misc[i].cost)
	h := helper{opcode: byte(i)}
	switch i {
	case miscMemoryCopy:
		w.zero()
		w.zero()
	case miscMemoryFill:
		w.zero()
	case miscMemoryInit:
		h.a = w.r.u32()
		w.zero()
	case miscTableInit:
		h.a = w.r.u32()
		h.b = w.tableIndex()
	case miscTableCopy:
		h.a = w.tableIndex()
		h.b = w.tableIndex()
	case miscTableGrow, miscTableFill:
		h.a = w.tableIndex()
	default:
		switch i {
		case miscDataDrop:
			w.d.obstacle("data.drop")
		case miscElemDrop:
			w.d.obstacle("elem.drop")
		}
		w.code = appendU32(append(w.code, opMisc), i)
		w.immediates(misc[i].shape, false)
		return
	}
	if w.r.err != nil {
		return
	}
	switch i {
	case miscTableInit:
		w.d.obstacle("table.init")
	case miscTableCopy:
		w.d.obstacle("table.copy")
	case miscTableGrow:
		w.d.obstacle("table.grow")
	case miscTableFill:
		w.d.obstacle("table.fill")
	}
	w.call(w.d.extra.bulk(w.d, h))
}

func (w *rewriter) tableIndex() uint32 {
	i := w.r.u32()
	if int64(i) >= int64(len(w.d.tables)) {
		w.r.fail("there is no table %d", i)
		return 0
	}
	return i
}

// once adds a helper unless it is there.
func (x *injected) once(d *decoder, h helper, t funcType, write func(b []byte, scratch uint32) []byte) uint32 {
	i, ok := x.helpers[h]
	if !ok {
		i = x.function(d, t, write)
		x.helpers[h] = i
	}
	return i
}

// bulk returns the function that does a bulk instruction and charges for its length, which is the last operand.
func (x *injected) bulk(d *decoder, h helper) uint32 {
	t := funcType{params: []byte{i32, i32, i32}}
	shift := int64(shiftSlots)
	code := appendU32([]byte{opMisc}, uint32(h.opcode))
	switch h.opcode {
	case miscMemoryCopy, miscMemoryFill:
		return x.once(d, h, t, func(b []byte, scratch uint32) []byte { return x.pieces(b, scratch, h.opcode) })
	case miscMemoryInit:
		shift = shiftBytes
		code = append(appendU32(code, h.a), 0)
	case miscTableInit, miscTableCopy:
		code = appendU32(appendU32(code, h.a), h.b)
	case miscTableGrow:
		t = funcType{params: []byte{d.tables[h.a].reference, i32}, results: []byte{i32}}
		code = appendU32(code, h.a)
	case miscTableFill:
		t.params = []byte{i32, d.tables[h.a].reference, i32}
		code = appendU32(code, h.a)
	}
	return x.once(d, h, t, func(b []byte, scratch uint32) []byte {
		b = x.byLength(b, scratch, costBulk, shift)
		for i := range t.params {
			b = append(b, opLocalGet, byte(i))
		}
		return append(b, code...)
	})
}

// grow returns the function that does memory.grow and charges for the pages.
func (x *injected) grow(d *decoder) uint32 {
	t := funcType{params: []byte{i32}, results: []byte{i32}}
	return x.once(d, helper{opcode: opMemoryGrow}, t, func(b []byte, scratch uint32) []byte {
		b = appendU32(append(b, opGlobalGet), x.fuel)
		b = append(b, opLocalGet, 0, opI64ExtendU, opI64Const, growShift, opI64Shl)
		b = appendSigned(append(b, opI64Const), costGrow)
		b = append(b, opI64Add, opI64Sub)
		b = x.settle(b, scratch, true)
		b = append(b, opLocalGet, 0, opMemoryGrow, 0)
		return appendU32(append(b, opCall), x.slow) // what the host gives may depend on how much memory there is
	})
}

// byLength writes: fuel -= base + length>>shift, and a check. The length is the parameter before the scratch local.
func (x *injected) byLength(b []byte, scratch uint32, base, shift int64) []byte {
	b = appendU32(append(b, opGlobalGet), x.fuel)
	b = appendU32(append(b, opLocalGet), scratch-1)
	b = append(b, opI64ExtendU)
	b = appendSigned(append(b, opI64Const), shift)
	b = append(b, opI64ShrU)
	b = appendSigned(append(b, opI64Const), base)
	b = append(b, opI64Add, opI64Sub)
	return x.settle(b, scratch, true)
}

// pieces writes memory.copy (to, from, length) or memory.fill (to, value, length):
//
//	fuel -= base
//	if length > piece and all of it is in the memory:
//	    copy, to > from: backwards, piece by piece, for the areas may overlap
//	    otherwise:       forwards, piece by piece
//	fuel -= length>>3; the instruction itself for what is left
//
// What reaches out of the memory is left to the instruction, which traps before it has written anything.
func (x *injected) pieces(b []byte, scratch uint32, opcode byte) []byte {
	const to, from, length = 0, 1, 2
	copying := opcode == miscMemoryCopy
	do := []byte{opMisc, opcode, 0}
	if copying {
		do = append(do, 0)
	}
	size := appendSigned([]byte{opI32Const}, piece)
	longer := append(append([]byte{opLocalGet, length}, size...), opI32GtU)
	round := func(b []byte, body ...byte) []byte {
		b = append(b, opLoop, empty)
		b = x.take(b, scratch, piece>>shiftBytes, true)
		b = append(b, body...)
		b = append(b, longer...)
		return append(b, opBrIf, 0, opEnd)
	}
	change := func(b []byte, local, opcode byte) []byte {
		b = append(append(b, opLocalGet, local), size...)
		return append(b, opcode, opLocalSet, local)
	}

	b = x.take(b, scratch, costBulk, false)
	b = append(append(b, longer...), opIf, empty)
	b = inside(b, to, length)
	if copying {
		b = append(inside(b, from, length), 0x71) // i32.and
	}
	b = append(b, opIf, empty)
	forward := append(append([]byte{opLocalGet, to, opLocalGet, from}, size...), do...)
	forward = change(forward, to, opI32Add)
	if copying {
		backward := change(nil, length, opI32Sub)
		backward = append(backward, opLocalGet, to, opLocalGet, length, opI32Add, opLocalGet, from, opLocalGet, length, opI32Add)
		backward = append(append(backward, size...), do...)
		b = append(b, opLocalGet, to, opLocalGet, from, opI32GtU, opIf, empty)
		b = append(round(b, backward...), opElse)
		forward = change(forward, from, opI32Add)
	}
	b = round(b, change(forward, length, opI32Sub)...)
	if copying {
		b = append(b, opEnd)
	}
	b = append(b, opEnd, opEnd)
	b = x.byLength(b, scratch, 0, shiftBytes)
	b = append(b, opLocalGet, to, opLocalGet, from, opLocalGet, length)
	return append(b, do...)
}

// inside writes: is the area from start, of length, in the memory?
func inside(b []byte, start, length byte) []byte {
	b = append(b, opLocalGet, start, opI64ExtendU, opLocalGet, length, opI64ExtendU, opI64Add)
	b = append(b, opMemorySize, 0, opI64ExtendU, opI64Const, 16, opI64Shl)
	return append(b, opI64GtU, opI32Eqz)
}
