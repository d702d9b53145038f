// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"errors"
	"fmt"
	"strings"
)

// Sections: https://webassembly.github.io/spec/core/binary/modules.html#sections.
const (
	sectionCustom = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
)

// order is the place of each section; the count of data segments stands before the code.
var order = [...]int{
	sectionType: 1, sectionImport: 2, sectionFunction: 3, sectionTable: 4, sectionMemory: 5, sectionGlobal: 6, sectionExport: 7,
	sectionStart: 8, sectionElement: 9, sectionDataCount: 10, sectionCode: 11, sectionData: 12,
}

const (
	kindFunction = iota
	kindTable
	kindMemory
	kindGlobal
)

type funcType struct{ params, results []byte }

type tableType struct {
	reference byte
	min, max  uint32
}

type globalType struct {
	valueType byte
	mutable   bool
	init      []byte
}

type export struct {
	name  string
	kind  byte
	index uint32
}

type element struct{ encoded []byte }

type dataSegment struct {
	head []byte // all but the length and the bytes
	data []byte
	at   int64 // where it goes; -1 if that is not a plain number
}

// What no compiler comes near, and what keeps the estimate of a frame true and a reset cheap.
const (
	maxParams  = 255
	maxResults = 16
	maxMutable = 1024 // globals
)

// sections are the parts of a module as they were read.
type sections struct {
	types    []funcType
	imported []uint32 // types of the imported functions
	funcs    []uint32 // types of the module's own functions
	tables   []tableType
	memory   bool
	globals  []globalType
	exports  []export
	start    int64 // -1 for none
	elements []element
	data     []dataSegment
	counted  int64 // what the section DataCount says, -1 for none
	codes    [][]byte
}

// decoder reads a module, and then writes it with the meters.
type decoder struct {
	limits Limits
	out    *Module
	sections

	extra injected
}

func (d *decoder) decode(wasm []byte) error {
	d.start, d.counted = -1, -1
	r := &reader{b: wasm, at: len(header)}
	last := 0
	for !r.done() {
		at := r.at
		id := r.byte()
		body := r.take(int(r.u32()))
		if r.err != nil {
			return fmt.Errorf("section at byte %d: %w", at, r.err)
		}
		if id != sectionCustom {
			if int(id) >= len(order) {
				return fmt.Errorf("section %d at byte %d is not of WebAssembly 2.0", id, at)
			}
			if order[id] <= last {
				return fmt.Errorf("section %d at byte %d is out of order", id, at)
			}
			last = order[id]
		}
		s := &reader{b: body}
		d.section(id, s)
		if s.err == nil && !s.done() {
			s.fail("%d bytes too many", len(body)-s.at)
		}
		if s.err != nil {
			return fmt.Errorf("section %d at byte %d: %w", id, at, s.err)
		}
	}
	return d.check()
}

func (d *decoder) section(id byte, r *reader) {
	switch id {
	case sectionCustom:
		name := r.name()
		if _, twice := d.out.Custom[name]; !twice {
			d.out.Custom[name] = r.b[r.at:]
		}
		r.at = len(r.b)
	case sectionType:
		d.readTypes(r)
	case sectionImport:
		d.readImports(r)
	case sectionFunction:
		for range r.count() {
			d.funcs = append(d.funcs, d.typeIndex(r))
		}
	case sectionTable:
		d.readTables(r)
	case sectionMemory:
		d.readMemory(r)
	case sectionGlobal:
		for range r.count() {
			g := globalType{valueType: r.valueType(), mutable: r.flag()}
			g.init = d.constant(r)
			d.globals = append(d.globals, g)
		}
	case sectionExport:
		d.readExports(r)
	case sectionStart:
		d.start = int64(d.function(r))
	case sectionElement:
		d.readElements(r)
	case sectionDataCount:
		d.counted = int64(r.u32())
	case sectionCode:
		for range r.count() {
			d.codes = append(d.codes, r.take(int(r.u32())))
		}
	case sectionData:
		d.readData(r)
	}
}

func (r *reader) flag() bool {
	c := r.byte()
	if c > 1 {
		r.fail("%#x is neither 0 nor 1", c)
	}
	return c == 1
}

func (d *decoder) readTypes(r *reader) {
	for range r.count() {
		if c := r.byte(); c != 0x60 {
			r.fail("type %#x is not a function type", c)
			return
		}
		var t funcType
		for range r.count() {
			t.params = append(t.params, r.valueType())
		}
		for range r.count() {
			t.results = append(t.results, r.valueType())
		}
		if len(t.params) > maxParams || len(t.results) > maxResults {
			r.fail("a function has %d parameters and %d results, and the limits are %d and %d", len(t.params), len(t.results), maxParams, maxResults)
		}
		d.types = append(d.types, t)
	}
}

func (d *decoder) typeIndex(r *reader) uint32 {
	i := r.u32()
	if int64(i) >= int64(len(d.types)) {
		r.fail("there is no type %d", i)
		return 0
	}
	return i
}

func (d *decoder) readImports(r *reader) {
	for range r.count() {
		from, name, kind := r.name(), r.name(), r.byte()
		if kind != kindFunction {
			r.fail("it imports %s.%s, which is not a function: a plugin brings its own memory, tables and globals", from, name)
			return
		}
		t := d.typeIndex(r)
		if r.err != nil {
			return
		}
		if from == ImportModule {
			r.fail("it imports from %s, which is the meter's own name", from)
			return
		}
		d.imported = append(d.imported, t)
		d.out.Imports = append(d.out.Imports, Func{Module: from, Name: name, Params: d.types[t].params, Results: d.types[t].results})
	}
}

// bounds reads limits: https://webassembly.github.io/spec/core/binary/types.html#limits. Without a maximum it is that of a 32-bit number.
func (r *reader) bounds() (low, high uint32) {
	limited := r.flag()
	low, high = r.u32(), 1<<32-1
	if limited {
		high = r.u32()
	}
	if high < low {
		r.fail("a maximum of %d is below the minimum of %d", high, low)
	}
	return low, high
}

func (d *decoder) readTables(r *reader) {
	for range r.count() {
		t := tableType{reference: r.referenceType()}
		t.min, t.max = r.bounds()
		if t.min > d.limits.TableSlots {
			r.fail("a table begins with %d slots, and the limit is %d", t.min, d.limits.TableSlots)
		}
		t.max = min(t.max, d.limits.TableSlots)
		d.tables = append(d.tables, t)
	}
	if len(d.tables) > 16 {
		r.fail("it has %d tables, and the limit is 16", len(d.tables))
	}
}

func (d *decoder) readMemory(r *reader) {
	switch n := r.count(); n {
	case 0:
	case 1:
		low, high := r.bounds()
		if low > d.limits.MemoryPages {
			r.fail("its memory begins with %d KiB, and the limit is %d KiB", uint64(low)*64, uint64(d.limits.MemoryPages)*64)
		}
		d.memory = true
		d.out.MinPages, d.out.MaxPages = low, min(high, d.limits.MemoryPages)
	default:
		r.fail("it has %d memories; one is the limit", n)
	}
}

// constant reads a constant expression and returns it as it is in the module that is written.
func (d *decoder) constant(r *reader) []byte {
	b := []byte{r.byte()}
	switch b[0] {
	case opI32Const:
		b = appendSigned(b, r.signed(32))
	case opI64Const:
		b = appendSigned(b, r.signed(64))
	case 0x43:
		b = append(b, r.take(4)...)
	case 0x44:
		b = append(b, r.take(8)...)
	case opGlobalGet:
		i := r.u32()
		if int64(i) >= int64(len(d.globals)) {
			r.fail("there is no global %d", i)
		}
		b = appendU32(b, i)
	case opRefNull:
		b = append(b, r.referenceType())
	case opRefFunc:
		b = appendU32(b, d.shifted(d.function(r)))
	case opVector:
		if r.u32() != 0x0c {
			r.fail("a constant expression has a vector instruction that is not v128.const")
		}
		b = append(append(b, 0x0c), r.take(16)...)
	default:
		r.fail("opcode %#x is not one of a constant expression of WebAssembly 2.0", b[0])
	}
	if c := r.byte(); c != opEnd {
		r.fail("a constant expression has more than one instruction, which WebAssembly 2.0 does not know")
	}
	return append(b, opEnd)
}

// function reads the index of a function, as the original module counts.
func (d *decoder) function(r *reader) uint32 {
	i := r.u32()
	if int64(i) >= int64(len(d.imported)+len(d.funcs)) {
		r.fail("there is no function %d", i)
		return 0
	}
	return i
}

// shifted is the index of a function after the meter's import has been added.
func (d *decoder) shifted(i uint32) uint32 {
	if int(i) >= len(d.imported) {
		return i + 1
	}
	return i
}

func (d *decoder) signature(i uint32) funcType {
	if n := len(d.imported); int(i) >= n {
		return d.types[d.funcs[int(i)-n]]
	}
	return d.types[d.imported[i]]
}

func (d *decoder) readExports(r *reader) {
	for range r.count() {
		e := export{name: r.name(), kind: r.byte()}
		switch e.kind {
		case kindFunction:
			e.index = d.function(r)
			if r.err == nil {
				t := d.signature(e.index)
				d.out.Exports = append(d.out.Exports, Func{Name: e.name, Params: t.params, Results: t.results})
			}
		case kindTable, kindMemory, kindGlobal:
			e.index = r.u32()
			if e.kind == kindGlobal && int64(e.index) >= int64(len(d.globals)) {
				r.fail("there is no global %d", e.index)
			}
			if e.kind == kindMemory && e.name == "memory" && d.memory && e.index == 0 {
				d.out.Memory = true
			}
		default:
			r.fail("export %q has the unknown kind %d", e.name, e.kind)
		}
		if strings.HasPrefix(e.name, reserved) {
			r.fail("it exports %q: names that begin with %q are the meter's own", e.name, reserved)
		}
		d.exports = append(d.exports, e)
	}
}

// check looks at what no section shows alone.
func (d *decoder) check() error {
	if len(d.funcs) != len(d.codes) {
		return fmt.Errorf("it declares %d functions and has code for %d", len(d.funcs), len(d.codes))
	}
	if d.counted >= 0 && d.counted != int64(len(d.data)) {
		return fmt.Errorf("it declares %d data segments and has %d", d.counted, len(d.data))
	}
	mutable := 0
	for i, g := range d.globals {
		if g.mutable {
			mutable++
		}
		if g.mutable && g.valueType == v128 {
			return fmt.Errorf("global %d is mutable and of type v128, which a host cannot put back", i)
		}
		if g.mutable && isReference(g.valueType) {
			d.out.Obstacle = "it has a mutable global of a reference type, which belongs to one instance"
		}
	}
	if mutable > maxMutable {
		return fmt.Errorf("it has %d mutable globals, and the limit is %d", mutable, maxMutable)
	}
	if d.start >= 0 {
		if t := d.signature(uint32(d.start)); len(t.params)+len(t.results) > 0 {
			return errors.New("its start function takes or returns something")
		}
	}
	return nil
}
