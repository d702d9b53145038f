// SPDX-License-Identifier: Apache-2.0

package bpe

import "encoding/binary"

// maxShort is the length in bytes up to which a piece is joined on the stack. The work is quadratic in it.
const maxShort = 64

// splitter returns the end of the piece of text that begins at i.
type splitter func(t *classes, text []byte, i int) int

// count adds up the tokens of the pieces that next cuts text into.
func (v *vocabulary) count(text []byte, next splitter) int {
	tokens := 0
	for i := 0; i < len(text); {
		j := next(v.classes, text, i)
		switch n := j - i; {
		case n == 1:
			tokens++
		case n == 2:
			tokens++
			if v.twos[binary.LittleEndian.Uint16(text[i:])] == none {
				tokens++
			}
		case n <= maxWord && v.words.has(text, i, j):
			tokens++
		case n <= maxShort:
			tokens += v.merge(text[i:j])
		default:
			tokens += v.queue.count(v, text[i:j])
		}
		i = j
	}
	return tokens
}

// merge returns how many tokens a piece of 2 to maxShort bytes has.
func (v *vocabulary) merge(piece []byte) int {
	var (
		ids   [maxShort]uint32 // the tokens so far
		ranks [maxShort]uint32 // of each with the next; none for the last
	)
	n := len(piece)
	lowest, at := none, 0
	for i := range n - 1 {
		ids[i] = v.bytes[piece[i]]
		r := v.twos[binary.LittleEndian.Uint16(piece[i:])]
		ranks[i] = r
		if r < lowest {
			lowest, at = r, i
		}
	}
	ids[n-1], ranks[n-1] = v.bytes[piece[n-1]], none
	for lowest != none {
		ids[at] = lowest
		copy(ids[at+1:n-1], ids[at+2:n])
		copy(ranks[at+1:n-1], ranks[at+2:n])
		n--
		ranks[at] = none
		if at+1 < n {
			ranks[at] = v.pairs.of(lowest, ids[at+1])
		}
		if at > 0 {
			ranks[at-1] = v.pairs.of(ids[at-1], lowest)
		}
		lowest = none
		for i, r := range ranks[:n] {
			if r < lowest {
				lowest, at = r, i
			}
		}
	}
	return n
}
