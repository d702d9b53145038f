// SPDX-License-Identifier: Apache-2.0

package jsonscan

import "bytes"

// Cursor reads a text, or a value of one, that [Keys.Scan] has found valid, once from front to back and without a copy. Before each value it stands
// on its first byte, and whoever is there takes it whole with [Cursor.Value] or goes into it with [Cursor.Enter]:
//
//	for c.Enter(); ; {
//		key, ok := c.Member()
//		if !ok {
//			break
//		}
//		use(key, c.Value())
//	}
//
// On any other text it ends at some point and does not panic, but what it yields means nothing.
type Cursor struct {
	text []byte
	at   int
}

// NewCursor returns a cursor before the value that text consists of.
func NewCursor(text []byte) Cursor {
	c := Cursor{text: text}
	c.space()
	return c
}

// Kind returns the first byte of the value ahead, which tells what it is: one of {["tfn- or a digit. It is zero where there is none.
func (c *Cursor) Kind() byte {
	if c.at < len(c.text) {
		return c.text[c.at]
	}
	return 0
}

// Enter goes into the object or array ahead, up to its first key or element.
func (c *Cursor) Enter() {
	c.at++
	c.space()
}

// Member goes to the next value of the object that the cursor is in and returns its key, as it is written between the quotes.
// Behind the last one it leaves the object, and ok is false.
func (c *Cursor) Member() (key []byte, ok bool) {
	if !c.Element() || c.Kind() != '"' {
		return nil, false
	}
	key = c.Value()
	if c.Kind() == ':' {
		c.at++
	}
	c.space()
	if len(key) < 2 {
		return nil, false
	}
	return key[1 : len(key)-1], true
}

// Element goes to the next value of the array that the cursor is in. Behind the last one it leaves the array and returns false.
func (c *Cursor) Element() bool {
	if c.Kind() == ',' {
		c.at++
		c.space()
	}
	switch c.Kind() {
	case ']', '}':
		c.at++
		c.space()
		return false
	case 0:
		c.at = len(c.text)
		return false
	}
	return true
}

// Value returns the value ahead, with all that is in it, and goes behind it.
func (c *Cursor) Value() []byte {
	start := c.at
	switch c.Kind() {
	case '"':
		c.at = stringEnd(c.text, c.at+1)
	case '{', '[':
		c.at = containerEnd(c.text, c.at)
	default:
		c.at = plainEnd(c.text, c.at)
	}
	value := c.text[start:c.at]
	c.space()
	return value
}

func (c *Cursor) space() {
	for c.at < len(c.text) {
		switch c.text[c.at] {
		case ' ', '\n', '\t', '\r':
			c.at++
		default:
			return
		}
	}
}

// stringEnd returns the offset behind the quote that ends the string whose inside begins at i. A quote ends it unless an odd number of
// backslashes stands before it.
func stringEnd(text []byte, i int) int {
	for start := i; ; {
		n := bytes.IndexByte(text[min(i, len(text)):], '"')
		if n < 0 {
			return len(text)
		}
		i += n
		slashes := i
		for slashes > start && text[slashes-1] == '\\' {
			slashes--
		}
		escaped := (i-slashes)%2 == 1
		i++
		if !escaped {
			return i
		}
	}
}

// containerEnd returns the offset behind the object or array that begins at i.
func containerEnd(text []byte, i int) int {
	for depth := 0; i < len(text); {
		switch text[i] {
		case '"':
			i = stringEnd(text, i+1)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return len(text)
}

// plainEnd returns the offset behind the number or word that begins at i; it is never i, unless that is the end of the text.
func plainEnd(text []byte, i int) int {
	for start := i; i < len(text); i++ {
		switch text[i] {
		case ',', ']', '}', ':', ' ', '\n', '\t', '\r':
			if i > start {
				return i
			}
		}
	}
	return i
}

// AppendUnquoted appends what raw stands for: the inside of a valid JSON string, or a part of it that cuts no escape apart. It never appends more bytes than
// raw has.
func AppendUnquoted(dst, raw []byte) []byte { return appendUnquoted(dst, raw) }
