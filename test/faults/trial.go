// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/usage"
)

// Violation is a broken invariant, as opposed to a harness that does not work.
type Violation struct{ what string }

func (v *Violation) Error() string { return v.what }

func violation(format string, args ...any) error { return &Violation{fmt.Sprintf(format, args...)} }

// Tally is what a round, or a run, comes to.
type Tally struct {
	Requests   int // that clients sent
	Refused    int // of them: by the gateway, without a row
	Rows       int
	Unresolved int // rows
	AtRisk     int // exchanges whose line may have been lost: as many rows may be unresolved at most
	Estimated  int // rows, without the unresolved

	unresolved, estimated guesses // of those rows of which a provider knows
}

// guesses are tokens of rows that rest on an estimate, and what the provider counted of the same exchanges.
type guesses struct{ guessed, served int64 }

func (g *guesses) add(o guesses) {
	g.guessed += o.guessed
	g.served += o.served
}

func (g *guesses) note(r *row, a *attempt) {
	if a != nil {
		g.add(guesses{r.tokens.Input + r.tokens.Output, a.Input + a.Output})
	}
}

// String is by how much they are off, all together.
func (g guesses) String() string {
	if g.served == 0 {
		return ""
	}
	return fmt.Sprintf("(%+.0f%%)", 100*float64(g.guessed-g.served)/float64(g.served))
}

// add adds another tally.
func (t *Tally) add(o Tally) {
	t.Requests += o.Requests
	t.Refused += o.Refused
	t.Rows += o.Rows
	t.Unresolved += o.Unresolved
	t.AtRisk += o.AtRisk
	t.Estimated += o.Estimated
	t.unresolved.add(o.unresolved)
	t.estimated.add(o.estimated)
}

// String is how a tally is printed; after the numbers of unresolved and of estimated rows stands by how much their tokens are off.
func (t Tally) String() string {
	return fmt.Sprintf("requests=%d refused=%d rows=%d unresolved=%d/%d%v estimated=%d%v",
		t.Requests, t.Refused, t.Rows, t.Unresolved, t.AtRisk, t.unresolved, t.Estimated, t.estimated)
}

// trial is the evidence of one round.
type trial struct {
	sent      []*sent
	ledgers   map[*provider]fake.Snapshot
	lost      []span // in which lines of the log may have been lost
	before    map[uuid.UUID]row
	mayRefuse bool            // there was no processor, or no Envoy, for a while
	mayCut    bool            // there was no Envoy
	ahead     []time.Duration // that the processor's clock was, at one time or another; at least 0
}

// hear compares the rows with everything else and returns what the round came to, and the rows that it has found right.
func (t *trial) hear(rows []row) (Tally, []row, error) {
	tally := Tally{Requests: len(t.sent)}
	fresh, err := t.unchanged(rows)
	if err != nil {
		return tally, nil, err
	}
	exchanges, err := t.gather(fresh)
	if err != nil {
		return tally, nil, err
	}
	strangers, nameless := 0, 0
	for _, s := range t.sent {
		if s.exchange == uuid.Nil {
			nameless++
		}
		if err := t.client(s); err != nil {
			return tally, nil, err
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(exchanges), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) {
		e := exchanges[id]
		if err := t.exchange(e, &tally); err != nil {
			return tally, nil, violation("exchange %s: %v", id, err)
		}
		if e.sent == nil && len(e.attempts) == 0 {
			strangers++
		}
	}
	if strangers > nameless {
		return tally, nil, violation("%d rows are of exchanges that neither a client nor a provider knows; %d clients left without learning their exchange's id", strangers, nameless)
	}
	return tally, fresh, nil
}

// client judges what a client went through.
func (t *trial) client(s *sent) error {
	switch {
	case s.torn:
		return violation("exchange %s: the client was told that an answer is whole, and it lacks its end", s.exchange)
	case s.status == 0 && s.leave == stays && !t.mayCut:
		return violation("a client that stayed got no answer, with Envoy alive: %s, %d bytes", s.path, len(s.body))
	}
	return nil
}

// exchange judges one exchange and counts it.
func (t *trial) exchange(e *exchange, tally *Tally) error {
	if len(e.rows) == 0 {
		switch {
		case len(e.attempts) > 0:
			return fmt.Errorf("it reached a provider (%s), and has no row", e.last().Outcome)
		case e.sent.status < 400:
			return fmt.Errorf("the client got %d, and no provider saw it", e.sent.status)
		case !t.mayRefuse:
			return fmt.Errorf("it was refused with %d, though the processor and Envoy were well", e.sent.status)
		default:
			tally.Refused++
		}
		return nil
	}
	if s := e.sent; s != nil && s.leave == stays && s.status == 200 && !s.whole && !t.mayCut && (e.last() == nil || e.last().Outcome != fake.Cut) {
		return fmt.Errorf("the client lost its answer after %d bytes; neither it nor the provider broke off", s.bytes)
	}
	if err := e.judge(); err != nil {
		return err
	}
	r := &e.rows[0]
	tally.Rows++
	atRisk := e.near(t.lost)
	if atRisk {
		tally.AtRisk++
	}
	switch {
	case r.status == usage.StatusUnresolved && !atRisk:
		return fmt.Errorf("it is unresolved, and its line cannot have been lost: %+v", *r)
	case r.status == usage.StatusUnresolved:
		tally.Unresolved++
		tally.unresolved.note(r, e.last())
	case r.estimated:
		tally.Estimated++
		tally.estimated.note(r, e.last())
	}
	return nil
}

// unchanged compares the rows of earlier rounds with what they were, and returns the others. Only an estimate may change, when a database
// that was rolled back is fed again; and an unresolved row, when its line is found after all.
func (t *trial) unchanged(rows []row) (fresh []row, err error) {
	found := 0
	for _, r := range rows {
		old, known := t.before[r.exchange]
		if !known {
			fresh = append(fresh, r)
			continue
		}
		found++
		if old.status == usage.StatusUnresolved {
			continue
		}
		if old.estimated && r.estimated {
			old.tokens = r.tokens
		}
		if !r.ts.Equal(old.ts) {
			return nil, violation("exchange %s: its row was of %v and is of %v", r.exchange, old.ts, r.ts)
		}
		old.ts = r.ts
		if r != old {
			return nil, violation("exchange %s: its row was %+v and is %+v", r.exchange, old, r)
		}
	}
	if found != len(t.before) {
		return nil, violation("of %d rows of earlier rounds, %d are there", len(t.before), found)
	}
	return fresh, nil
}

// gather puts together what belongs to one exchange.
func (t *trial) gather(rows []row) (map[uuid.UUID]*exchange, error) {
	all := make(map[uuid.UUID]*exchange)
	of := func(id uuid.UUID) *exchange {
		if all[id] == nil {
			all[id] = new(exchange)
		}
		return all[id]
	}
	for _, r := range rows {
		e := of(r.exchange)
		e.rows, e.ahead = append(e.rows, r), t.ahead
	}
	for _, s := range t.sent {
		if s.exchange == uuid.Nil {
			continue
		}
		e := of(s.exchange)
		if e.sent != nil {
			return nil, violation("exchange %s: two clients were told this id", s.exchange)
		}
		e.sent = s
	}
	for p, ledger := range t.ledgers {
		for name, attempts := range ledger.Exchanges {
			id, err := uuid.Parse(name)
			if err != nil {
				return nil, violation("a request reached a provider as exchange %q", name)
			}
			e := of(id)
			for _, a := range attempts {
				e.attempts = append(e.attempts, attempt{a, p.channel})
			}
			slices.SortFunc(e.attempts, func(a, b attempt) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.channel, b.channel)) })
		}
	}
	return all, nil
}

// check reads the books and judges them.
func (w *world) check(ctx context.Context, t *trial) (Tally, []row, error) {
	conn, err := w.db.connect(ctx)
	if err != nil {
		return Tally{}, nil, fmt.Errorf("connect to the books: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	if err := checkRead(ctx, conn, w.rig.LogDir); err != nil {
		return Tally{}, nil, err
	}
	rows, err := readRows(ctx, conn)
	if err != nil {
		return Tally{}, nil, err
	}
	tally, fresh, err := t.hear(rows)
	if err != nil {
		return tally, nil, err
	}
	return tally, fresh, checkSums(ctx, conn)
}
