// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
)

// Outage is a long one: Postgres is away, and requests come at a steady rate as if nothing had happened.
type Outage struct {
	Down time.Duration
	Rate int // requests/s
	Out  io.Writer
}

const (
	// outageWarm is how long the load runs before Postgres goes, and after it is back.
	outageWarm = 5 * time.Second
	// outageWorkers bounds the requests at once. Each takes a few milliseconds.
	outageWorkers = 256
	// What the processor may grow by, however long the outage is: some 50,000 intents and what the collector leaves lying about; and when it is over, as
	// many rows as a batch has, what is sent of them, and again what is left lying about.
	awaySlack  = 40 << 20
	catchSlack = 112 << 20
)

// RunOutage has Postgres be down for a while under load and returns the verdict, a line that begins with "outage: PASS" or "outage: FAIL". It
// fails the test when the verdict is not PASS. No request may fail, every row must arrive, exact, and memory must not grow with the time that it takes.
func RunOutage(t testing.TB, o Outage) (verdict string) {
	t.Helper()
	w := newWorld(t, Options{Kinds: []Kind{StopPostgres}, Plain: true, Out: o.Out})
	s, err := w.outage(t.Context(), o)
	if err == nil {
		err = s.judge()
	}
	if err != nil {
		t.Error(err)
		return fmt.Sprintf("outage: FAIL state=%s %v: %v", w.rig.Dir, s, err)
	}
	return fmt.Sprintf("outage: PASS %v", s)
}

// survival is what came of an outage.
type survival struct {
	Outage
	sent, failed int64
	late         int64 // requests that no worker was free for; they were not sent
	reached      int64 // a provider
	served       fake.Tokens
	rows         int64
	booked       fake.Tokens
	inexact      int64                                     // rows that are estimated, or unresolved, or not ok
	memory       struct{ before, away, most, after int64 } // away: at most until Postgres was back
	back         atomic.Bool
	caughtUp     time.Duration // from Postgres' return to the last row
	sums         error         // what is wrong with them
}

func (s *survival) String() string {
	return fmt.Sprintf("down=%v rate=%d/s requests=%d failed=%d not_sent=%d rows=%d inexact=%d memory_mib=%d→%d→%d→%d caught_up=%v",
		s.Down, s.Rate, s.sent, s.failed, s.late, s.rows, s.inexact, s.memory.before>>20, s.memory.away>>20, s.memory.most>>20, s.memory.after>>20,
		s.caughtUp.Round(100*time.Millisecond))
}

func (s *survival) judge() error {
	switch {
	case s.failed > 0:
		return violation("%d requests failed", s.failed)
	case s.late > s.sent/100:
		return fmt.Errorf("this machine is too slow for the rate: %d requests were not sent", s.late)
	case s.reached != s.sent:
		return violation("%d requests reached a provider", s.reached)
	case s.rows != s.reached || s.inexact > 0:
		return violation("the provider served %d requests; there are %d rows, %d of them inexact", s.reached, s.rows, s.inexact)
	case s.booked != s.served:
		return violation("the provider counted %+v, the rows add up to %+v", s.served, s.booked)
	case s.memory.away > s.memory.before+awaySlack:
		return violation("the processor came to %d bytes of memory in the outage, from %d; %d more is the bound", s.memory.away, s.memory.before, awaySlack)
	case s.memory.most > s.memory.before+catchSlack:
		return violation("the processor came to %d bytes of memory, from %d; %d more is the bound", s.memory.most, s.memory.before, catchSlack)
	}
	return s.sums
}

// outage runs the load through an outage, and reads the books when they are complete.
func (w *world) outage(ctx context.Context, o Outage) (s *survival, err error) {
	s = &survival{Outage: o}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	load.Go(func() { w.steady(loading, s) })
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	var watch sync.WaitGroup

	err = until(ctx, time.Now().Add(outageWarm))
	if err == nil {
		s.memory.before, err = residentBytes(w.rig.ProcessorPID())
	}
	if err == nil {
		watch.Go(func() { s.watch(watching, w.rig.ProcessorPID()) })
		err = w.db.stop()
	}
	if err == nil {
		err = until(ctx, time.Now().Add(o.Down))
	}
	s.back.Store(true)
	if e := w.db.start(ctx); err == nil {
		err = e
	}
	back := time.Now()
	if err == nil {
		err = until(ctx, back.Add(outageWarm))
	}
	stop()
	load.Wait()
	if err == nil {
		err = within(patience+o.Down, func() error { return w.audit(ctx, s) })
		s.caughtUp = time.Since(back)
	}
	unwatch()
	watch.Wait()
	if err == nil {
		s.memory.after, err = residentBytes(w.rig.ProcessorPID())
	}
	return s, err
}

// steady sends requests at a rate until ctx ends, and returns when the last is answered.
func (w *world) steady(ctx context.Context, s *survival) {
	due := make(chan struct{}, outageWorkers)
	var workers sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: outageWorkers}
	defer transport.CloseIdleConnections()
	for range outageWorkers {
		workers.Go(func() {
			for range due {
				atomic.AddInt64(&s.sent, 1)
				if err := w.ask(transport); err != nil && atomic.AddInt64(&s.failed, 1) == 1 {
					fmt.Fprintln(s.Out, "outage: a request failed:", err)
				}
			}
		})
	}
	const often = 5 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	began, n := time.Now(), int64(0)
	for ctx.Err() == nil {
		for ; n < int64(time.Since(began).Seconds()*float64(s.Rate)); n++ {
			select {
			case due <- struct{}{}:
			default:
				s.late++
			}
		}
		<-tick.C
	}
	close(due)
	workers.Wait()
}

// ask sends one request.
func (w *world) ask(transport http.RoundTripper) error {
	const body = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Are you there?"}]}`
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.load.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("authorization", "Bearer "+w.load.keys[0])
	r.Header.Set("content-type", "application/json")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is what counts
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", resp.StatusCode, answer)
	}
	return nil
}

// watch keeps account of the memory of a process, and says each minute how it goes.
func (s *survival) watch(ctx context.Context, pid int) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 1; ; seconds++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := residentBytes(pid)
		if err != nil {
			continue // that it has ended shows in the requests
		}
		if s.memory.most = max(s.memory.most, n); !s.back.Load() {
			s.memory.away = s.memory.most
		}
		if seconds%30 == 0 {
			fmt.Fprintf(s.Out, "outage: after %d s: %d requests, %d failed, processor %d MiB\n",
				seconds, atomic.LoadInt64(&s.sent), atomic.LoadInt64(&s.failed), n>>20)
		}
	}
}

// audit reads the books, and returns nil when everything that the providers served is in them.
func (w *world) audit(ctx context.Context, s *survival) error {
	s.reached, s.served = 0, fake.Tokens{}
	for _, p := range w.providers {
		t := p.Ledger().Totals()
		s.reached += t.Requests
		s.served.Input += t.Input
		s.served.CachedInput += t.CachedInput
		s.served.Output += t.Output
		s.served.Reasoning += t.Reasoning
	}
	conn, err := w.db.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	err = conn.QueryRow(ctx, `select count(*), count(*) filter (where estimated or status <> 'ok'), coalesce(sum(input_tokens), 0)::bigint,
		coalesce(sum(cached_input_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint, coalesce(sum(reasoning_tokens), 0)::bigint
		from weir.usage`).Scan(&s.rows, &s.inexact, &s.booked.Input, &s.booked.CachedInput, &s.booked.Output, &s.booked.Reasoning)
	if err != nil {
		return err
	}
	if s.rows < s.reached {
		return fmt.Errorf("%d of %d rows", s.rows, s.reached)
	}
	s.sums = checkSums(ctx, conn)
	return nil
}

// residentBytes returns how much memory a process has.
func residentBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of the processor: %w", err)
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read memory of the processor: %q", b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory of the processor: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}
