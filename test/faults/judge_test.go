// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/usage"
)

var (
	noon   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	one    = uuid.MustParse("01a20431-0000-7000-8000-000000000001")
	served = fake.Tokens{Input: 10, Output: 5}
)

// answered is the evidence of an exchange that went well.
func answered() *exchange {
	return &exchange{
		ahead: []time.Duration{0},
		rows: []row{{
			exchange: one, ts: noon, key: 1, channel: 7, model: "m", status: usage.StatusOK, httpStatus: 200, attempts: 1,
			tokens: served, request: 4, response: 20,
		}},
		sent: &sent{
			call: call{model: "m", body: "body"}, exchange: one, status: 200, whole: true, bytes: 20, began: noon, ended: noon.Add(time.Second),
		},
		attempts: []attempt{{channel: 7, Attempt: fake.Attempt{
			Received: fake.Received{Time: noon}, Served: fake.Served{Status: 200, Tokens: served, Outcome: fake.Complete},
		}}},
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(e *exchange)
		want   string // in the complaint; empty when there must be none
	}{
		"all is well":         {func(*exchange) {}, ""},
		"two rows":            {func(e *exchange) { e.rows = append(e.rows, e.rows[0]) }, "2 rows"},
		"one token too many":  {func(e *exchange) { e.rows[0].tokens.Output++ }, "the provider counted"},
		"one cached too many": {func(e *exchange) { e.rows[0].tokens.CachedInput++ }, "the provider counted"},
		"estimated for no reason": {
			func(e *exchange) { e.rows[0].estimated = true }, "its row is estimated",
		},
		"exact though nothing was reported": {
			func(e *exchange) { e.sent.silent = true }, "reported no tokens",
		},
		"estimated since nothing was reported": {
			func(e *exchange) { e.sent.silent, e.rows[0].estimated, e.rows[0].tokens.Output = true, true, 6 }, "",
		},
		"another channel":                 {func(e *exchange) { e.rows[0].channel = 8 }, "names channel 8"},
		"another model":                   {func(e *exchange) { e.rows[0].model = "n" }, "of model n"},
		"another time":                    {func(e *exchange) { e.rows[0].ts = noon.Add(time.Hour) }, "its row is of"},
		"another time, as the clock said": {func(e *exchange) { e.rows[0].ts, e.ahead = noon.Add(time.Hour), []time.Duration{0, time.Hour} }, ""},
		"another time than the clock said": {
			func(e *exchange) { e.rows[0].ts, e.ahead = noon.Add(time.Hour), []time.Duration{0, -time.Hour} }, "its row is of",
		},
		"another status":           {func(e *exchange) { e.rows[0].status = usage.StatusTimeout }, "the client got 200"},
		"another length of answer": {func(e *exchange) { e.rows[0].response = 21 }, "the client got 200"},
		"another length of body":   {func(e *exchange) { e.rows[0].request = 5 }, "bytes of request"},
		"tokens from nowhere":      {func(e *exchange) { e.attempts = nil }, "no provider served it"},
		"cut, and estimated": {
			func(e *exchange) {
				e.attempts[0].Outcome, e.sent.whole, e.rows[0].estimated, e.rows[0].status = fake.Cut, false, true, usage.StatusUpstreamError
			}, "",
		},
		"cut, and whole for the client": {
			func(e *exchange) { e.attempts[0].Outcome = fake.Cut }, "takes its answer for whole",
		},
		"cut, and called exact": {
			func(e *exchange) {
				e.attempts[0].Outcome, e.attempts[0].Output, e.sent.whole = fake.Cut, 2, false
			}, "says that it is exact",
		},
		"an error that costs": {
			func(e *exchange) {
				e.attempts[0].Served = fake.Served{Status: 500, Outcome: fake.Failed}
				e.sent.status, e.rows[0].httpStatus, e.rows[0].status = 500, 500, usage.StatusUpstreamError
			}, "the provider counted",
		},
		"unresolved and exact":     {func(e *exchange) { e.rows[0].status = usage.StatusUnresolved }, "must be estimated"},
		"unresolved and estimated": {func(e *exchange) { e.rows[0].status, e.rows[0].estimated = usage.StatusUnresolved, true }, ""},
	} {
		e := answered()
		c.change(e)
		complain(t, name, e.judge(), c.want)
	}
}

// complain checks that an error says what is wanted, or is none when nothing is.
func complain(t *testing.T, name string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want %q", name, err, want)
	}
}

// trialOf puts evidence before the judge.
func trialOf(e *exchange) (*trial, []row) {
	p := &provider{channel: 7}
	l := fake.Snapshot{Exchanges: map[string][]fake.Attempt{}}
	for _, a := range e.attempts {
		l.Exchanges[one.String()] = append(l.Exchanges[one.String()], a.Attempt)
	}
	t := &trial{ledgers: map[*provider]fake.Snapshot{p: l}, ahead: []time.Duration{0}}
	if e.sent != nil {
		t.sent = append(t.sent, e.sent)
	}
	return t, e.rows
}

func TestTrial(t *testing.T) {
	during := []span{{from: noon, to: noon.Add(time.Second)}}
	for name, c := range map[string]struct {
		change func(e *exchange)
		prefer func(t *trial)
		want   string
		tally  Tally
	}{
		"all is well": {tally: Tally{Requests: 1, Rows: 1}},
		"a row is missing": {
			change: func(e *exchange) { e.rows = nil }, want: "it reached a provider (complete), and has no row", tally: Tally{Requests: 1},
		},
		"a row is missing, as lines are": {
			change: func(e *exchange) { e.rows = nil }, prefer: func(t *trial) { t.lost = during }, want: "has no row", tally: Tally{Requests: 1},
		},
		"unresolved for no reason": {
			change: func(e *exchange) { e.rows[0].status, e.rows[0].estimated = usage.StatusUnresolved, true },
			want:   "cannot have been lost", tally: Tally{Requests: 1, Rows: 1},
		},
		"unresolved, as lines are missing": {
			change: func(e *exchange) { e.rows[0].status, e.rows[0].estimated = usage.StatusUnresolved, true },
			prefer: func(t *trial) { t.lost = during },
			tally:  Tally{Requests: 1, Rows: 1, Unresolved: 1, AtRisk: 1, unresolved: guesses{15, 15}},
		},
		"unresolved, as lines of another time are missing": {
			change: func(e *exchange) { e.rows[0].status, e.rows[0].estimated = usage.StatusUnresolved, true },
			prefer: func(t *trial) { t.lost = []span{{from: noon.Add(time.Minute), to: noon.Add(time.Hour)}} },
			want:   "cannot have been lost", tally: Tally{Requests: 1, Rows: 1},
		},
		"its line is there, as others are missing": {
			prefer: func(t *trial) { t.lost = during }, tally: Tally{Requests: 1, Rows: 1, AtRisk: 1},
		},
		"refused": {
			change: func(e *exchange) {
				e.rows, e.attempts, e.sent = nil, nil, &sent{exchange: one, status: http.StatusServiceUnavailable}
			},
			prefer: func(t *trial) { t.mayRefuse = true }, tally: Tally{Requests: 1, Refused: 1},
		},
		"refused for no reason": {
			change: func(e *exchange) {
				e.rows, e.attempts, e.sent = nil, nil, &sent{exchange: one, status: http.StatusServiceUnavailable}
			},
			want: "it was refused with 503", tally: Tally{Requests: 1},
		},
		"no answer": {
			change: func(e *exchange) { e.sent.status, e.sent.exchange = 0, uuid.Nil }, want: "got no answer", tally: Tally{Requests: 1},
		},
		"no answer from a dead envoy": {
			change: func(e *exchange) { e.sent.status, e.sent.exchange, e.sent.whole = 0, uuid.Nil, false },
			prefer: func(t *trial) { t.mayCut = true }, tally: Tally{Requests: 1, Rows: 1},
		},
		"an answer is lost on the way": {
			change: func(e *exchange) { e.sent.whole = false }, want: "neither it nor the provider broke off", tally: Tally{Requests: 1},
		},
		"answered by nobody": {
			change: func(e *exchange) { e.rows, e.attempts = nil, nil }, want: "no provider saw it", tally: Tally{Requests: 1},
		},
		"invented": {
			change: func(e *exchange) { e.sent, e.attempts, e.rows[0].tokens = nil, nil, fake.Tokens{} },
			want:   "neither a client nor a provider knows", tally: Tally{Rows: 1},
		},
		"left before it learnt its id": {
			change: func(e *exchange) { e.sent.exchange, e.attempts, e.rows[0].tokens = uuid.Nil, nil, fake.Tokens{} },
			tally:  Tally{Requests: 1, Rows: 1},
		},
		"cut, and called whole": {
			change: func(e *exchange) { e.sent.torn = true }, want: "lacks its end", tally: Tally{Requests: 1},
		},
		"an old row changed": {
			prefer: func(t *trial) { t.before = map[uuid.UUID]row{one: {exchange: one, ts: noon}} },
			want:   "its row was", tally: Tally{Requests: 1},
		},
		"an old row is gone": {
			prefer: func(t *trial) { t.before = map[uuid.UUID]row{uuid.New(): {}} },
			want:   "of 1 rows of earlier rounds, 0 are there", tally: Tally{Requests: 1},
		},
	} {
		e := answered()
		if c.change != nil {
			c.change(e)
		}
		trial, rows := trialOf(e)
		if c.prefer != nil {
			c.prefer(trial)
		}
		tally, _, err := trial.hear(rows)
		complain(t, name, err, c.want)
		if tally != c.tally {
			t.Errorf("%s: got %v, want %v", name, tally, c.tally)
		}
	}
}
