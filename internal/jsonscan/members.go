// SPDX-License-Identifier: Apache-2.0

package jsonscan

import "iter"

// Members returns where the members of an object are, in order: the key with its quotes, and the value. The object must be a part of a text that [Keys.Scan] has
// validated; of any other value, Members returns nothing or nonsense, but it ends and does not panic. Keys may repeat and may be spelt with escapes.
func Members(text []byte, object Span) iter.Seq2[Span, Span] {
	return func(yield func(key, value Span) bool) {
		if !object.Found() || object.End > len(text) || text[object.Start] != '{' {
			return
		}
		s := scanner{text: text[:object.End], valid: true}
		for i := s.space(object.Start + 1); i < object.End && s.at(i) == '"'; {
			end := s.name(i)
			if end < 0 {
				return
			}
			key := Span{i, end}
			if i = s.colon(end); i < 0 {
				return
			}
			if end = s.value(i); end < 0 || !yield(key, Span{i, end}) {
				return
			}
			if i = s.space(end); s.at(i) != ',' {
				return
			}
			i = s.space(i + 1)
		}
	}
}
