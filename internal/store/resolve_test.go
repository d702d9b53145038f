// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// unresolved returns what is written of an exchange when nothing is known of its end.
func unresolved(r usage.Record) usage.Record {
	return usage.Record{
		Exchange: r.Exchange, Time: r.Time, Tenant: r.Tenant, Key: r.Key, Model: r.Model, Operation: r.Operation, Stream: r.Stream,
		Status: usage.StatusUnresolved, Estimated: true, Tokens: usage.Tokens{Input: 90, Output: 300}, Billed: usage.Billed{BilledInput: 90}, RequestBytes: r.RequestBytes, FirstByte: -1,
		Cost:    usage.Cost{CostNanoUSD: 500, PriceVersion: 6},
		Charges: r.Charges,
	}
}

func mustResolve(t *testing.T, s *Store, records ...usage.Record) (rows int) {
	t.Helper()
	rows, err := s.Resolve(t.Context(), resolution(records...))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// resolution is the first batch of a processor.
func resolution(records ...usage.Record) usage.Batch {
	return usage.Batch{Writer: uuid.New(), To: 1, Records: records}
}

// wantStatuses compares how many rows there are of each status.
func wantStatuses(t *testing.T, s *Store, want map[string]int64) {
	t.Helper()
	type counted struct {
		Status string
		N      int64
	}
	rows, err := many(t.Context(), s.pool, pgx.RowToStructByPos[counted], `select status, count(*) from weir.usage group by 1`)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, r := range rows {
		got[r.Status] = r.N
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("statuses (-got +want):\n%s", diff)
	}
	if n := query[int64](t, s, `select count(*) from weir.unresolved`); n != want["unresolved"] {
		t.Errorf("%d entries of unresolved exchanges, want %d", n, want["unresolved"])
	}
	if n := query[int64](t, s, `select count(*) - count(distinct exchange_id) from weir.usage`); n != 0 {
		t.Errorf("%d rows too many of one exchange", n)
	}
	wantTheSame(t, s)
}

func TestResolveWritesOneRowHoweverOften(t *testing.T) {
	s := migrated(t)
	mustResolve(t, s)
	r := unresolved(record(t, noon()))
	for i := range 3 {
		if got := mustResolve(t, s, r, r); got != max(1-i, 0) {
			t.Errorf("call %d: %d rows", i, got)
		}
	}
	wantStatuses(t, s, map[string]int64{"unresolved": 1})
	wantSums(t, s, numbers{Requests: 1, Tokens: 390, Cost: 500})
	rows, err := s.Usage(t.Context(), UsageFilter{Exchange: r.Exchange})
	if err != nil || len(rows) != 1 || rows[0].Status != "unresolved" || !rows[0].Estimated || rows[0].Output != 300 || rows[0].ChannelID != 0 {
		t.Errorf("rows = %+v, %v", rows, err)
	}
}

func TestResolveLeavesExchangesAloneThatHaveARow(t *testing.T) {
	s := migrated(t)
	done, open := record(t, noon()), record(t, noon())
	mustPost(t, s, batch(uuid.New(), 0, done))
	mustResolve(t, s, unresolved(done), unresolved(open))
	wantStatuses(t, s, map[string]int64{"ok": 1, "unresolved": 1})
	wantSums(t, s, numbers{Requests: 2, Tokens: 120 + 390, Cost: 500})
}

func TestResolveTakesOnlyWhatIsUnresolved(t *testing.T) {
	s := migrated(t)
	open := unresolved(record(t, noon()))
	_, err := s.Resolve(t.Context(), resolution(open, record(t, noon())))
	wantError(t, err, ErrInvalid, `"ok"`)
	wantStatuses(t, s, map[string]int64{})
}

func TestResolveMovesItsPositionAndIsFencedByIt(t *testing.T) {
	s := migrated(t)
	b := resolution(unresolved(record(t, noon())))
	if _, err := s.Resolve(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Position(t.Context(), b.Writer); got != 1 || err != nil {
		t.Errorf("got position %d, %v", got, err)
	}
	b.Records = []usage.Record{unresolved(record(t, noon()))}
	if _, err := s.Resolve(t.Context(), b); !errors.Is(err, usage.ErrFenced) {
		t.Errorf("from where it was before: got %v", err)
	}
	wantStatuses(t, s, map[string]int64{"unresolved": 1})
	b.From, b.To = 1, 2
	if rows, err := s.Resolve(t.Context(), b); rows != 1 || err != nil {
		t.Errorf("from where it is: got %d, %v", rows, err)
	}
	wantStatuses(t, s, map[string]int64{"unresolved": 2})
	for _, bad := range []usage.Batch{{Writer: b.Writer}, {To: 1}, {Writer: b.Writer, From: -1, To: 1}} {
		_, err := s.Resolve(t.Context(), bad)
		wantError(t, err, ErrInvalid, "unresolved exchanges of writer")
	}
}

func TestLateLineTakesThePlaceOfTheUnresolvedRow(t *testing.T) {
	s := migrated(t)
	for name, at := range map[string]time.Time{
		"now": noon(), "long ago": time.Unix(1, 0), "yet to come": noon().AddDate(5, 0, 0), "the end of the year": time.Date(2031, 12, 31, 23, 59, 59, 999e6, time.UTC),
	} {
		before := query[int64](t, s, `select count(*) from weir.usage`)
		r, other := record(t, at), record(t, at)
		mustResolve(t, s, unresolved(r))
		mustPost(t, s, batch(uuid.New(), 0, other, r))
		rows, err := s.Usage(t.Context(), UsageFilter{Exchange: r.Exchange})
		if err != nil || len(rows) != 1 || rows[0].Status != "ok" || rows[0].ChannelID != 3 || rows[0].Estimated {
			t.Errorf("%s: rows = %+v, %v", name, rows, err)
		}
		mustResolve(t, s, unresolved(r))
		if after := query[int64](t, s, `select count(*) from weir.usage`); after != before+2 {
			t.Errorf("%s: %d rows after %d", name, after, before)
		}
	}
	wantStatuses(t, s, map[string]int64{"ok": 8})
	wantSums(t, s, numbers{Requests: 8, Tokens: 8 * 120})
}

func TestLateLinesAreFoundAmongManyUnresolvedExchanges(t *testing.T) {
	s := migrated(t)
	var open, lines []usage.Record
	for i := range maxSuspects + 200 {
		r := record(t, noon().Add(time.Duration(i)*time.Millisecond))
		open = append(open, unresolved(r))
		if i%100 == 0 {
			lines = append(lines, r)
		}
	}
	mustResolve(t, s, open...)
	mustPost(t, s, batch(uuid.New(), 0, lines...))
	wantStatuses(t, s, map[string]int64{"ok": int64(len(lines)), "unresolved": int64(len(open) - len(lines))})
}

// TestPostAndResolveAtOnce has several processors give up the very exchanges whose lines others post.
func TestPostAndResolveAtOnce(t *testing.T) {
	s := migrated(t)
	const posters, batches, size = 3, 25, 8
	rnd := rand.New(rand.NewPCG(3, 4))
	var open []usage.Record
	var lines [posters][batches][]usage.Record
	for p := range posters {
		for b := range batches {
			for range size {
				r := record(t, noon().Add(time.Duration(rnd.IntN(100_000))*time.Millisecond))
				r.Key, r.Channel = policy.KeyID(rnd.IntN(5)), policy.ChannelID(1+rnd.IntN(2))
				lines[p][b] = append(lines[p][b], r)
				open = append(open, unresolved(r))
			}
		}
	}
	rnd.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			writer := uuid.New()
			for b := range batches {
				if err := s.Post(t.Context(), batch(writer, int64(b*size), lines[p][b]...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 2 {
		wg.Go(func() {
			for from := i; from < len(open); from += 10 {
				if _, err := s.Resolve(t.Context(), resolution(open[from:min(from+30, len(open))]...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantStatuses(t, s, map[string]int64{"ok": posters * batches * size})
	wantSums(t, s, numbers{Requests: posters * batches * size, Tokens: posters * batches * size * 120})
}
