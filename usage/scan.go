// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep values may nest. What Envoy and providers write nests three deep.
const maxDepth = 16

// scanner reads JSON (RFC 8259) from a string. After the first thing that does not fit, reason is set, every further read returns a zero
// value, and i stays where it went wrong. It exists because a line of the access log is decoded for every exchange: encoding/json takes
// three times as long (see the benchmarks). Strings without escapes share memory with s.
type scanner struct {
	s      string
	i      int
	depth  int
	reason string
}

func (p *scanner) ok() bool { return p.reason == "" }

func (p *scanner) fail(reason string) {
	if p.reason == "" {
		p.reason = reason
	}
}

// peek returns the next byte that is not white space, or 0 at the end.
func (p *scanner) peek() byte {
	if p.i < len(p.s) && p.s[p.i] > ' ' { // nearly always: Envoy writes no white space
		return p.s[p.i]
	}
	return p.space()
}

// space steps over white space and returns the byte behind it.
func (p *scanner) space() byte {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// try takes c if it comes next.
func (p *scanner) try(c byte) bool {
	if p.ok() && p.peek() == c {
		p.i++
		return true
	}
	return false
}

func (p *scanner) expect(c byte, reason string) {
	if !p.try(c) {
		p.fail(reason)
	}
}

// object reads an object and calls member for each key; member must read the value.
func (p *scanner) object(member func(key string)) {
	p.expect('{', "want an object")
	if p.try('}') {
		return
	}
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deep")
	}
	for p.ok() {
		key := p.str()
		p.expect(':', "want a colon")
		if !p.ok() {
			return
		}
		member(key)
		if p.try(',') {
			continue
		}
		p.expect('}', "unfinished object")
		p.depth--
		return
	}
}

// skip reads any value.
func (p *scanner) skip() {
	switch c := p.peek(); c {
	case '{':
		p.object(func(string) { p.skip() })
	case '[':
		p.array()
	case '"':
		p.str()
	case 't':
		p.literal("true")
	case 'f':
		p.literal("false")
	case 'n':
		p.literal("null")
	default:
		p.number()
	}
}

func (p *scanner) array() {
	p.expect('[', "want an array")
	if p.try(']') {
		return
	}
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deep")
	}
	for p.ok() {
		p.skip()
		if p.try(',') {
			continue
		}
		p.expect(']', "unfinished array")
		p.depth--
		return
	}
}

func (p *scanner) literal(word string) {
	if !p.ok() {
		return
	}
	if len(p.s)-p.i < len(word) || p.s[p.i:p.i+len(word)] != word {
		p.fail("unknown word")
		return
	}
	p.i += len(word)
}

// null takes a null if one comes next.
func (p *scanner) null() bool {
	if !p.ok() || p.peek() != 'n' {
		return false
	}
	p.literal("null")
	return p.ok()
}

// text reads a string. Null, and the "-" that Envoy writes for what is absent, are the empty string.
func (p *scanner) text() string {
	if p.null() {
		return ""
	}
	s := p.str()
	if s == "-" {
		return ""
	}
	return s
}

// plain reads what text reads, or the digits of a number as they stand.
func (p *scanner) plain() string {
	if c := p.peek(); c == '"' || c == 'n' {
		return p.text()
	}
	return p.number()
}

// count reads a number that is not negative, or null or "-", for which known is false. Fractions are dropped: Envoy computes with doubles.
func (p *scanner) count() (v int64, known bool) {
	switch p.peek() {
	case 'n', '"':
		if p.text() != "" {
			p.fail("want a number")
		}
		return 0, false
	}
	n := p.number()
	if !p.ok() {
		return 0, false
	}
	if v, err := strconv.ParseInt(n, 10, 64); err == nil && v >= 0 {
		return v, true
	}
	const exact = 1 << 53 // up to here a double holds every integer
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || f < 0 || f > exact {
		p.fail("number out of range")
		return 0, false
	}
	return int64(f), true
}

// number reads a number and returns it as it stands.
func (p *scanner) number() string {
	p.peek()
	if !p.ok() {
		return ""
	}
	from := p.i
	p.digit('-')
	if !p.digit('0') && !p.digits() {
		p.fail("want a value")
		return ""
	}
	if p.digit('.') && !p.digits() {
		p.fail("unfinished number")
		return ""
	}
	if p.digit('e') || p.digit('E') {
		if !p.digit('+') {
			p.digit('-')
		}
		if !p.digits() {
			p.fail("unfinished number")
			return ""
		}
	}
	return p.s[from:p.i]
}

// digit takes c if it is the very next byte.
func (p *scanner) digit(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *scanner) digits() bool {
	from := p.i
	for p.i < len(p.s) && p.s[p.i]-'0' <= 9 {
		p.i++
	}
	return p.i > from
}

// str reads a string. Invalid UTF-8 passes as it is.
func (p *scanner) str() string {
	p.expect('"', "want a string")
	if !p.ok() {
		return ""
	}
	from, escapes := p.i, false
	for {
		p.i += plain(p.s[p.i:])
		if p.i >= len(p.s) {
			break
		}
		switch p.s[p.i] {
		case '"':
			raw := p.s[from:p.i]
			p.i++
			if !escapes {
				return raw
			}
			return p.unescape(raw)
		case '\\':
			escapes = true
			p.i += 2
			if p.i > len(p.s) {
				p.i = len(p.s)
			}
		default:
			p.fail("control character in a string")
			return ""
		}
	}
	p.fail("unfinished string")
	return ""
}

// plain returns how many bytes at the beginning of s stand for themselves within a string: none of them is a quote, a backslash or a
// control character.
func plain(s string) int {
	const (
		ones = 0x0101010101010101
		tops = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		// A byte that is looked for becomes zero by xor, and a zero borrows into its top bit. What is borrowed further sets bits above
		// the lowest one only, and the lowest is what counts: https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord.
		quote, backslash := w^ones*'"', w^ones*'\\'
		found := ((quote-ones)&^quote | (backslash-ones)&^backslash | (w-ones*' ')&^w) & tops
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return i
}

// escaped are the bytes that stand for themselves or something else behind a backslash.
var escaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape decodes the inside of a string in which every backslash is followed by a byte.
func (p *scanner) unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		n := plain(s)
		b.WriteString(s[:n])
		if n == len(s) {
			return b.String()
		}
		c := s[n+1]
		s = s[n+2:]
		if e := escaped[c]; e != 0 {
			b.WriteByte(e)
			continue
		}
		r, n := unicodeEscape(s)
		if c != 'u' || n == 0 {
			p.fail("bad escape")
			return ""
		}
		b.WriteRune(r)
		s = s[n:]
	}
}

// unicodeEscape decodes what follows \u: four hexadecimal digits, and the second half of a surrogate pair if there is one. It returns how
// many bytes that took, 0 when it is malformed. A lone surrogate is U+FFFD.
func unicodeEscape(s string) (r rune, n int) {
	hi, ok := hex4(s)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(hi) {
		return hi, 4
	}
	if len(s) >= 10 && s[4] == '\\' && s[5] == 'u' {
		if lo, ok := hex4(s[6:]); ok {
			if r := utf16.DecodeRune(hi, lo); r != utf8.RuneError {
				return r, 10
			}
		}
	}
	return utf8.RuneError, 4
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		c := s[i]
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
