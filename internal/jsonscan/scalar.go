// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// scalar reads a value that has no others in it.
func (s *scanner) scalar(i int) int {
	switch c := s.at(i); c {
	case '"':
		return s.str(i + 1)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	default:
		if c == '-' || isDigit(c) {
			return s.number(i)
		}
		return s.fail(i, reasonValue)
	}
}

func (s *scanner) literal(i int, word string) int {
	for j := range len(word) {
		if s.at(i+j) != word[j] {
			return s.fail(i+j, reasonValue)
		}
	}
	return i + len(word)
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// number reads [-] int [frac] [exp] of RFC 8259, section 6. What may follow a number is checked where it stands.
func (s *scanner) number(i int) int {
	if s.at(i) == '-' {
		i++
	}
	if s.at(i) == '0' {
		i++
	} else if i = s.digits(i); i < 0 {
		return i
	}
	if s.at(i) == '.' {
		if i = s.digits(i + 1); i < 0 {
			return i
		}
	}
	if s.at(i)|0x20 == 'e' {
		i++
		if c := s.at(i); c == '+' || c == '-' {
			i++
		}
		i = s.digits(i)
	}
	return i
}

// digits reads one digit or more.
func (s *scanner) digits(i int) int {
	if !isDigit(s.at(i)) {
		return s.fail(i, reasonNumber)
	}
	for isDigit(s.at(i)) {
		i++
	}
	return i
}

// str reads a string from behind its opening quote to behind its closing one.
func (s *scanner) str(i int) int {
	if s.valid {
		if end := stringEnd(s.text, i); end > i && s.text[end-1] == '"' {
			return end
		}
		return s.fail(len(s.text), reasonEnd)
	}
	for i >= 0 {
		i = skipPlain(s.text, i)
		switch c := s.at(i); {
		case c == '"':
			return i + 1
		case c == '\\':
			i = s.escape(i)
		case c < ' ':
			return s.fail(i, reasonControl)
		default:
			i = s.runes(i)
		}
	}
	return i
}

// special returns a word whose lowest set bit is in the lowest byte of w that is a quote, a backslash, a control character or
// not ASCII; zero when there is none. Bits above the lowest may be wrong, since subtraction borrows.
func special(w uint64) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^ones*'"', w^ones*'\\'
	return ((quote - ones) | (backslash - ones) | (w - ones*' ') | w) & tops
}

// skipPlain returns the offset of the first byte of b, from i, that is special; len(b) when there is none.
// It is where the time goes when a body is large. What is special comes soon, after a word or a line, or not for long, as in an
// image: so it begins with 8 bytes a turn and goes on with 32.
func skipPlain(b []byte, i int) int {
	for range 6 {
		if i+8 > len(b) {
			break
		}
		if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for ; i+32 <= len(b); i += 32 {
		p := (*[32]byte)(b[i:])
		if special(binary.LittleEndian.Uint64(p[0:]))|special(binary.LittleEndian.Uint64(p[8:]))|
			special(binary.LittleEndian.Uint64(p[16:]))|special(binary.LittleEndian.Uint64(p[24:])) != 0 {
			break
		}
	}
	for ; i+8 <= len(b); i += 8 {
		if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// runes reads the characters from i on that are not ASCII.
func (s *scanner) runes(i int) int {
	b := s.text
	for i < len(b) && b[i] >= utf8.RuneSelf {
		// Most of them take three bytes, and most of those have no further condition on the second.
		if c := b[i]; c > 0xE0 && c < 0xF0 && c != 0xED && i+2 < len(b) && b[i+1]&0xC0 == 0x80 && b[i+2]&0xC0 == 0x80 {
			i += 3
			continue
		}
		_, n := utf8.DecodeRune(b[i:])
		if n == 1 {
			return s.fail(i, reasonUTF8)
		}
		i += n
	}
	return i
}

// escape reads the escape whose backslash is at i.
func (s *scanner) escape(i int) int {
	switch s.at(i + 1) {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return s.fail(i+1, reasonEscape)
	}
	r, bad := hex4(s.text, i+2)
	if bad >= 0 {
		return s.fail(bad, reasonEscape)
	}
	if !utf16.IsSurrogate(r) {
		return i + 6
	}
	if s.at(i+6) != '\\' || s.at(i+7) != 'u' {
		return s.fail(i, reasonSurrogate)
	}
	low, bad := hex4(s.text, i+8)
	if bad >= 0 {
		return s.fail(bad, reasonEscape)
	}
	if utf16.DecodeRune(r, low) == utf8.RuneError {
		return s.fail(i, reasonSurrogate)
	}
	return i + 12
}

// hex4 reads four hexadecimal digits. bad is the offset of the first byte that is none, or -1.
func hex4(b []byte, i int) (r rune, bad int) {
	for j := i; j < i+4; j++ {
		if j >= len(b) {
			return 0, len(b)
		}
		switch c := b[j]; {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, j
		}
	}
	return r, -1
}

// Unquote returns the string that a JSON string stands for. The value must be one that [Keys.Scan] found valid, with its quotes.
func Unquote(value []byte) string {
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		return string(appendUnquoted(make([]byte, 0, len(raw)), raw))
	}
	return string(raw)
}

// View is Unquote without a copy, unless there are escapes: the string lies in value, which must not be altered as long as the string is in use.
func View(value []byte) string {
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		return string(appendUnquoted(make([]byte, 0, len(raw)), raw))
	}
	return unsafe.String(unsafe.SliceData(raw), len(raw))
}

// appendUnquoted appends what raw, the valid inside of a JSON string, stands for. It never appends more bytes than raw has.
func appendUnquoted(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' || i+1 == len(raw) {
			dst = append(dst, c)
			i++
			continue
		}
		if c = raw[i+1]; c != 'u' {
			dst = append(dst, unescaped(c))
			i += 2
			continue
		}
		r, _ := hex4(raw, i+2)
		i += 6
		if utf16.IsSurrogate(r) {
			low, _ := hex4(raw, i+2)
			r = utf16.DecodeRune(r, low)
			i += 6
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// unescaped returns the character that a backslash and c stand for.
func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
