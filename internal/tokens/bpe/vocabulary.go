// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"math/bits"
)

// none is the rank of what is no token. It is above all others.
const none = ^uint32(0)

// Lengths of the pieces, in bytes, that are looked up as a whole: shorter ones are looked up by their two bytes, and longer ones are rare
// enough to be joined.
const (
	minWord = 3
	maxWord = 15
)

// idBits is how many bits the number of a token has; vocabularies have at most 200,000.
const idBits = 18

// vocabulary is what counting needs to know of an encoding. It is immutable.
type vocabulary struct {
	size    int
	bytes   [256]uint32     // the token of each byte
	twos    [1 << 16]uint32 // the token of two bytes, the second one the high byte of the index; or none
	words   words
	pairs   pairs
	queue   queues // for long pieces
	classes *classes
}

// words is the set of the tokens of minWord to maxWord bytes, by [key]: a hash table with open addressing. A zero is an empty slot.
type words struct {
	slots [][2]uint64
	shift uint // 64 less the bits of an index
}

// pairs is a hash table from two tokens to the one that they make up. A slot has left<<idBits|right, shifted by idBits more, and the token;
// zero is empty. Most pairs that are looked up are not there: a filter, one bit for a hash, keeps those out of the slots, which are too many for the caches that are near.
type pairs struct {
	slots  []uint64
	filter []uint64
	shift  uint // 64 less the bits of an index of slots; a bit of the filter has two bits more
}

// indexBits returns how many bits the index of a table has so that at most three slots of four are taken.
func indexBits(entries int) int { return bits.Len(uint(entries + entries/3)) }

// mix returns a hash of two words. Both halves of a product depend on all bits of both factors.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a^0x9E3779B97F4A7C15, b^0xD6E8FEB86659FD93)
	return high ^ low
}

// key returns the bytes of a text from i up to j, minWord to maxWord of them, and their number in the highest byte.
func key(text []byte, i, j int) [2]uint64 {
	n := j - i
	var low, high uint64
	switch {
	case i+16 <= len(text):
		low, high = binary.LittleEndian.Uint64(text[i:]), binary.LittleEndian.Uint64(text[i+8:])
		if n < 8 {
			low, high = low&(1<<(n*8)-1), 0
		} else {
			high &= 1<<(n*8-64) - 1
		}
	case n >= 8:
		low = binary.LittleEndian.Uint64(text[i:])
		high = binary.LittleEndian.Uint64(text[j-8:]) >> (128 - n*8)
	case n >= 4:
		low = uint64(binary.LittleEndian.Uint32(text[i:])) | uint64(binary.LittleEndian.Uint32(text[j-4:]))<<(n*8-32)
	default:
		low = uint64(text[i]) | uint64(text[i+1])<<8 | uint64(text[i+2])<<16
	}
	return [2]uint64{low, high | uint64(n)<<56}
}

// has reports whether the bytes of text from i up to j, minWord to maxWord of them, are a token.
func (w *words) has(text []byte, i, j int) bool {
	k := key(text, i, j)
	for at := mix(k[0], k[1]) >> w.shift; ; at = (at + 1) & uint64(len(w.slots)-1) {
		switch s := &w.slots[at]; {
		case s[0] == k[0] && s[1] == k[1]:
			return true
		case s[1] == 0:
			return false
		}
	}
}

func (w *words) add(token []byte) {
	k := key(token, 0, len(token))
	at := mix(k[0], k[1]) >> w.shift
	for w.slots[at][1] != 0 {
		at = (at + 1) & uint64(len(w.slots)-1)
	}
	w.slots[at] = k
}

// pairHash is Knuth's: the high bits of the product depend on all bits of the pair.
func pairHash(pair uint64) uint64 { return pair * 0x9E3779B97F4A7C15 }

// of returns the token that two tokens make up, or none. Its number is its rank.
func (p *pairs) of(left, right uint32) uint32 {
	k := uint64(left)<<idBits | uint64(right)
	h := pairHash(k)
	if p.filter[h>>(p.shift+4)]>>(h>>(p.shift-2)&63)&1 == 0 {
		return none
	}
	for at := h >> p.shift; ; at = (at + 1) & uint64(len(p.slots)-1) {
		switch s := p.slots[at]; {
		case s>>idBits == k:
			return uint32(s & (1<<idBits - 1))
		case s == 0:
			return none
		}
	}
}

func (p *pairs) add(left, right, token uint32) {
	k := uint64(left)<<idBits | uint64(right)
	h := pairHash(k)
	p.filter[h>>(p.shift+4)] |= 1 << (h >> (p.shift - 2) & 63)
	at := h >> p.shift
	for p.slots[at] != 0 {
		at = (at + 1) & uint64(len(p.slots)-1)
	}
	p.slots[at] = k<<idBits | uint64(token)
}

// load makes a vocabulary of an embedded file.
func load(merges []byte) *vocabulary {
	d := decode(merges)
	v := &vocabulary{size: d.size(), classes: loadClasses()}
	n := 0
	for id := range v.size {
		if size := len(d.token(uint32(id))); size >= minWord && size <= maxWord {
			n++
		}
	}
	b := indexBits(n)
	v.words = words{slots: make([][2]uint64, 1<<b), shift: uint(64 - b)}
	b = indexBits(v.size)
	v.pairs = pairs{slots: make([]uint64, 1<<b), filter: make([]uint64, 1<<(b-4)), shift: uint(64 - b)}
	for i := range v.twos {
		v.twos[i] = none
	}
	for id := range uint32(v.size) {
		token := d.token(id)
		switch n := len(token); {
		case n == 1:
			v.bytes[token[0]] = id
		case n == 2:
			v.twos[binary.LittleEndian.Uint16(token)] = id
		case n <= maxWord:
			v.words.add(token)
		}
		if id >= 256 {
			v.pairs.add(d.left[id-256], d.right[id-256], id)
		}
	}
	return v
}

// decoded is the content of an embedded file: the tokens of one byte in the order of their ranks, and for each other token the ranks of the
// two that it is made of.
type decoded struct {
	left, right []uint32 // of the token with the rank 256 and those that follow
	text        []byte   // of all tokens
	ends        []uint32 // where in it each ends
}

func (d *decoded) size() int { return len(d.ends) }

func (d *decoded) token(id uint32) []byte {
	var start uint32
	if id > 0 {
		start = d.ends[id-1]
	}
	return d.text[start:d.ends[id]:d.ends[id]]
}

// decode reads a file that gen wrote: compressed by flate, 256 bytes, then in six planes the low, middle and high bytes of all left and
// of all right ranks. It panics if the file is damaged: it is a part of the program.
func decode(file []byte) *decoded {
	data, err := io.ReadAll(flate.NewReader(bytes.NewReader(file)))
	if err != nil || len(data) < 256 || (len(data)-256)%6 != 0 {
		panic("bpe: the embedded vocabulary is damaged")
	}
	n := (len(data) - 256) / 6
	plane := func(i int) []byte { return data[256+i*n:][:n] }
	d := &decoded{left: make([]uint32, n), right: make([]uint32, n), text: make([]byte, 0, 9*n), ends: make([]uint32, 0, n+256)}
	for i := range n {
		d.left[i] = uint32(plane(0)[i]) | uint32(plane(1)[i])<<8 | uint32(plane(2)[i])<<16
		d.right[i] = uint32(plane(3)[i]) | uint32(plane(4)[i])<<8 | uint32(plane(5)[i])<<16
	}
	d.text = append(d.text, data[:256]...)
	for i := range 256 {
		d.ends = append(d.ends, uint32(i+1))
	}
	for i := range n {
		d.text = append(d.text, d.token(d.left[i])...)
		d.text = append(d.text, d.token(d.right[i])...)
		d.ends = append(d.ends, uint32(len(d.text)))
	}
	return d
}
