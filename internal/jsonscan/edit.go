// SPDX-License-Identifier: Apache-2.0

package jsonscan

import "bytes"

// Edit is a change to a text: the bytes of At give way to With. An At of no length inserts.
type Edit struct {
	At   Span
	With string
}

// Insert returns the edit that adds a member, written as JSON (`"key":value`), at the end of the object.
func (o *Object) Insert(member string) Edit {
	if !o.Empty {
		member = "," + member
	}
	return Edit{At: Span{o.Close, o.Close}, With: member}
}

// Apply returns a new text with the edit made and all other bytes kept.
func (e Edit) Apply(text []byte) []byte {
	parts := [...][]byte{text[:e.At.Start], []byte(e.With), text[e.At.End:]}
	return bytes.Join(parts[:], nil) // does not clear what it is about to write
}

// Move returns where a span that the edit does not touch is after it.
func (e Edit) Move(s Span) Span {
	if s.Start < e.At.End {
		return s
	}
	by := len(e.With) - (e.At.End - e.At.Start)
	return Span{s.Start + by, s.End + by}
}
