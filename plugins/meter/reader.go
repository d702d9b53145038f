// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

var errCut = errors.New("it ends too early")

// reader reads a part of a module. After the first error it returns zeros, and err tells.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.at = len(r.b)
}

func (r *reader) done() bool { return r.at >= len(r.b) }

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		if r.err == nil {
			r.err = errCut
		}
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b)-r.at {
		r.at = len(r.b)
		if r.err == nil {
			r.err = errCut
		}
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

// u32 reads an unsigned number in LEB128: https://webassembly.github.io/spec/core/binary/values.html#integers.
func (r *reader) u32() uint32 {
	var v uint32
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			r.fail("a number has more than 32 bits")
			return 0
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed number of the given width in LEB128.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 {
			// The bits above the width must repeat the sign.
			if ext := int8(c<<1) >> left; c >= 0x80 || ext != 0 && ext != -1 {
				r.fail("a number has more than %d bits", bits)
				return 0
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if shift+7 < 64 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count reads the length of a list whose items have at least one byte each, so that no module can ask for more room than it has bytes.
func (r *reader) count() int {
	n := r.u32()
	if int64(n) > int64(len(r.b)-r.at) {
		r.fail("a list of %d items does not fit into what is left", n)
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	b := r.take(int(r.u32()))
	if !utf8.Valid(b) {
		r.fail("a name is not UTF-8")
		return ""
	}
	return string(b)
}

// valueType reads a value type: https://webassembly.github.io/spec/core/binary/types.html#value-types.
func (r *reader) valueType() byte {
	c := r.byte()
	if !isValueType(c) {
		r.fail("unknown value type %#x", c)
	}
	return c
}

func isValueType(c byte) bool { return c >= v128 && c <= i32 || isReference(c) }

func isReference(c byte) bool { return c == funcref || c == externref }

func (r *reader) referenceType() byte {
	c := r.byte()
	if !isReference(c) {
		r.fail("unknown reference type %#x", c)
	}
	return c
}

const (
	i32       = 0x7f
	i64       = 0x7e
	v128      = 0x7b
	funcref   = 0x70
	externref = 0x6f
	empty     = 0x40 // the type of a block without parameters and results
)

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}
