// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"bytes"
	"encoding/json"
	"sync"
)

// usage counts tokens as OpenTelemetry does: cached tokens are part of input, reasoning tokens of output.
type usage struct {
	input, cached, output, reasoning int
}

// answer is a whole response, made before its first byte is sent. It is immutable once made, and shared between requests.
type answer struct {
	status     int
	retryAfter int // seconds; negative: no header
	stream     bool
	reports    bool // it is an answer to work: its usage counts
	usage      usage
	body       []byte
	ends       []int // offset in body at which each event ends; a JSON body is one event
	served     []int // content tokens in the events up to and including this one
}

// event appends an event that carries some content tokens.
func (a *answer) event(b []byte, tokens int) {
	if n := len(a.served); n > 0 {
		tokens += a.served[n-1]
	}
	a.body = append(a.body, b...)
	a.ends = append(a.ends, len(a.body))
	a.served = append(a.served, tokens)
}

// data appends a server-sent event without a name: https://html.spec.whatwg.org/multipage/server-sent-events.html.
func (a *answer) data(v any, tokens int) {
	b := append([]byte("data: "), encode(v)...)
	a.event(append(b, "\n\n"...), tokens)
}

// named appends a server-sent event with a name.
func (a *answer) named(name string, v any, tokens int) {
	b := append([]byte("event: "+name+"\ndata: "), encode(v)...)
	a.event(append(b, "\n\n"...), tokens)
}

// upTo says what of the answer's usage was served with the first n events.
func (a *answer) upTo(n int) usage {
	if !a.reports {
		return usage{}
	}
	u := a.usage
	switch {
	case n == len(a.ends):
	case n == 0 || a.served[n-1] == 0:
		u.output, u.reasoning = 0, 0
	default:
		u.output = a.served[n-1] + u.reasoning
	}
	return u
}

// reported says whether the first n bytes of the body hold the whole report of usage: who has read these has been told, though he may
// never see the end of the answer.
func (a *answer) reported(n int) bool {
	from := bytes.LastIndex(a.body, []byte(`"usage":{`))
	if from < 0 || n <= from || !a.reports {
		return false
	}
	depth := 0
	for _, c := range a.body[from:min(n, len(a.body))] {
		switch {
		case c == '{':
			depth++
		case c == '}' && depth == 1:
			return true
		case c == '}':
			depth--
		}
	}
	return false
}

// encode is json.Marshal for the types of this package, which always encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // programmer error: a type that JSON does not have
	}
	return b
}

// recipe is all that an answer depends on.
type recipe struct {
	path      string
	account   string
	body      [32]byte // SHA-256
	tokens    int
	noUsage   bool
	usageLast bool
}

// prepared is an answer with what the ledger wants to know of the request that it answers.
type prepared struct {
	model  string
	stream bool // as asked
	answer *answer
}

// Bounds of a shelf.
const (
	shelfBytes  = 64 << 20
	shelfAnswer = 1 << 20 // a larger answer is made anew each time
)

// shelf keeps answers that were made before, since load tests repeat their requests. When it is full it is emptied.
type shelf struct {
	mu    sync.RWMutex
	made  map[recipe]prepared
	bytes int
}

// get returns the answer to a recipe, if it is on the shelf.
func (s *shelf) get(r recipe) (prepared, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.made[r]
	return p, ok
}

// put keeps an answer.
func (s *shelf) put(r recipe, p prepared) {
	const overhead = 512
	size := len(p.answer.body) + 16*len(p.answer.ends) + overhead
	if size > shelfAnswer {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+size > shelfBytes || s.made == nil {
		s.made, s.bytes = make(map[recipe]prepared), 0
	}
	if _, ok := s.made[r]; !ok {
		s.made[r] = p
		s.bytes += size
	}
}
