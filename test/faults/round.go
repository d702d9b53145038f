// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/fake"
)

// Run runs the rounds and returns the verdict, a line that begins with "faults: PASS" or "faults: FAIL". It fails the test when the
// verdict is not PASS.
func Run(t testing.TB, o Options) (verdict string) {
	t.Helper()
	w := newWorld(t, o)
	var total Tally
	for i := 1; i <= o.Rounds; i++ {
		tally, err := w.round(t.Context(), i, drawFaults(rand.New(rand.NewPCG(w.Seed, uint64(i)<<16)), w.Kinds, w.Load))
		total.add(tally)
		if err != nil {
			t.Errorf("round %d: %v", i, err)
			return fmt.Sprintf("faults: FAIL round=%d seed=%d state=%s %s: %v", i, o.Seed, w.rig.Dir, total, err)
		}
	}
	return fmt.Sprintf("faults: PASS rounds=%d %s seed=%d", o.Rounds, total, o.Seed)
}

// round runs one round.
func (w *world) round(ctx context.Context, number int, faults []Fault) (Tally, error) {
	began := time.Now()
	w.ahead = []time.Duration{0}
	t := &trial{before: w.judged}
	for _, f := range faults {
		t.mayCut = t.mayCut || f.Kind.killsEnvoy()
		t.mayRefuse = t.mayRefuse || f.Kind.refuses()
		if f.Kind.rollsBack() {
			if err := w.db.takeBackup(ctx); err != nil {
				return Tally{}, err
			}
		}
	}
	var err error
	t.sent, t.lost, err = w.ordeal(ctx, number, faults)
	if err != nil {
		return Tally{}, fmt.Errorf("inject faults: %w", err)
	}
	t.ahead = w.ahead
	probes, err := w.settle(ctx)
	t.sent = append(t.sent, probes...)
	if err != nil {
		return Tally{}, err
	}
	tally, rows, err := w.verdict(ctx, t)
	if err == nil {
		err = w.deaths(faults)
	}
	fmt.Fprintf(w.Out, "round %d: %s: %v, %d commits dropped, %v\n", number, describe(faults), tally, w.proxy.dropped.Swap(0),
		time.Since(began).Round(100*time.Millisecond))
	if err != nil {
		return tally, err
	}
	for _, r := range rows {
		w.judged[r.exchange] = r
	}
	for _, p := range w.providers {
		p.Ledger().Reset()
	}
	return tally, nil
}

func describe(faults []Fault) string {
	if len(faults) == 0 {
		return "no fault"
	}
	var s []string
	for _, f := range faults {
		s = append(s, f.String())
	}
	return strings.Join(s, ", ")
}

// ordeal runs the load and the faults, and returns when the load has ended and everything is whole again.
func (w *world) ordeal(ctx context.Context, number int, faults []Fault) (all []*sent, lost []span, err error) {
	loading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan []*sent, 1)
	go func() { done <- w.load.run(loading, number) }()
	lost, err = w.play(ctx, timeline(faults))
	stop()
	if e := w.end(ctx, FreezeEnvoy); err == nil { // or clients would wait for their answers for ever
		err = e
	}
	all = <-done
	if e := w.heal(ctx); err == nil {
		err = e
	}
	return all, closed(lost, Kinds()...), err
}

// play makes the faults begin and end in time, for as long as the load shall last: what is not over by then is healed soon enough. A fault
// that takes its time may delay the next, and so the end of the load; it leaves out none.
func (w *world) play(ctx context.Context, events []event) (lost []span, err error) {
	began := time.Now()
	for _, e := range events {
		if e.end && e.at > w.Load {
			continue
		}
		if err := until(ctx, began.Add(e.at)); err != nil {
			return lost, err
		}
		if e.end {
			err = w.end(ctx, e.fault.Kind)
			lost = closed(lost, e.fault.Kind)
		} else {
			if e.fault.Kind.losesLines() {
				from := time.Now()
				if e.fault.Kind.killsEnvoy() && !w.frozen.IsZero() {
					from = w.frozen // one that stood still has flushed nothing since
				}
				lost = append(lost, span{by: e.fault.Kind, from: from})
			}
			err = w.begin(ctx, e.fault)
			if e.fault.Kind.killsEnvoy() { // what comes later finds no Envoy
				lost[len(lost)-1].to = w.killed
			}
		}
		if err != nil {
			return lost, fmt.Errorf("%s: %w", e.fault.Kind, err)
		}
	}
	return lost, until(ctx, began.Add(w.Load))
}

// closed ends the spans of some kinds that have no end yet.
func closed(spans []span, kinds ...Kind) []span {
	for i := range spans {
		if spans[i].to.IsZero() && slices.Contains(kinds, spans[i].by) {
			spans[i].to = time.Now()
		}
	}
	return spans
}

// until waits until it is at.
func until(ctx context.Context, at time.Time) error {
	wait := time.NewTimer(time.Until(at))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle waits until nothing is in flight and the last line of the log is in the books: that of a probe, which comes behind all others.
func (w *world) settle(ctx context.Context) (probes []*sent, err error) {
	c := newClient()
	defer c.close()
	if err := eventually("the gateway serves", func() error {
		s := w.probe(ctx, c)
		probes = append(probes, s)
		if s.status != http.StatusOK || !s.whole {
			return fmt.Errorf("a request got status %d", s.status)
		}
		return nil
	}); err != nil {
		return probes, err
	}
	if err := eventually("nothing is in flight", func() error { return w.quiet(ctx) }); err != nil {
		return probes, err
	}
	last := w.probe(ctx, c)
	probes = append(probes, last)
	return probes, eventually("the logs are shipped", func() error { return w.shipped(ctx, last.exchange) })
}

// probe sends a request that nothing should befall.
func (w *world) probe(ctx context.Context, c *client) *sent {
	const body = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Are you there?"}]}`
	return w.load.send(ctx, c, call{path: "/v1/chat/completions", model: "gpt-4o-mini", body: body, header: http.Header{}})
}

func (w *world) quiet(ctx context.Context) error {
	n, err := envoy.Active(ctx, w.rig.EnvoyAdmin)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("envoy has %d exchanges in flight", n)
	}
	for _, p := range w.providers {
		if n := p.Ledger().Totals().Open; n > 0 {
			return fmt.Errorf("a provider has %d exchanges in flight", n)
		}
	}
	return nil
}

// shipped says whether the row of an exchange is there.
func (w *world) shipped(ctx context.Context, exchange uuid.UUID) error {
	conn, err := w.db.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	var n int
	if err := conn.QueryRow(ctx, `select count(*) from weir.usage where exchange_id = $1`, exchange).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("exchange %s has no row", exchange)
	}
	return nil
}

// verdictTime is how long a wrong state of the books may last after the last line is in them: an intent's lease has to end, a database
// that was rolled back has to be fed again.
const verdictTime = 20 * time.Second

// verdict judges the books, again and again until they are right or the time is over.
func (w *world) verdict(ctx context.Context, t *trial) (tally Tally, rows []row, err error) {
	t.ledgers = make(map[*provider]fake.Snapshot)
	for _, p := range w.providers {
		t.ledgers[p] = p.Ledger().Snapshot()
	}
	_ = within(verdictTime, func() error {
		tally, rows, err = w.check(ctx, t)
		return err
	})
	return tally, rows, err
}

// deaths says whether a processor ended by itself though it had a database.
func (w *world) deaths(faults []Fault) error {
	n, err := w.keeper.took()
	if err != nil {
		return fmt.Errorf("start the processor: %w", err)
	}
	for _, f := range faults {
		if f.Kind.stopsPostgres() {
			return nil // it may find none when it starts, and leaves it to its keeper to try again
		}
	}
	if n > 0 {
		return violation("the processor ended by itself %d times", n)
	}
	return nil
}

func eventually(what string, f func() error) error {
	if err := within(patience, f); err != nil {
		return violation("%s: not in time: %v", what, err)
	}
	return nil
}

// within calls f until it returns nil or the time is over; then it returns f's last error.
func within(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || time.Now().After(deadline) || errors.Is(err, context.Canceled) {
			return err
		}
		<-tick.C
	}
}
