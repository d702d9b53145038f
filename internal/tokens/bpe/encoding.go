// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	_ "embed" // vocabularies
	"iter"
	"sync"
)

// Encoding is one of OpenAI's ways to make tokens of a text. The zero value is [O200k], that of all their models since 2024.
type Encoding uint8

// Encodings.
const (
	O200k  Encoding = iota // o200k_base: GPT-4o and all later models
	Cl100k                 // cl100k_base: GPT-4, GPT-3.5 and the embeddings
)

// String returns the name that OpenAI gave the encoding.
func (e Encoding) String() string {
	if e == Cl100k {
		return "cl100k_base"
	}
	return "o200k_base"
}

var (
	//go:embed o200k_base.merges
	o200kMerges []byte
	//go:embed cl100k_base.merges
	cl100kMerges []byte

	o200k  = sync.OnceValue(func() *vocabulary { return load(o200kMerges) })
	cl100k = sync.OnceValue(func() *vocabulary { return load(cl100kMerges) })
)

// Load makes the tables of the encoding, unless they are there already. The first [Encoding.Count] does it too; a server calls this
// first, so that no request waits for it.
func (e Encoding) Load() {
	if e == Cl100k {
		cl100k()
	} else {
		o200k()
	}
}

// Count returns how many tokens text has: none if it is empty, else at least one, and at most one for each byte. The names of special
// tokens, such as <|endoftext|>, are text like any other. Text that is not valid UTF-8 is counted too, each wrong byte as a character
// of its own that is no letter. Count may be called by many goroutines at once.
func (e Encoding) Count(text []byte) int {
	if e == Cl100k {
		return cl100k().count(text, nextCl100k)
	}
	return o200k().count(text, nextO200k)
}

// Tokens yields the rank and the bytes of each token of the vocabulary, in order. It decodes them anew each time: it is there to compare the
// vocabulary with others. The bytes must not be changed.
func (e Encoding) Tokens() iter.Seq2[int, []byte] {
	merges := o200kMerges
	if e == Cl100k {
		merges = cl100kMerges
	}
	return func(yield func(int, []byte) bool) {
		d := decode(merges)
		for id := range d.size() {
			if !yield(id, d.token(uint32(id))) {
				return
			}
		}
	}
}
