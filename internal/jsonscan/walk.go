// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"cmp"
	"iter"
	"slices"
)

// Elements returns where the elements of an array are, in order. The array must be a part of a text that [Keys.Scan] has validated; of
// any other value, Elements returns nothing or nonsense, but it ends and does not panic.
func Elements(text []byte, array Span) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		if !array.Found() || array.End > len(text) || text[array.Start] != '[' {
			return
		}
		s := scanner{text: text[:array.End], valid: true}
		for i := s.space(array.Start + 1); i < array.End && s.at(i) != ']'; {
			end := s.value(i)
			if end < 0 || !yield(Span{i, end}) {
				return
			}
			if i = s.space(end); s.at(i) != ',' {
				return
			}
			i = s.space(i + 1)
		}
	}
}

// Edits are changes to one text. They do not overlap; those that insert at one place stay in their order, before one that begins there.
type Edits []Edit

// Apply returns a new text with all edits made and all other bytes kept. It sorts the edits by where they are.
func (e Edits) Apply(text []byte) []byte {
	slices.SortStableFunc(e, func(a, b Edit) int {
		return cmp.Or(cmp.Compare(a.At.Start, b.At.Start), cmp.Compare(a.At.End, b.At.End))
	})
	size := len(text)
	for _, x := range e {
		size += len(x.With) - (x.At.End - x.At.Start)
	}
	out := make([]byte, 0, size)
	from := 0
	for _, x := range e {
		out = append(out, text[from:x.At.Start]...)
		out = append(out, x.With...)
		from = x.At.End
	}
	return append(out, text[from:]...)
}
