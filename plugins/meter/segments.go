// SPDX-License-Identifier: Apache-2.0

package meter

// readElements reads https://webassembly.github.io/spec/core/binary/modules.html#element-section. The three low bits of its first number say: 1 passive or
// declarative, 2 an explicit table or declarative, 4 expressions instead of indices.
func (d *decoder) readElements(r *reader) {
	for range r.count() {
		flags := r.u32()
		if flags > 7 {
			r.fail("element segment of the unknown kind %d", flags)
			return
		}
		b := appendU32(nil, flags)
		passive, explicit, expressions := flags&1 != 0, flags&2 != 0, flags&4 != 0
		if !passive {
			if explicit {
				b = appendU32(b, r.u32())
			}
			b = append(b, d.constant(r)...)
		}
		if passive || explicit {
			if kind := r.byte(); expressions && isReference(kind) || !expressions && kind == 0 {
				b = append(b, kind)
			} else {
				r.fail("element segment of the unknown type %#x", kind)
			}
		}
		n := r.count()
		b = appendU32(b, uint32(n))
		for range n {
			if expressions {
				b = append(b, d.constant(r)...)
			} else {
				b = appendU32(b, d.shifted(d.function(r)))
			}
		}
		d.elements = append(d.elements, element{b})
	}
}

// readData reads https://webassembly.github.io/spec/core/binary/modules.html#data-section.
func (d *decoder) readData(r *reader) {
	for range r.count() {
		kind := r.u32()
		head := appendU32(nil, kind)
		switch kind {
		case 0:
		case 1:
		case 2:
			if i := r.u32(); i != 0 {
				r.fail("a data segment is for memory %d; one memory is the limit", i)
			}
			head = appendU32(head, 0)
		default:
			r.fail("data segment of the unknown kind %d", kind)
			return
		}
		at := int64(-1)
		if kind != 1 {
			offset := d.constant(r)
			if offset[0] == opI32Const {
				at = int64(uint32((&reader{b: offset[1:]}).signed(32)))
			}
			head = append(head, offset...)
		}
		data := r.take(int(r.u32()))
		if kind == 1 && len(data) > d.limits.Passive {
			r.fail("a passive data segment has %d bytes, and the limit is %d", len(data), d.limits.Passive)
		}
		d.data = append(d.data, dataSegment{head, data, at})
	}
}

// closeBy is how many zeros between two segments are cheaper than another segment.
const closeBy = 256

// joined returns the data segments with those put together that lie side by side: some linkers leave out each run of zeros, which makes thousands of segments
// that the engine has to go through for every instance. Nothing may refer to segments by number, and none may overlap one before it.
func (d *decoder) joined() []dataSegment {
	if d.counted >= 0 || len(d.data) < 2 {
		return d.data
	}
	var out []dataSegment
	end := int64(0) // of all so far
	for _, s := range d.data {
		if s.at < end {
			return d.data // out of order, of an unknown place or passive
		}
		if n := len(out); n > 0 && s.at-end <= closeBy {
			last := &out[n-1]
			last.data = append(append(last.data, make([]byte, s.at-end)...), s.data...)
		} else {
			s.data = append([]byte(nil), s.data...) // not the caller's any more
			out = append(out, s)
		}
		end = s.at + int64(len(s.data))
	}
	return out
}
