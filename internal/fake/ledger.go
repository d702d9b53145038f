// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
	"unique"
)

// Outcome says how an attempt ended.
type Outcome string

// How an attempt can end.
const (
	Open         Outcome = "open"          // it has not ended
	Complete     Outcome = "complete"      // the answer was written to its end
	Failed       Outcome = "error"         // the answer was an error
	Cut          Outcome = "cut"           // the provider reset the connection
	ClientClosed Outcome = "client_closed" // the peer left before the end
)

// Tokens is what an attempt served. Cached and reasoning tokens are included in input and output.
type Tokens struct {
	Input       int64 `json:"input_tokens"`
	CachedInput int64 `json:"cached_input_tokens"`
	Output      int64 `json:"output_tokens"`
	Reasoning   int64 `json:"reasoning_tokens"`
}

// Credential is what the caller showed, as it came.
type Credential struct {
	Header string `json:"header"` // "authorization", "api-key" or "x-api-key", the first of them that came; empty when none did
	Value  string `json:"value"`
}

// Received is a request as it reached the provider.
type Received struct {
	Time        time.Time   `json:"time"`
	Account     string      `json:"account"` // whose credential it was
	Method      string      `json:"method"`
	Path        string      `json:"path"`
	Host        string      `json:"host"`
	Protocol    string      `json:"protocol"` // such as "HTTP/1.1"
	Credential  Credential  `json:"credential"`
	HeaderNames []string    `json:"header_names"`      // of all headers, lower case, sorted
	Headers     http.Header `json:"headers,omitempty"` // with [Options.KeepHeaders]
	BodyBytes   int64       `json:"body_bytes"`
	BodySHA256  string      `json:"body_sha256"`    // hexadecimal
	Body        string      `json:"body,omitempty"` // with [Options.KeepBody]
	Model       string      `json:"model"`
	Stream      bool        `json:"stream"` // as asked
}

// Served is what the provider did with a request.
type Served struct {
	Status int `json:"status"` // 0 when nothing was written
	Tokens
	Events        int64   `json:"events"` // that were written; a JSON answer is one
	ResponseBytes int64   `json:"response_bytes"`
	Outcome       Outcome `json:"outcome"`
}

// Attempt is one request that reached the provider.
type Attempt struct {
	Received
	Served
}

// Totals sums the attempts since the last reset. It is exact, also when single attempts are no longer kept.
type Totals struct {
	Requests     int64 `json:"requests"`
	Open         int64 `json:"open"`
	Completed    int64 `json:"completed"`
	Errors       int64 `json:"errors"`
	Cut          int64 `json:"cut"`
	ClientClosed int64 `json:"client_closed"`
	Streams      int64 `json:"streams"` // requests that asked for a stream
	Tokens
	Events        int64 `json:"events"`
	BodyBytes     int64 `json:"body_bytes"`
	ResponseBytes int64 `json:"response_bytes"`
	NotKept       int64 `json:"not_kept"` // attempts that are only in the totals
}

// Snapshot is a ledger at one moment.
type Snapshot struct {
	Totals    Totals               `json:"totals"`
	Exchanges map[string][]Attempt `json:"exchanges"` // by x-client-request-id, in order of arrival; "" for requests without one
}

// Ledger counts what a provider served. An attempt is in it from when its request has been read; it is settled before the
// peer can see the last byte of its answer, so whoever has an answer finds it in the ledger.
//
// All methods may be called at any time from any goroutine.
type Ledger struct {
	keep int

	mu         sync.Mutex // guards all below
	generation int        // counts resets
	totals     Totals
	kept       int
	exchanges  map[string]*attempts
}

// attempts are those of one exchange, in order of arrival.
type attempts struct{ first, last *entry }

// entry is an attempt in a form that is cheap to keep a million of: what repeats is shared.
type entry struct {
	next       *entry
	generation int
	open       bool // counted in totals as open
	time       time.Time
	account    unique.Handle[string]
	request    unique.Handle[requestLine]
	credential unique.Handle[Credential]
	names      unique.Handle[string] // joined by newlines
	model      unique.Handle[string]
	sha        [sha256.Size]byte
	stream     bool
	size       int64
	extra      *extra // nil unless headers or bodies are kept
	served     Served
}

// requestLine is the part of a request that all requests of a kind have in common.
type requestLine struct{ method, path, host, protocol string }

// extra is what is kept only on demand.
type extra struct {
	headers http.Header
	body    string
}

// open enters an attempt of an exchange.
func (l *Ledger) open(exchange string, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.generation, e.open = l.generation, true
	e.served.Outcome = Open
	l.totals.Requests++
	l.totals.Open++
	l.totals.BodyBytes += e.size
	if e.stream {
		l.totals.Streams++
	}
	if l.kept >= l.keep {
		l.totals.NotKept++
		return
	}
	l.kept++
	if l.exchanges == nil {
		l.exchanges = make(map[string]*attempts)
	}
	if a := l.exchanges[exchange]; a != nil {
		a.last.next = e
		a.last = e
		return
	}
	l.exchanges[strings.Clone(exchange)] = &attempts{e, e}
}

// settle enters how an attempt ended. A later call replaces an earlier one: an attempt is settled as complete before its last
// write, and again should that write fail. An attempt from before a reset is forgotten.
func (l *Ledger) settle(e *entry, s Served) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.generation != l.generation {
		return
	}
	if e.open {
		l.totals.Open--
		e.open = false
	} else {
		l.totals.add(e.served, -1)
	}
	e.served = s
	l.totals.add(s, +1)
}

// add counts an attempt that has ended, or with sign -1 takes it back.
func (t *Totals) add(s Served, sign int64) {
	switch s.Outcome {
	case Complete:
		t.Completed += sign
	case Failed:
		t.Errors += sign
	case Cut:
		t.Cut += sign
	case ClientClosed:
		t.ClientClosed += sign
	}
	t.Input += sign * s.Input
	t.CachedInput += sign * s.CachedInput
	t.Output += sign * s.Output
	t.Reasoning += sign * s.Reasoning
	t.Events += sign * s.Events
	t.ResponseBytes += sign * s.ResponseBytes
}

// Totals returns the sums since the last reset.
func (l *Ledger) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals
}

// Attempts returns the attempts of one exchange in order of arrival; none if the exchange never reached the provider.
func (l *Ledger) Attempts(exchange string) []Attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exchanges[exchange].list()
}

// Snapshot returns the totals and every attempt that is kept.
func (l *Ledger) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Snapshot{Totals: l.totals, Exchanges: make(map[string][]Attempt, len(l.exchanges))}
	for id, as := range l.exchanges {
		s.Exchanges[id] = as.list()
	}
	return s
}

// Reset forgets everything, requests in flight included.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	l.totals, l.kept, l.exchanges = Totals{}, 0, nil
}

// list copies the attempts. The ledger's lock must be held.
func (a *attempts) list() []Attempt {
	if a == nil {
		return nil
	}
	var list []Attempt
	for e := a.first; e != nil; e = e.next {
		list = append(list, e.attempt())
	}
	return list
}

// attempt is the entry in the form that is published.
func (e *entry) attempt() Attempt {
	line := e.request.Value()
	r := Received{
		Time: e.time, Account: e.account.Value(),
		Method: line.method, Path: line.path, Host: line.host, Protocol: line.protocol,
		Credential:  e.credential.Value(),
		HeaderNames: strings.Split(e.names.Value(), "\n"),
		BodyBytes:   e.size, BodySHA256: hex.EncodeToString(e.sha[:]),
		Model: e.model.Value(), Stream: e.stream,
	}
	if e.extra != nil {
		r.Headers, r.Body = e.extra.headers, e.extra.body
	}
	return Attempt{Received: r, Served: e.served}
}

// headerNames lists the names of all headers, lower case and sorted, one a line.
func headerNames(h http.Header) string {
	names := make([]string, 0, len(h))
	size := 0
	for n := range h {
		names = append(names, n)
		size += len(n) + 1
	}
	sort.Strings(names)
	b := make([]byte, 0, size)
	for i, n := range names {
		if i > 0 {
			b = append(b, '\n')
		}
		b = append(b, n...)
	}
	return strings.ToLower(string(b))
}
