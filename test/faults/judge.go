// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// row is what the judge reads of a row of weir.usage.
type row struct {
	exchange   uuid.UUID
	ts         time.Time
	key        policy.KeyID
	channel    policy.ChannelID
	model      string
	status     usage.Status
	httpStatus int
	attempts   int
	stream     bool
	estimated  bool
	tokens     fake.Tokens
	request    int64 // bytes
	response   int64 // bytes
}

// attempt is one in the ledger of a provider.
type attempt struct {
	fake.Attempt
	channel policy.ChannelID // whose provider it is
}

// exchange is all the evidence of one exchange. Any of it may be missing.
type exchange struct {
	rows     []row
	sent     *sent
	attempts []attempt       // in order of arrival
	ahead    []time.Duration // that the clock may have been when it was admitted
}

// last is the attempt whose answer the client got, if any got through.
func (e *exchange) last() *attempt {
	if len(e.attempts) == 0 {
		return nil
	}
	return &e.attempts[len(e.attempts)-1]
}

// judge compares a row with what the client and the provider know of its exchange, and says what does not fit.
func (e *exchange) judge() error {
	r := &e.rows[0]
	if len(e.rows) > 1 {
		return fmt.Errorf("it has %d rows", len(e.rows))
	}
	if r.status == usage.StatusUnresolved {
		if !r.estimated {
			return fmt.Errorf("an unresolved row must be estimated: %+v", *r)
		}
		return nil
	}
	if err := e.facts(r); err != nil {
		return err
	}
	if err := e.tokens(r); err != nil {
		return err
	}
	return e.ending(r)
}

// facts checks what does not depend on how the exchange ended.
func (e *exchange) facts(r *row) error {
	if a := e.last(); a != nil && r.channel != a.channel && r.attempts <= len(e.attempts) {
		return fmt.Errorf("its row names channel %d after %d attempts; the last of %d that came was at channel %d: %+v",
			r.channel, r.attempts, len(e.attempts), a.channel, *r)
	}
	s := e.sent
	if s == nil {
		return nil
	}
	if r.model != s.model || r.stream != s.stream {
		return fmt.Errorf("its row is of model %s, stream %t; sent was %s, %t", r.model, r.stream, s.model, s.stream)
	}
	if s.leave == stays && r.request != int64(len(s.body)) {
		return fmt.Errorf("its row has %d bytes of request; sent were %d", r.request, len(s.body))
	}
	const slack = time.Second // the processor rounds, and stamps behind the first byte
	for _, ahead := range e.ahead {
		if ts := r.ts.Add(-ahead); ts.After(s.began.Add(-slack)) && ts.Before(s.ended.Add(slack)) {
			return nil
		}
	}
	return fmt.Errorf("its row is of %v; it was sent at %v and ended at %v; the clock was ahead by %v", r.ts, s.began, s.ended, e.ahead)
}

// tokens checks the tokens: those of the provider, or none, or an estimate where nothing else was possible.
func (e *exchange) tokens(r *row) error {
	a, s := e.last(), e.sent
	none := r.tokens == fake.Tokens{}
	if a == nil || r.channel != a.channel { // the provider has not read it, or not yet
		if none || r.estimated && r.tokens.Output == 0 {
			return nil
		}
		return fmt.Errorf("no provider served it, and its row has tokens: %+v", *r)
	}
	failed := a.Outcome == fake.Failed || r.httpStatus >= http.StatusBadRequest
	stayed := s != nil && (s.leave == stays || s.whole)
	switch {
	case r.estimated && a.Outcome == fake.Complete && stayed && s.whole && !s.silent:
		return fmt.Errorf("the provider reported its tokens, %+v, and the client read them all; its row is estimated: %+v", a.Tokens, *r)
	case r.estimated && failed && r.status != usage.StatusClientClosed:
		return fmt.Errorf("an error costs nothing, and its row is estimated: %+v", *r)
	case r.estimated:
		return nil
	case failed && none:
		return nil
	case s != nil && s.silent:
		return fmt.Errorf("the provider reported no tokens, and its row is exact: %+v", *r)
	case r.tokens != a.Tokens:
		return fmt.Errorf("the provider counted %+v (%s after %d events), its row says that it is exact with %+v, %+v", a.Tokens, a.Outcome, a.Events, r.tokens, *r)
	}
	return nil
}

// ending checks status and length for a client that read its answer to the end.
func (e *exchange) ending(r *row) error {
	s := e.sent
	if s == nil || !s.whole {
		return nil
	}
	if a := e.last(); a != nil && a.Outcome == fake.Cut && s.status == http.StatusOK {
		return fmt.Errorf("the provider broke off after %d events, and the client takes its answer for whole", a.Events)
	}
	want := usage.StatusOK
	if s.status != http.StatusOK {
		want = usage.StatusUpstreamError
	}
	if r.status != want || r.httpStatus != s.status || r.response != s.bytes {
		return fmt.Errorf("the client got %d and all of %d bytes; its row: %+v", s.status, s.bytes, *r)
	}
	return nil
}

// span is a time in which lines of the log were lost.
type span struct {
	by       Kind
	from, to time.Time
}

// flushSlack is how long before an Envoy's death an exchange may have ended whose line died with it: the flush interval, and some more since
// on a busy machine a flush has been seen to be late by a quarter of a second.
const flushSlack = envoy.LogFlush + 700*time.Millisecond

// near says whether the exchange was under way, or just over, in a span.
func (e *exchange) near(spans []span) bool {
	for _, life := range e.lives() {
		for _, s := range spans {
			if life.from.Before(s.to) && (life.to.IsZero() || life.to.After(s.from.Add(-flushSlack))) {
				return true
			}
		}
	}
	return false
}

// lives returns when the exchange may have been under way; an end is zero when nobody saw it. There is more than one possibility when all
// that is known of it is what a clock said that was set.
func (e *exchange) lives() []span {
	if e.sent != nil {
		return []span{{from: e.sent.began, to: e.sent.ended}}
	}
	if a := e.last(); a != nil {
		return []span{{from: a.Time}}
	}
	var lives []span
	for _, ahead := range e.ahead {
		lives = append(lives, span{from: e.rows[0].ts.Add(-ahead)})
	}
	return lives
}
