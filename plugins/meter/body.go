// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"math"
	"strconv"
)

// Bounds on how much a module does between two looks at its fuel.
const (
	// looseLeaf is the cost up to which a function without calls and loops is not checked at all.
	looseLeaf = 24
	// looseBody is the cost of a whole function above which each of its basic blocks is checked.
	looseBody = 2048
	// looseFrame is the frame, in words, up to which a function without calls does not account for its stack.
	looseFrame = 1024
)

// block is a basic block of a function that is being rewritten.
type block struct {
	at   int // where its charge goes, in the code that was written
	cost int64
	loop bool // it is entered anew in each round
}

// frame is a block, loop or if that is open.
type frame struct {
	opcode   byte
	targeted bool // something branches to its end
}

// rewriter rewrites one function.
type rewriter struct {
	d      *decoder
	r      *reader
	code   []byte // the instructions, without charges
	blocks []block
	frames []frame
	count  int64  // of instructions
	total  int64  // of costs
	locals uint32 // of the function; the one that has this number is the meter's
	calls  bool
	loops  bool
}

// body returns the code of a function with the meters in it.
func (d *decoder) body(src []byte, t funcType) ([]byte, error) {
	r := &reader{b: src}
	locals, words, scratch := d.locals(r, t)
	w := &rewriter{d: d, r: r, locals: scratch, blocks: []block{{}}, frames: []frame{{opcode: opBlock}}}
	for len(w.frames) > 0 && r.err == nil {
		w.step()
	}
	if r.err == nil && !r.done() {
		r.fail("there is code behind its end")
	}
	if r.err != nil {
		return nil, fmt.Errorf("byte %d of the function: %w", r.at, r.err)
	}
	return w.assemble(locals, words, scratch, t), nil
}

// locals reads the declarations, and returns them with one of the meter's own, the words that they take, and the index of that one.
func (d *decoder) locals(r *reader, t funcType) (declared []byte, words int64, scratch uint32) {
	type group struct {
		n uint32
		t byte
	}
	var groups []group
	total := uint64(len(t.params))
	words = int64(len(t.params) + len(t.results))
	for range r.count() {
		g := group{r.u32(), r.valueType()}
		total += uint64(g.n)
		words += int64(g.n) * 2
		groups = append(groups, g)
		if total > uint64(d.limits.Locals) {
			r.fail("it has %d locals, and the limit is %d", total, d.limits.Locals)
			return nil, 0, 0
		}
	}
	declared = appendU32(nil, uint32(len(groups)+1))
	for _, g := range groups {
		declared = append(appendU32(declared, g.n), g.t)
	}
	return append(declared, 1, i64), words, uint32(total)
}

// step takes over one instruction.
func (w *rewriter) step() {
	opcode := w.r.byte()
	switch opcode {
	case opMisc:
		w.misc()
		return
	case opVector:
		w.vector()
		return
	}
	o := basic[opcode]
	if o.shape == unknown {
		w.r.fail("opcode %#x is not of WebAssembly 2.0", opcode)
		return
	}
	w.charge(o.cost)
	switch opcode {
	case opMemoryGrow:
		w.immediates(memIndex, true)
		w.call(w.d.extra.grow(w.d))
		return
	case opReturn: // the function may get a block around it
		w.code = appendU32(append(w.code, opBr), uint32(len(w.frames)-1))
		w.frames[0].targeted = true
		w.begin(false)
		return
	case opCall, opCallIndirect:
		w.calls = true
	case opTableSet:
		w.d.obstacle("table.set")
	}
	w.code = append(w.code, opcode)
	w.immediates(o.shape, false)
	w.control(opcode)
}

// control keeps count of blocks.
func (w *rewriter) control(opcode byte) {
	switch opcode {
	case opBlock:
		w.frames = append(w.frames, frame{opcode: opBlock})
	case opLoop:
		w.loops = true
		w.frames = append(w.frames, frame{opcode: opLoop})
		w.begin(true)
	case opIf:
		w.frames = append(w.frames, frame{opcode: opIf, targeted: true})
		w.begin(false)
	case opElse:
		if w.frames[len(w.frames)-1].opcode != opIf {
			w.r.fail("an else belongs to no if")
			return
		}
		w.begin(false)
	case opEnd:
		f := w.frames[len(w.frames)-1]
		w.frames = w.frames[:len(w.frames)-1]
		if len(w.frames) > 0 && f.opcode != opLoop && f.targeted {
			w.begin(false)
		}
	case opBr, opBrIf, 0x0e, opUnreachable:
		w.begin(false)
	}
}

func (w *rewriter) charge(cost uint8) {
	w.blocks[len(w.blocks)-1].cost += int64(cost)
	w.total += int64(cost)
	w.count++
}

// begin ends the basic block that was open.
func (w *rewriter) begin(loop bool) {
	last := &w.blocks[len(w.blocks)-1]
	if last.cost == 0 && !last.loop && !loop && len(w.blocks) > 1 {
		last.at = len(w.code) // nothing was in it
		return
	}
	w.blocks = append(w.blocks, block{at: len(w.code), loop: loop})
}

func (w *rewriter) call(function uint32) {
	w.calls = true
	w.code = appendU32(append(w.code, opCall), function)
}

// target notes a branch.
func (w *rewriter) target(label uint32) {
	if int64(label) >= int64(len(w.frames)) {
		w.r.fail("there is no label %d", label)
		return
	}
	w.frames[len(w.frames)-1-int(label)].targeted = true
}

func (w *rewriter) zero() {
	if c := w.r.byte(); c != 0 {
		w.r.fail("memory %d; one memory is the limit", c)
	}
}

// immediates takes over what follows an opcode, or reads it and drops it.
func (w *rewriter) immediates(s shape, drop bool) {
	r, b := w.r, w.code
	switch s {
	case plain:
	case blockType:
		b = w.blockType(b)
	case label:
		i := r.u32()
		w.target(i)
		b = appendU32(b, i)
	case labels:
		n := r.count()
		b = appendU32(b, uint32(n))
		for range n + 1 {
			i := r.u32()
			w.target(i)
			b = appendU32(b, i)
		}
	case function:
		b = appendU32(b, w.d.shifted(w.d.function(r)))
	case indirect:
		b = appendU32(b, w.d.typeIndex(r))
		b = appendU32(b, r.u32())
	case local:
		b = appendU32(b, w.own("local", int(w.locals)))
	case global:
		b = appendU32(b, w.own("global", len(w.d.globals)))
	case table, segment:
		b = appendU32(b, r.u32())
	case memArg, memLane:
		align := r.u32()
		if align > 4 {
			r.fail("an alignment of 2^%d, or several memories", align)
		}
		b = appendU32(appendU32(b, align), r.u32())
		if s == memLane {
			b = append(b, r.byte())
		}
	case memIndex:
		w.zero()
		b = append(b, 0)
	default:
		b = w.literal(b, s)
	}
	if !drop {
		w.code = b
	}
}

// literal takes over an operand that refers to nothing.
func (w *rewriter) literal(b []byte, s shape) []byte {
	r := w.r
	switch s {
	case const32:
		return appendSigned(b, r.signed(32))
	case const64:
		return appendSigned(b, r.signed(64))
	case bytes4:
		return append(b, r.take(4)...)
	case bytes8:
		return append(b, r.take(8)...)
	case bytes16:
		return append(b, r.take(16)...)
	case types:
		n := r.count()
		b = appendU32(b, uint32(n))
		for range n {
			b = append(b, r.valueType())
		}
		return b
	case refType:
		return append(b, r.referenceType())
	case lane:
		return append(b, r.byte())
	}
	panic("meter: an opcode has the unknown shape " + strconv.Itoa(int(s)))
}

// own reads an index below n: those from there on are the meter's.
func (w *rewriter) own(what string, n int) uint32 {
	i := w.r.u32()
	if int64(i) >= int64(n) {
		w.r.fail("there is no %s %d", what, i)
	}
	return i
}

func (w *rewriter) blockType(b []byte) []byte {
	r := w.r
	if r.done() {
		r.byte()
		return b
	}
	if c := r.b[r.at]; c == empty || isValueType(c) {
		return append(b, r.byte())
	}
	i := r.signed(33)
	if i < 0 || i >= int64(len(w.d.types)) {
		r.fail("a block has the unknown type %d", i)
		return b
	}
	return appendSigned(b, i)
}

func (w *rewriter) vector() {
	i := w.r.u32()
	if i >= uint32(len(vector)) || vector[i].shape == unknown {
		w.r.fail("opcode 0xfd %#x is not of WebAssembly 2.0", i)
		return
	}
	w.charge(vector[i].cost)
	w.code = appendU32(append(w.code, opVector), i)
	w.immediates(vector[i].shape, false)
}

// frameWords is an upper estimate of the function's frame: the engine gives a slot to each local and to each value that lives over a call.
func (w *rewriter) frameWords(locals int64) int64 {
	return min(8+locals+w.count/2, math.MaxInt32)
}

// assemble puts the charges where they belong.
//
//	locals
//	charge of the first block, check
//	stack -= frame, check       if the function calls, or its frame is large
//	block                       so that its returns lead here
//	  code with charges
//	end
//	stack += frame, check       what called it may have little to do but to return, in thousands of frames
//	end
func (w *rewriter) assemble(locals []byte, words int64, scratch uint32, t funcType) []byte {
	x := &w.d.extra
	frame := w.frameWords(words)
	framed := w.calls || frame > looseFrame
	all := w.total > looseBody
	leaf := !w.calls && !w.loops && w.total <= looseLeaf
	out := make([]byte, 0, len(locals)+len(w.code)+len(w.blocks)*12+64)
	out = append(out, locals...)
	out = x.take(out, scratch, w.blocks[0].cost, !leaf)
	if framed {
		out = x.push(out, scratch, frame)
		out = append(out, opBlock)
		out = w.d.resultType(out, t.results)
	}
	at := 0
	for _, b := range w.blocks[1:] {
		if b.cost == 0 && !b.loop {
			continue
		}
		out = append(out, w.code[at:b.at]...)
		at = b.at
		out = x.take(out, scratch, b.cost, b.loop || all)
	}
	out = append(out, w.code[at:]...)
	if framed {
		out = x.pop(out, frame)
		out = append(out, opEnd)
	}
	return out
}
