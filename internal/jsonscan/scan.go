// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"bytes"
	"fmt"
)

// Limits of [NewKeys] and [Keys.Scan].
const (
	MaxDepth  = 512 // arrays and objects within each other, the outermost included
	MaxKeys   = 12  // that one scan looks for
	maxKeyLen = 32  // bytes of a key that is looked for
)

// Span is a half-open range of bytes. The zero Span means that there is none.
type Span struct{ Start, End int }

// Found reports whether the span stands for something.
func (s Span) Found() bool { return s.End > 0 }

// Of returns the bytes of text that the span covers.
func (s Span) Of(text []byte) []byte { return text[s.Start:s.End] }

// Object says where in a text the members of its outermost object are.
type Object struct {
	Close  int           // offset of the closing brace
	Empty  bool          // it has no members
	Values [MaxKeys]Span // of the keys that were looked for, in the order given to [NewKeys]
}

// Error says what is wrong with a text, in words fit for whoever sent it: none of the text is repeated in it.
type Error struct {
	Offset int    // in bytes, from zero
	Reason string // such as "expected a comma or a closing bracket"
	Key    string // the key that repeats or is spelt oddly; empty for all other faults
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Reasons of an [Error].
const (
	reasonNoObject  = "expected a JSON object"
	reasonBOM       = "unexpected byte order mark"
	reasonEnd       = "unexpected end of the text"
	reasonKey       = "expected a string as key"
	reasonColon     = "expected a colon after the key"
	reasonInObject  = "expected a comma or a closing brace"
	reasonInArray   = "expected a comma or a closing bracket"
	reasonValue     = "expected a value"
	reasonNumber    = "malformed number"
	reasonControl   = "unescaped control character in a string"
	reasonEscape    = "malformed escape in a string"
	reasonSurrogate = "lone surrogate in a string"
	reasonUTF8      = "invalid UTF-8 in a string"
	reasonDepth     = "nested too deeply"
	reasonTrailing  = "unexpected data after the object"
	reasonDuplicate = "duplicate key"
	reasonSpelling  = "ambiguous spelling of a key"
)

// Keys is what a scan looks for. It is immutable and may be used by many goroutines.
type Keys struct {
	names    []string
	min, max int // length in bytes of what may stand for one of the names, as written in a text
}

// NewKeys returns the keys of the given names. It panics unless there are at most [MaxKeys] and each consists of lower-case
// ASCII letters, digits and underscores: names are part of the program, not of its input.
func NewKeys(names ...string) *Keys {
	k := &Keys{names: names, min: maxKeyLen}
	if len(names) > MaxKeys {
		panic("jsonscan: too many keys")
	}
	for _, n := range names {
		for i := range len(n) {
			if c := n[i]; c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				panic("jsonscan: unfit key " + n)
			}
		}
		if len(n) == 0 || len(n) > maxKeyLen {
			panic("jsonscan: unfit key " + n)
		}
		k.min = min(k.min, len(n))
		k.max = max(k.max, len(n)*len(`\u0000`))
	}
	return k
}

// Scan validates the whole of text and finds the values of the keys in its outermost object. Every error is an [*Error].
// It does not allocate unless it fails, and keeps nothing of text.
func (k *Keys) Scan(text []byte, o *Object) error { return k.scan(scanner{text: text}, o) }

// Find is Scan for an object within a text that Scan has found valid: it does not look at the inside of strings again, which is where the time goes. Of
// any other text it finds something or fails, and does not panic.
func (k *Keys) Find(text []byte, o *Object) error { return k.scan(scanner{text: text, valid: true}, o) }

func (k *Keys) scan(s scanner, o *Object) error {
	*o = Object{}
	if s.object(k, o) < 0 {
		return &Error{Offset: s.offset, Reason: s.reason, Key: s.key}
	}
	return nil
}

// find returns the index of the name that raw, the bytes between the quotes of a key, stands for or could be taken for, and
// whether it is spelt plainly; -1 for any other key.
func (k *Keys) find(raw []byte) (index int, plain bool) {
	if len(raw) < k.min || len(raw) > k.max {
		return -1, false
	}
	for i, n := range k.names {
		if string(raw) == n {
			return i, true
		}
	}
	var buf [maxKeyLen * len(`\u0000`)]byte
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = appendUnquoted(buf[:0], raw)
	}
	for i, n := range k.names {
		if bytes.EqualFold(raw, []byte(n)) {
			return i, false
		}
	}
	return -1, false
}

// scanner validates a text. Its methods take the offset to begin at and return the one they end at, or -1 after [scanner.fail].
type scanner struct {
	text   []byte
	valid  bool // as a whole: what is in its strings need not be looked at
	offset int  // these three are of the fault
	reason string
	key    string

	depth   int
	objects [MaxDepth / 64]uint64 // bit d says whether level d is an object; an array otherwise
}

func (s *scanner) fail(at int, reason string) int {
	if at >= len(s.text) {
		at, reason = len(s.text), reasonEnd
	}
	s.offset, s.reason = at, reason
	return -1
}

// at returns the byte at offset i; zero, which is nowhere valid, behind the end.
func (s *scanner) at(i int) byte {
	if i < len(s.text) {
		return s.text[i]
	}
	return 0
}

// space skips white space.
func (s *scanner) space(i int) int {
	for i < len(s.text) {
		switch s.text[i] {
		case ' ', '\n', '\t', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// object reads the outermost object, which is all of the text.
func (s *scanner) object(k *Keys, o *Object) int {
	i := s.space(0)
	if s.at(i) != '{' {
		if bytes.HasPrefix(s.text, []byte("\uFEFF")) {
			return s.fail(0, reasonBOM)
		}
		return s.fail(i, reasonNoObject)
	}
	s.depth = 1
	i = s.space(i + 1)
	if o.Empty = s.at(i) == '}'; !o.Empty {
		if i = s.members(i, k, o); i < 0 {
			return i
		}
	}
	o.Close = i
	if i = s.space(i + 1); i < len(s.text) {
		return s.fail(i, reasonTrailing)
	}
	return i
}

// members reads the members of the outermost object up to its closing brace.
func (s *scanner) members(i int, k *Keys, o *Object) int {
	for {
		end := s.name(i)
		if end < 0 {
			return end
		}
		n, plain := k.find(s.text[i+1 : end-1])
		if n >= 0 && (!plain || o.Values[n].Found()) {
			return s.ambiguous(i, k.names[n], plain)
		}
		if i = s.colon(end); i < 0 {
			return i
		}
		if end = s.value(i); end < 0 {
			return end
		}
		if n >= 0 {
			o.Values[n] = Span{i, end}
		}
		i = s.space(end)
		switch s.at(i) {
		case ',':
			i = s.space(i + 1)
		case '}':
			return i
		default:
			return s.fail(i, reasonInObject)
		}
	}
}

func (s *scanner) ambiguous(at int, key string, plain bool) int {
	s.key = key
	if plain {
		return s.fail(at, reasonDuplicate)
	}
	return s.fail(at, reasonSpelling)
}

// name reads a key.
func (s *scanner) name(i int) int {
	if s.at(i) != '"' {
		return s.fail(i, reasonKey)
	}
	return s.str(i + 1)
}

// colon reads what is between a key that ends at i and its value.
func (s *scanner) colon(i int) int {
	if i = s.space(i); s.at(i) != ':' {
		return s.fail(i, reasonColon)
	}
	return s.space(i + 1)
}

// member reads a key up to its value.
func (s *scanner) member(i int) int {
	if i = s.name(i); i < 0 {
		return i
	}
	return s.colon(i)
}

// value reads one value of any kind with all that is within it. It does not recurse: nesting costs a bit a level.
func (s *scanner) value(i int) int {
	base := s.depth
	for {
		open := s.at(i)
		if open == '{' || open == '[' {
			if i = s.open(i); i < 0 {
				return i
			}
			if c := s.at(i); c != '}' && c != ']' {
				if s.inObject() {
					if i = s.member(i); i < 0 {
						return i
					}
				}
				continue
			}
		} else if i = s.scalar(i); i < 0 {
			return i
		}
		// A value has ended, or a container is empty: close what closes, then go on behind a comma.
		if i = s.closing(i, base); i < 0 || s.depth == base {
			return i
		}
	}
}

// open enters the object or array at i and returns the offset of what comes first in it.
func (s *scanner) open(i int) int {
	if s.depth == MaxDepth {
		return s.fail(i, reasonDepth)
	}
	if bit := uint64(1) << (s.depth & 63); s.text[i] == '{' {
		s.objects[s.depth>>6] |= bit
	} else {
		s.objects[s.depth>>6] &^= bit
	}
	s.depth++
	return s.space(i + 1)
}

func (s *scanner) inObject() bool {
	d := s.depth - 1
	return s.objects[d>>6]>>(d&63)&1 == 1
}

// closing goes on behind a value, or in an empty container: it leaves the containers that end here. It returns the offset of the
// next value within them or, when the depth is down to base, of what follows.
func (s *scanner) closing(i, base int) int {
	for s.depth > base {
		i = s.space(i)
		c, object := s.at(i), s.inObject()
		switch {
		case c == ',' && object:
			return s.member(s.space(i + 1))
		case c == ',':
			return s.space(i + 1)
		case c == '}' && object, c == ']' && !object:
			s.depth--
			i++
		case object:
			return s.fail(i, reasonInObject)
		default:
			return s.fail(i, reasonInArray)
		}
	}
	return i
}
