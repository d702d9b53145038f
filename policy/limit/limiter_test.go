// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// bench is a limiter alone, with a clock that a test moves.
type alone struct {
	*Limiter
	t    testing.TB
	now  time.Time
	next uint64
}

func newAlone(t testing.TB, limits ...Limit) *alone {
	t.Helper()
	a := &alone{t: t, now: epoch}
	a.Limiter = New(Options{Clock: func() time.Time { return a.now }})
	a.set(limits...)
	return a
}

func (a *alone) set(limits ...Limit) {
	a.t.Helper()
	table, err := NewTable(limits)
	if err != nil {
		a.t.Fatal(err)
	}
	a.SetTable(table)
}

// ask is a request of a key of a tenant.
type ask struct {
	tenant, key   int64
	model         string
	input, output int64
}

func (a *alone) demand(q ask) *policy.Demand {
	a.next++
	d := &policy.Demand{
		Tenant: &policy.Tenant{ID: policy.TenantID(q.tenant)}, Key: &policy.Key{ID: policy.KeyID(q.key)}, Model: q.model,
		Estimate: policy.Estimate{Input: q.input, Most: q.input, Output: q.output, Asked: q.output},
	}
	binary.BigEndian.PutUint64(d.Exchange[8:], a.next)
	return d
}

func (a *alone) ask(q ask) (uuid.UUID, *policy.Denial) {
	d := a.demand(q)
	_, denial := a.Reserve(d)
	return d.Exchange, denial
}

// most returns how many of such requests are admitted at once.
func (a *alone) most(q ask) int {
	n := 0
	for {
		if _, denial := a.ask(q); denial != nil {
			return n
		}
		if n++; n > 100_000 {
			a.t.Fatal("nothing is refused")
		}
	}
}

func TestBucketsHoldTheBurstAndFillAtTheRate(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Key: 2, Rates: Rates{Requests: 600}})
	q := ask{1, 2, "m", 0, 0}
	if got := a.most(q); got != 100 {
		t.Errorf("%d at once, want what falls due in ten seconds", got)
	}
	a.now = a.now.Add(time.Second)
	if got := a.most(q); got != 10 {
		t.Errorf("%d a second later, want 10", got)
	}
	a.now = a.now.Add(time.Hour)
	if got := a.most(q); got != 100 {
		t.Errorf("%d an hour later, want no more than the burst", got)
	}
	for range 1000 {
		if _, denial := a.ask(ask{1, 3, "m", 0, 0}); denial != nil {
			t.Fatalf("another key is limited: %v", denial)
		}
	}
}

func TestSmallestLimitLetsOneThrough(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Requests: 1}})
	q := ask{1, 2, "m", 0, 0}
	if got := a.most(q); got != 1 {
		t.Errorf("%d at once, want 1", got)
	}
	a.now = a.now.Add(59 * time.Second)
	if got := a.most(q); got != 0 {
		t.Errorf("%d within the minute, want none", got)
	}
	a.now = a.now.Add(time.Second)
	if got := a.most(q); got != 1 {
		t.Errorf("%d after a minute, want 1", got)
	}
}

func TestLimitsOfKeyTenantAndModelCountTogether(t *testing.T) {
	a := newAlone(t,
		Limit{ID: 1, Key: 2, Tenant: 1, Rates: Rates{Requests: 60, Burst: time.Minute}},
		Limit{ID: 2, Tenant: 1, Rates: Rates{Requests: 100, Burst: time.Minute}},
		Limit{ID: 3, Model: "gpt-*", Rates: Rates{Requests: 20, Burst: time.Minute}},
	)
	var got []int
	for _, q := range []ask{{1, 2, "gpt-4o", 0, 0}, {7, 8, "gpt-5", 0, 0}, {1, 2, "o3", 0, 0}, {1, 3, "o3", 0, 0}} {
		got = append(got, a.most(q))
	}
	want := []int{20, 0, 40, 40} // what one refuses, the others get back
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("admitted (-got +want):\n%s", d)
	}
}

func TestDefaultsOfEachKeyYieldToItsOwn(t *testing.T) {
	a := newAlone(t,
		Limit{ID: 1, Each: true, Rates: Rates{Requests: 6, Burst: time.Minute}},
		Limit{ID: 2, Tenant: 1, Each: true, Rates: Rates{Requests: 9, Burst: time.Minute}},
		Limit{ID: 3, Tenant: 1, Key: 5, Model: "*", Rates: Rates{Requests: 12, Burst: time.Minute}},
	)
	for q, want := range map[ask]int{{2, 1, "m", 0, 0}: 6, {2, 2, "m", 0, 0}: 6, {1, 3, "m", 0, 0}: 9, {1, 4, "m", 0, 0}: 9, {1, 5, "m", 0, 0}: 12} {
		if got := a.most(q); got != want {
			t.Errorf("key %d of tenant %d: %d admitted, want %d", q.key, q.tenant, got, want)
		}
	}
}

func TestTokensAreCorrectedByWhatWasUsed(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Total: 60_000}})
	id, denial := a.ask(ask{1, 2, "m", 3000, 1000})
	if denial != nil {
		t.Fatal(denial)
	}
	left := func() float64 { return a.buckets[a.at(1)].m[Bucket{Limit: 1}].level[total] }
	if got, want := left(), 10_000-3000.0-firstGuess; got != want {
		t.Errorf("%v left, want %v", got, want)
	}
	a.Settle(id, 2000, 100)
	if got, want := left(), 10_000-2100.0; got != want {
		t.Errorf("%v left after it has ended, want %v", got, want)
	}
	id, _ = a.ask(ask{1, 2, "m", 1000, 100})
	a.Settle(id, 1000, 30_000) // more than all: a debt
	_, denial = a.ask(ask{1, 2, "m", 1, 1})
	if denial == nil || denial.RetryAfter < 20*time.Second {
		t.Fatalf("refused with %+v, want after the debt is paid", denial)
	}
	a.now = a.now.Add(denial.RetryAfter)
	if _, denial := a.ask(ask{1, 2, "m", 1, 1}); denial != nil {
		t.Errorf("refused once the debt is paid: %v", denial)
	}
}

func TestGenerousEstimatesAreScaledByWhatWasUsed(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Input: 6_000}}) // a burst of 1000
	for range 5 {                                              // each byte was taken for a token
		id, denial := a.ask(ask{1, 2, "m", 400, 0})
		if denial != nil {
			t.Fatal(denial)
		}
		a.Settle(id, 100, 0)
	}
	a.now = a.now.Add(time.Minute)
	if got := a.most(ask{1, 2, "m", 400, 0}); got != 10 {
		t.Errorf("%d admitted at once, want those that have a burst of tokens together", got)
	}
}

func TestRequestThatSeemsTooLargeIsCounted(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Input: 6_000, Burst: time.Minute}})
	counted := 0
	e := policy.New(policy.Options{
		Estimate: func(q *policy.Question) (policy.Estimate, *policy.Denial) {
			return policy.Estimate{Input: int64(len(q.Body)), Most: int64(len(q.Body))}, nil
		},
		Exact: func(q *policy.Question) policy.Estimate {
			counted++
			return policy.Estimate{Input: int64(len(q.Body)) / 5, Most: int64(len(q.Body)) / 5}
		},
		Accountants: []policy.Accountant{a},
	})
	s, err := policy.NewSnapshot(policy.SnapshotData{
		Tenants: []policy.Tenant{{ID: 1, Name: "acme"}}, Keys: []policy.Key{{ID: 7, Tenant: 1, Hash: policy.HashKey("sk-1")}},
		Channels: []policy.Channel{{ID: 10, Name: "first", Weight: 1, Models: []policy.Model{{Name: "m"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.SetSnapshot(s)
	send := func(bytes int) *policy.Denial {
		x, _, denial := e.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer sk-1"})
		if denial != nil {
			t.Fatal(denial)
		}
		_, denial = x.Admit([]byte(fmt.Sprintf(`{"model":"m","messages":[],"user":"%*s"}`, bytes, "")))
		return denial
	}
	if denial := send(20_000); denial != nil || counted != 1 {
		t.Errorf("20,000 bytes of 4,000 tokens, counted %d times: %v", counted, denial)
	}
	if denial := send(40_000); denial == nil || denial.RetryAfter != 0 || counted != 2 {
		t.Errorf("40,000 bytes of 8,000 tokens, counted %d times: %v", counted, denial)
	}
	if denial := send(100_000); denial == nil || counted != 2 {
		t.Errorf("what cannot be small enough was counted, or admitted: %v", denial)
	}
}

// at is the number of the shard of a limit's bucket.
func (a *alone) at(id ID) int {
	for i := range a.buckets {
		if &a.buckets[i] == a.shardOf(Bucket{Limit: id}) {
			return i
		}
	}
	panic("no shard")
}

func TestRequestLargerThanTheBurstIsLetThroughWhenNothingIsMissing(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Input: 6000}}) // a burst of 1000
	if _, denial := a.ask(ask{1, 2, "m", 5000, 0}); denial != nil {
		t.Fatal(denial)
	}
	_, denial := a.ask(ask{1, 2, "m", 5000, 0})
	if denial == nil || denial.RetryAfter != 50*time.Second {
		t.Errorf("%+v, want a refusal until what was taken has fallen due", denial)
	}
	_, denial = a.ask(ask{1, 2, "m", 6001, 0})
	if denial == nil || denial.RetryAfter != 0 || !strings.Contains(denial.Message, "too large") {
		t.Errorf("%+v, want that it will never pass", denial)
	}
}

func TestRetryAfterIsTrue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a := newAlone(t, Limit{ID: 1, Rates: Rates{
			Requests: 1 + random.Int64N(1000), Input: 1000 + random.Int64N(100_000), Output: 1000 + random.Int64N(100_000),
			Burst: time.Duration(1+random.IntN(60)) * time.Second,
		}})
		for range 300 {
			q := ask{1, 2, "m", random.Int64N(1000), random.Int64N(1000)}
			id, denial := a.ask(q)
			if denial == nil {
				a.Settle(id, q.input, q.output/2)
				continue
			}
			if denial.RetryAfter <= time.Millisecond { // to the millisecond
				a.now = a.now.Add(time.Millisecond)
				continue
			}
			early := a.now.Add(denial.RetryAfter - 2*time.Millisecond)
			late := a.now.Add(denial.RetryAfter)
			a.now = early
			if _, denial := a.ask(q); denial == nil {
				t.Fatal("admitted before the time that was told")
			}
			a.now = late
			if _, denial := a.ask(q); denial != nil {
				t.Fatalf("refused after the time that was told: %v", denial)
			}
		}
	}
}

func TestHeadersAreTrue(t *testing.T) {
	a := newAlone(t,
		Limit{ID: 1, Key: 2, Rates: Rates{Requests: 600, Total: 60_000, Concurrent: 5}},
		Limit{ID: 2, Rates: Rates{Requests: 6_000}},
	)
	headers, denial := a.Reserve(a.demand(ask{1, 2, "m", 1000, 200}))
	if denial != nil {
		t.Fatal(denial)
	}
	want := []policy.Header{
		{Name: "x-ratelimit-limit-requests", Value: "600"},
		{Name: "x-ratelimit-remaining-requests", Value: "99"},
		{Name: "x-ratelimit-reset-requests", Value: "100ms"},
		{Name: "x-ratelimit-limit-tokens", Value: "60000"},
		{Name: "x-ratelimit-remaining-tokens", Value: "8800"},
		{Name: "x-ratelimit-reset-tokens", Value: "1.2s"},
		{Name: "x-ratelimit-limit-concurrency", Value: "5"},
		{Name: "x-ratelimit-remaining-concurrency", Value: "4"},
	}
	if d := cmp.Diff(headers, want); d != "" {
		t.Errorf("headers (-got +want):\n%s", d)
	}
	for range 4 {
		headers, _ = a.Reserve(a.demand(ask{1, 2, "m", 1, 1}))
	}
	_, denial = a.Reserve(a.demand(ask{1, 2, "m", 1, 1}))
	if denial == nil || denial.Code != policy.CodeRateLimit || denial.Status != 429 || denial.Type != "requests" {
		t.Fatalf("the sixth at once: %+v", denial)
	}
	got := make(map[string]string)
	for _, h := range denial.Headers {
		got[h.Name] = h.Value
	}
	if got["x-ratelimit-remaining-concurrency"] != "0" || got["retry-after-ms"] != "1000" {
		t.Errorf("headers of the refusal: %v", got)
	}
	remaining, err := strconv.Atoi(headers[1].Value)
	if err != nil || remaining != 95 {
		t.Errorf("remaining requests: %q", headers[1].Value)
	}
}

func TestExchangesAtOnceAreCountedExactly(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Key: 2, Rates: Rates{Concurrent: 3}})
	q := ask{1, 2, "m", 0, 0}
	var ids []uuid.UUID
	for range 3 {
		id, denial := a.ask(q)
		if denial != nil {
			t.Fatal(denial)
		}
		ids = append(ids, id)
	}
	full := func(want bool, after string) {
		t.Helper()
		id, denial := a.ask(q)
		if (denial != nil) != want {
			t.Errorf("after %s: %v", after, denial)
		}
		a.Cancel(id)
	}
	full(true, "three")
	a.Release(ids[0])
	a.Release(ids[0]) // told twice
	full(false, "a release")
	a.Settle(ids[0], 1, 1)
	a.Settle(ids[0], 1, 1)
	a.Cancel(ids[0])
	fourth, _ := a.ask(q)
	full(true, "a fourth")
	a.Cancel(fourth)
	full(false, "a cancellation")
	a.End(ids[1])
	a.Settle(ids[2], 0, 0)
	if got := a.buckets[a.at(1)].m[Bucket{Limit: 1}].flight; got != 0 {
		t.Errorf("%d under way though all have ended", got)
	}
	if got := a.Stats().Exchanges; got != 0 {
		t.Errorf("%d exchanges are remembered", got)
	}
}

func TestExchangesOfAnEarlierLifeCount(t *testing.T) {
	a := &alone{t: t, now: epoch}
	a.Limiter = New(Options{Clock: func() time.Time { return a.now }})
	left := a.demand(ask{1, 2, "m", 0, 0})
	ended := a.demand(ask{1, 2, "m", 0, 0})
	a.Restore(left)
	a.Restore(ended)
	a.Settle(ended.Exchange, 1, 1) // before there are limits
	a.set(Limit{ID: 1, Key: 2, Rates: Rates{Concurrent: 2}})
	if got := a.most(ask{1, 2, "m", 0, 0}); got != 1 {
		t.Errorf("%d admitted beside the one that was left, want 1", got)
	}
	a.Settle(left.Exchange, 1, 1)
	if got := a.most(ask{1, 2, "m", 0, 0}); got != 1 {
		t.Errorf("%d admitted after it has ended, want 1", got)
	}
}

func TestExchangesOfAnEarlierLifeAreBoundedUntilThereAreLimits(t *testing.T) {
	a := &alone{t: t, now: epoch}
	a.Limiter = New(Options{Clock: func() time.Time { return a.now }})
	first := a.demand(ask{1, 2, "m", 0, 0})
	a.Restore(first)
	for range maxWaiting {
		a.Restore(a.demand(ask{1, 2, "m", 0, 0}))
	}
	a.set(Limit{ID: 1, Key: 2, Rates: Rates{Requests: 60}})
	if got := a.Stats().Exchanges; got != maxWaiting {
		t.Errorf("%d exchanges are remembered, want %d", got, maxWaiting)
	}
	a.Settle(first.Exchange, 0, 0)
	if got := a.Stats().Exchanges; got != maxWaiting-1 {
		t.Errorf("the first is not remembered: %d are, when it has ended", got)
	}
}

func TestIdleBucketsVanish(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Each: true, Rates: Rates{Requests: 60, Concurrent: 2}})
	for key := range int64(10_000) {
		id, denial := a.ask(ask{1, key + 1, "m", 0, 0})
		if denial != nil {
			t.Fatal(denial)
		}
		a.Settle(id, 0, 0)
	}
	if got := a.Stats().Buckets; got != 10_000 {
		t.Errorf("%d buckets", got)
	}
	a.now = a.now.Add(2 * time.Second)
	for turn := range sweepTurns {
		a.sweep(turn)
	}
	if got := a.Stats().Buckets; got != 0 {
		t.Errorf("%d buckets are left", got)
	}
}

func TestChangeOfALimitCountsAtOnce(t *testing.T) {
	q := ask{1, 2, "m", 0, 0}
	a := newAlone(t, Limit{ID: 1, Rates: Rates{Requests: 60, Burst: time.Minute}})
	a.most(q)
	a.set(Limit{ID: 1, Rates: Rates{Requests: 600, Burst: time.Minute}})
	if got := a.most(q); got != 0 {
		t.Errorf("%d admitted: a change is no present", got)
	}
	a.now = a.now.Add(time.Second)
	if got := a.most(q); got != 10 {
		t.Errorf("%d a second later, want 10", got)
	}
	a.set()
	for range 1000 {
		if _, denial := a.ask(q); denial != nil {
			t.Fatal(denial)
		}
	}
}

func TestBadLimitsAreRefused(t *testing.T) {
	for _, l := range []Limit{
		{ID: 1},
		{ID: 0, Rates: Rates{Requests: 1}},
		{ID: 1, Rates: Rates{Requests: -1}},
		{ID: 1, Rates: Rates{Input: math.MaxInt64}},
		{ID: 1, Rates: Rates{Concurrent: MaxConcurrent + 1}},
		{ID: 1, Rates: Rates{Requests: 1, Burst: -time.Second}},
		{ID: 1, Rates: Rates{Requests: 1, Burst: time.Hour}},
	} {
		if _, err := NewTable([]Limit{l}); err == nil {
			t.Errorf("%+v is taken", l)
		}
	}
	if _, err := NewTable([]Limit{{ID: 1, Rates: Rates{Requests: 1}}, {ID: 1, Rates: Rates{Requests: 1}}}); err == nil {
		t.Error("one id is taken twice")
	}
}

func TestExchangesWithoutLimitsAllocateNothing(t *testing.T) {
	a := newAlone(t, Limit{ID: 1, Key: 2, Rates: Rates{Requests: 1}})
	d := a.demand(ask{1, 3, "m", 10, 10})
	if got := testing.AllocsPerRun(100, func() {
		if _, denial := a.Reserve(d); denial != nil {
			t.Fatal(denial)
		}
		a.Settle(d.Exchange, 1, 1)
	}); got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkReserve(b *testing.B) {
	for _, limits := range []int{0, 1, 3} {
		b.Run(fmt.Sprintf("limits=%d", limits), func(b *testing.B) {
			var all []Limit
			for i := range limits {
				all = append(all, Limit{ID: ID(i + 1), Each: i == 0, Rates: Rates{Requests: MaxRate, Total: MaxRate}})
			}
			a := newAlone(b, all...)
			d := a.demand(ask{1, 2, "gpt-4o", 100, 100})
			b.ReportAllocs()
			for b.Loop() {
				if _, denial := a.Reserve(d); denial != nil {
					b.Fatal(denial)
				}
				a.Settle(d.Exchange, 100, 50)
			}
		})
	}
}
