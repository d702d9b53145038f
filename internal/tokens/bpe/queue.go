// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// maxPooled is the length in bytes of the longest piece that is counted with memory from a pool. Longer ones take turns, so that requests which
// are made to use memory wait for each other and not others for them.
const maxPooled = 64 << 10

// queues keeps the memory of queues.
type queues struct {
	pool sync.Pool // of *queue

	mu   sync.Mutex
	long queue // guarded by mu; nil nodes unless a long piece was counted
}

func (q *queues) count(v *vocabulary, piece []byte) int {
	if len(piece) > maxPooled {
		q.mu.Lock()
		defer q.mu.Unlock()
		defer q.long.shrink()
		return q.long.count(v, piece)
	}
	p, ok := q.pool.Get().(*queue)
	if !ok {
		p = new(queue)
	}
	defer q.pool.Put(p)
	return p.count(v, piece)
}

// queue joins the tokens of one piece, lowest rank first.
//
// The tokens are nodes of a list in the order of the text. A node whose pair with the next makes up a token is in the bucket of that token's
// rank, a list too. A bucket holds the same pair of tokens everywhere, and what its joins bring about has a higher rank. So the buckets
// are emptied once, from the lowest to the highest, and a bitmap of two levels tells the next one that is not empty.
// When all are empty, the queue is as it was made.
type queue struct {
	nodes   []node
	buckets []int32  // the first node of each rank, plus one; zero is none
	taken   []uint64 // a bit for each bucket
	words   []uint64 // a bit for each word of taken that is not zero
}

// node is a token of the piece. It is known by the place of its first byte.
type node struct {
	id         uint32 // the token
	rank       uint32 // of the pair with the next token; none if there is none
	prev, next int32  // in the text; -1 and the length of the piece at the ends
	up, down   int32  // in the bucket, each plus one; zero at the ends
}

// shrink gives memory back that only a very long piece needs.
func (q *queue) shrink() {
	if len(q.nodes) > 16*maxPooled {
		q.nodes = nil
	}
}

func (q *queue) reset(v *vocabulary, n int) {
	if len(q.nodes) < n {
		q.nodes = make([]node, max(n, 1024))
	}
	if q.buckets == nil {
		taken := (v.size + 63) / 64
		q.buckets, q.taken, q.words = make([]int32, v.size), make([]uint64, taken), make([]uint64, (taken+63)/64)
	}
}

// count returns how many tokens a piece has.
func (q *queue) count(v *vocabulary, piece []byte) int {
	q.reset(v, len(piece))
	n := len(piece)
	for i := n - 1; i >= 0; i-- { // backwards, so that a bucket begins with its leftmost node
		q.nodes[i] = node{id: v.bytes[piece[i]], rank: none, prev: int32(i - 1), next: int32(i + 1)}
		if i+1 < n {
			q.push(int32(i), v.twos[binary.LittleEndian.Uint16(piece[i:])])
		}
	}
	tokens := n
	for rank := q.lowest(0); rank != none; rank = q.lowest(rank) {
		for q.buckets[rank] != 0 {
			// Pairs of a bucket overlap only where one token repeats, as in a run of blanks. There the leftmost goes first,
			// and then every second; all of the run leaves the bucket.
			i := q.buckets[rank] - 1
			for p := q.nodes[i].prev; p >= 0 && q.nodes[p].rank == rank; p = q.nodes[i].prev {
				i = p
			}
			for ; int(i) < n && q.nodes[i].rank == rank; i = q.nodes[i].next {
				q.join(v, i, n)
				tokens--
			}
		}
	}
	return tokens
}

// join makes one token of the node i and the next one, of n bytes.
func (q *queue) join(v *vocabulary, i int32, n int) {
	a := &q.nodes[i]
	b := &q.nodes[a.next]
	a.id = a.rank
	q.pull(i)
	q.pull(a.next)
	a.next = b.next
	if int(a.next) < n {
		c := &q.nodes[a.next]
		c.prev = i
		q.push(i, v.pairs.of(a.id, c.id))
	}
	if a.prev >= 0 {
		q.pull(a.prev)
		q.push(a.prev, v.pairs.of(q.nodes[a.prev].id, a.id))
	}
}

// push puts a node that is in no bucket into that of a rank, if it is one.
func (q *queue) push(i int32, rank uint32) {
	if rank == none {
		return
	}
	d := &q.nodes[i]
	d.rank, d.up, d.down = rank, 0, q.buckets[rank]
	if d.down != 0 {
		q.nodes[d.down-1].up = i + 1
	} else {
		q.taken[rank>>6] |= 1 << (rank & 63)
		q.words[rank>>12] |= 1 << (rank >> 6 & 63)
	}
	q.buckets[rank] = i + 1
}

// pull takes a node out of its bucket, if it is in one.
func (q *queue) pull(i int32) {
	d := &q.nodes[i]
	if d.rank == none {
		return
	}
	if d.down != 0 {
		q.nodes[d.down-1].up = d.up
	}
	if d.up != 0 {
		q.nodes[d.up-1].down = d.down
	} else if q.buckets[d.rank] = d.down; d.down == 0 {
		w := d.rank >> 6
		if q.taken[w] &^= 1 << (d.rank & 63); q.taken[w] == 0 {
			q.words[w>>6] &^= 1 << (w & 63)
		}
	}
	d.rank = none
}

// lowest returns the lowest rank whose bucket is not empty. There must be none below from.
func (q *queue) lowest(from uint32) uint32 {
	for i := int(from >> 12); i < len(q.words); i++ {
		if m := q.words[i]; m != 0 {
			w := i<<6 + bits.TrailingZeros64(m)
			return uint32(w<<6 + bits.TrailingZeros64(q.taken[w]))
		}
	}
	return none
}
