// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/limit"
)

func TestLimitsAreWhatWasSet(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	if _, err := s.CreateTenant(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	k, _, err := s.CreateKey(ctx, NewKey{Tenant: "acme", Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	one, many, burst := int64(1), int64(limit.MaxRate), 5*time.Second
	set := func(scope LimitScope, c RatesChange) RateLimit {
		t.Helper()
		l, err := s.SetRateLimit(ctx, scope, c)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	all := RatesChange{Requests: &one, Input: &many, Output: &many, Total: &many, Concurrent: &one, Burst: &burst}
	want := []RateLimit{
		set(LimitScope{Key: "acme/laptop"}, all),
		set(LimitScope{Tenant: "acme", EachKey: true, Model: "gpt-*"}, RatesChange{Total: &one}),
		set(LimitScope{}, RatesChange{Concurrent: &one}),
	}
	if want[0].Key != k.ID || want[0].Tenant != k.Tenant || want[0].Rates != (limit.Rates{
		Requests: 1, Input: many, Output: many, Total: many, Concurrent: 1, Burst: burst,
	}) || !want[1].Each || want[1].Model != "gpt-*" || want[2].Model != "*" {
		t.Errorf("got %+v", want)
	}
	if diff := cmp.Diff(must(s.RateLimits(ctx, "", "")), want); diff != "" {
		t.Errorf("limits (-got +want):\n%s", diff)
	}
	none := int64(0)
	if l := set(LimitScope{}, RatesChange{Concurrent: &none}); l.ID != 0 {
		t.Errorf("a limit that limits nothing is kept: %+v", l)
	}
	if after := must(s.RateLimits(ctx, "", "")); len(after) != 2 {
		t.Errorf("%d limits are left", len(after))
	}
	minus, endless := int64(-1), int64(math.MaxInt64)
	for _, bad := range []RatesChange{{}, {Requests: &minus}, {Total: &endless}, {Concurrent: &many}} {
		_, err := s.SetRateLimit(ctx, LimitScope{Tenant: "acme"}, bad)
		wantError(t, err, ErrInvalid, "limit")
	}
	_, err = s.SetRateLimit(ctx, LimitScope{Key: "laptop", EachKey: true}, all)
	wantError(t, err, ErrInvalid, "not both")
	wantError(t, s.DeleteRateLimit(ctx, 99), ErrNotFound, "limit")
}

// The simulation in policy/limit has the proof; this one is about what the board in Postgres does of it.
func TestReplicasShareALimitThroughPostgres(t *testing.T) {
	const replicas = 3
	s := mustOpen(t, pgtest.Database(t), Options{MaxConns: replicas})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	table, err := limit.NewTable([]limit.Limit{{ID: 1, Rates: limit.Rates{Requests: 600, Total: 60_000}}})
	if err != nil {
		t.Fatal(err)
	}
	var all [replicas]*limit.Limiter
	for i := range all {
		all[i] = limit.New(limit.Options{Replica: uuid.New()})
		all[i].SetTable(table)
	}
	rounds := func() {
		var wg sync.WaitGroup
		for _, l := range all {
			wg.Go(func() {
				if err := l.Round(t.Context(), s); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	for range 3 {
		rounds()
	}
	for i, l := range all {
		if !l.Joined() || math.Abs(l.Part()-1.0/replicas) > 1e-9 {
			t.Errorf("replica %d holds %v", i, l.Part())
		}
	}
	n := uint64(0)
	ask := func(l *limit.Limiter) bool {
		d := &policy.Demand{Tenant: &policy.Tenant{ID: 1}, Key: &policy.Key{ID: 2}, Model: "m", Estimate: policy.Estimate{Input: 1, Output: 1, Asked: 1}}
		n++
		binary.BigEndian.PutUint64(d.Exchange[8:], n)
		_, denial := l.Reserve(d)
		return denial == nil
	}
	for range 8 { // all of the demand is at the first
		for range 200 {
			ask(all[0])
		}
		rounds()
	}
	claims := shares(t, s)
	if len(claims) != replicas || claims[0] < 0.9 || sum(claims) > 1+1e-9 {
		t.Errorf("shares %v, want nearly all for the one that wants it", claims)
	}
	if st := all[1].Stats(); st.Claims != 1 || st.Unheard > time.Minute {
		t.Errorf("another has %+v", st)
	}
	// It falls silent, and the others believe it dead once the board has been awake for long enough.
	if _, err := s.pool.Exec(t.Context(), `update weir.limit_member set heard = heard - interval '40 s' where part > 0 and replica = (
		select replica from weir.limit_claim order by share desc limit 1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), `update weir.limit_board set since = since - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, l := range all[1:] {
			if err := l.Round(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := all[1].Part(); math.Abs(got-0.5) > 1e-9 {
		t.Errorf("one of two that are left holds %v", got)
	}
}

// shares are what is claimed of a limit, the largest first.
func shares(t *testing.T, s *Store) []float64 {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `select share from weir.limit_claim order by share desc`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []float64
	for rows.Next() {
		var share float64
		if err := rows.Scan(&share); err != nil {
			t.Fatal(err)
		}
		out = append(out, share)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func sum(all []float64) (total float64) {
	for _, v := range all {
		total += v
	}
	return total
}
