// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"strconv"
)

// encode writes the module into out.Binary.
func (d *decoder) encode() error {
	x := &d.extra
	x.begin(d)
	refuel := x.typeOf(d, funcType{params: []byte{i64}, results: []byte{i64}})
	// Bodies first: they say which helpers and types are needed.
	bodies := make([][]byte, len(d.codes))
	for i, code := range d.codes {
		b, err := d.body(code, d.types[d.funcs[i]])
		if err != nil {
			return fmt.Errorf("function %d: %w", len(d.imported)+i, err)
		}
		bodies[i] = b
	}
	out := append(make([]byte, 0, d.size()), header...)
	out = section(out, sectionType, list(append(d.types, x.added...), func(b []byte, t funcType) []byte {
		return appendBytes(appendBytes(append(b, 0x60), t.params), t.results)
	}))
	out = section(out, sectionImport, d.importSection(refuel))
	out = section(out, sectionFunction, list(append(d.funcs, x.funcs...), appendU32))
	out = section(out, sectionTable, list(d.tables, func(b []byte, t tableType) []byte {
		return appendU32(appendU32(append(b, t.reference, 1), t.min), t.max)
	}))
	if d.memory {
		out = section(out, sectionMemory, appendU32(appendU32([]byte{1, 1}, d.out.MinPages), d.out.MaxPages))
	}
	out = section(out, sectionGlobal, d.globalSection())
	out = section(out, sectionExport, d.exportSection())
	out = section(out, sectionElement, list(d.elements, func(b []byte, e element) []byte { return append(b, e.encoded...) }))
	if d.counted >= 0 {
		out = section(out, sectionDataCount, appendU32(nil, uint32(d.counted)))
	}
	out = section(out, sectionCode, list(append(bodies, x.codes...), appendBytes))
	out = section(out, sectionData, list(d.joined(), func(b []byte, s dataSegment) []byte {
		return appendBytes(append(b, s.head...), s.data)
	}))
	d.out.Start = d.start >= 0
	d.out.Binary = d.appendNames(out)
	return nil
}

// size is about what the result needs.
func (d *decoder) size() int {
	n := 1 << 12
	for _, c := range d.codes {
		n += len(c) + len(c)/2
	}
	for _, s := range d.data {
		n += len(s.data) + 16
	}
	return n
}

// section appends a section; one without contents is left out.
func section(out []byte, id byte, body []byte) []byte {
	if len(body) == 0 || len(body) == 1 && body[0] == 0 && id != sectionDataCount {
		return out
	}
	return appendBytes(append(out, id), body)
}

func list[T any](items []T, item func(b []byte, v T) []byte) []byte {
	b := appendU32(nil, uint32(len(items)))
	for _, v := range items {
		b = item(b, v)
	}
	return b
}

func (d *decoder) importSection(refuel uint32) []byte {
	b := appendU32(nil, uint32(len(d.imported)+1))
	for i, f := range d.out.Imports {
		b = append(appendBytes(appendBytes(b, f.Module), f.Name), kindFunction)
		b = appendU32(b, d.imported[i])
	}
	b = append(appendBytes(appendBytes(b, ImportModule), ImportRefuel), kindFunction)
	return appendU32(b, refuel)
}

func (d *decoder) globalSection() []byte {
	// 0 for both: nothing runs before the host has been asked for fuel and has set the stack.
	own := globalType{valueType: i64, mutable: true, init: []byte{opI64Const, 0, opEnd}}
	return list(append(d.globals, own, own), func(b []byte, g globalType) []byte {
		b = append(b, g.valueType, 0)
		if g.mutable {
			b[len(b)-1] = 1
		}
		return append(b, g.init...)
	})
}

func (d *decoder) exportSection() []byte {
	exports := append([]export(nil), d.exports...)
	for i, e := range exports {
		if e.kind == kindFunction {
			exports[i].index = d.shifted(e.index)
		}
	}
	exports = append(exports, export{ExportFuel, kindGlobal, d.extra.fuel}, export{ExportStack, kindGlobal, d.extra.stack})
	for i, g := range d.globals {
		if g.mutable {
			name := globalPrefix + strconv.Itoa(len(d.out.Globals))
			d.out.Globals = append(d.out.Globals, name)
			exports = append(exports, export{name, kindGlobal, uint32(i)})
		}
	}
	if d.start >= 0 {
		exports = append(exports, export{ExportStart, kindFunction, d.shifted(uint32(d.start))})
	}
	return list(exports, func(b []byte, e export) []byte {
		return appendU32(append(appendBytes(b, e.name), e.kind), e.index)
	})
}

// appendNames appends the names of functions, for traces: https://webassembly.github.io/spec/core/appendix/custom.html#name-section. If they cannot be read, there are none.
func (d *decoder) appendNames(out []byte) []byte {
	const functionNames = 1
	r := &reader{b: d.out.Custom["name"]}
	for !r.done() {
		id, body := r.byte(), r.take(int(r.u32()))
		if id != functionNames || r.err != nil {
			continue
		}
		f := &reader{b: body}
		n := f.count()
		b := appendU32(nil, uint32(n))
		for range n {
			i := d.function(f)
			b = appendBytes(appendU32(b, d.shifted(i)), f.name())
		}
		if f.err == nil && f.done() {
			own := appendBytes(nil, "name")
			own = appendBytes(append(own, functionNames), b)
			return appendBytes(append(out, sectionCustom), own)
		}
	}
	return out
}
