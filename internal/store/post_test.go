// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// exchangeAt returns an exchange id of a time, as the gateway makes them.
func exchangeAt(t *testing.T, at time.Time) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// record returns a record of an exchange that went well.
func record(t *testing.T, at time.Time) usage.Record {
	t.Helper()
	return usage.Record{
		Exchange: exchangeAt(t, at), Time: at, Tenant: 1, Key: 2, Channel: 3, Model: "gpt-5", UpstreamModel: "gpt-5-2026",
		Operation: policy.OpChat, Status: usage.StatusOK, HTTPStatus: 200, Attempts: 1, Stream: true,
		Tokens: usage.Tokens{Input: 100, CachedInput: 40, Output: 20, Reasoning: 5}, Billed: usage.Billed{BilledInput: 100, BilledOutput: 15}, RequestBytes: 1000, ResponseBytes: 2000,
		FirstByte: 150 * time.Millisecond, Duration: 1500 * time.Millisecond,
	}
}

// batch numbers the records and makes them follow what the writer has posted.
func batch(writer uuid.UUID, from int64, records ...usage.Record) usage.Batch {
	b := usage.Batch{Writer: writer, From: from, To: from + int64(len(records)), Records: records}
	for i := range b.Records {
		b.Records[i].Seq = from + int64(i) + 1
	}
	return b
}

func mustPost(t *testing.T, s *Store, b usage.Batch) {
	t.Helper()
	if err := s.Post(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func wantPosition(t *testing.T, s *Store, writer uuid.UUID, want int64) {
	t.Helper()
	if got, err := s.Position(t.Context(), writer); got != want || err != nil {
		t.Errorf("position = %d, %v; want %d", got, err, want)
	}
}

// noon is in a day that has a partition.
func noon() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour) }

// numbers are what the rows, the hourly sums and the balances have in common.
type numbers struct{ Requests, Tokens, Cost int64 }

func wantSums(t *testing.T, s *Store, want numbers) {
	t.Helper()
	for what, sql := range map[string]string{
		"rows":     `select count(*), coalesce(sum(input_tokens + output_tokens), 0)::bigint, coalesce(sum(cost_nanousd), 0)::bigint from weir.usage`,
		"rollup":   `select coalesce(sum(requests), 0)::bigint, coalesce(sum(input_tokens + output_tokens), 0)::bigint, coalesce(sum(cost_nanousd), 0)::bigint from weir.usage_hourly`,
		"balances": `select coalesce(sum(requests), 0)::bigint, coalesce(sum(tokens), 0)::bigint, coalesce(sum(cost_nanousd), 0)::bigint from weir.balance`,
	} {
		got, err := one(t.Context(), s.pool, pgx.RowToStructByPos[numbers], sql)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", what, diff)
		}
	}
	rows := query[int64](t, s, `select coalesce(sum(billed_input_tokens * 3 + billed_output_tokens), 0)::bigint from weir.usage`) // not to be mixed up
	hours := query[int64](t, s, `select coalesce(sum(billed_input_tokens * 3 + billed_output_tokens), 0)::bigint from weir.usage_hourly`)
	total := query[int64](t, s, `select coalesce(sum(billed_input_tokens + billed_output_tokens), 0)::bigint from weir.usage`)
	balances := query[int64](t, s, `select coalesce(sum(billed_tokens), 0)::bigint from weir.balance`)
	if hours != rows || balances != total {
		t.Errorf("billed: the rows have %d and %d, the hourly sums %d, the balances %d", rows, total, hours, balances)
	}
}

func TestPostWritesRowSumsAndPosition(t *testing.T) {
	s := migrated(t)
	writer := uuid.New()
	wantPosition(t, s, writer, 0)
	r := record(t, noon())
	r.Details = usage.Details{CacheWrite: 7, AudioOutput: 3}
	r.Cost = usage.Cost{CostNanoUSD: 12_345, PriceVersion: 6}
	mustPost(t, s, batch(writer, 0, r))
	wantPosition(t, s, writer, 1)
	wantSums(t, s, numbers{Requests: 1, Tokens: 120, Cost: 12_345})
	rows, err := s.Usage(t.Context(), UsageFilter{})
	if err != nil {
		t.Fatal(err)
	}
	want := []UsageRow{{
		Exchange: r.Exchange, Time: r.Time, TenantID: 1, Tenant: "default", KeyID: 2, ChannelID: 3, Model: "gpt-5", UpstreamModel: "gpt-5-2026",
		Operation: "chat", Status: "ok", HTTPStatus: 200, Attempts: 1, Stream: true, Input: 100, CachedInput: 40, Output: 20, Reasoning: 5,
		Billed: r.Billed, CostNanoUSD: new(int64(12_345)), PriceVersion: new(int64(6)), Details: usage.Details{CacheWrite: 7, AudioOutput: 3},
		RequestBytes: 1000, ResponseBytes: 2000, FirstByteMS: new(int64(150)), DurationMS: 1500,
	}}
	if diff := cmp.Diff(rows, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if got := query[string](t, s, `select writer || '@' || seq from weir.usage`); got != writer.String()+"@1" {
		t.Errorf("came from %s", got)
	}
}

func TestPostOfAnExchangeThatNothingAnswered(t *testing.T) {
	s := migrated(t)
	r := record(t, noon())
	r.Channel, r.FirstByte, r.Status, r.UpstreamModel, r.HTTPStatus, r.Estimated = 0, -1, usage.StatusClientClosed, "", 0, true
	mustPost(t, s, batch(uuid.New(), 0, r))
	if got := query[int64](t, s, `select count(*) from weir.usage where channel_id is null and first_byte_ms is null and cost_nanousd is null`); got != 1 {
		t.Errorf("%d rows with nulls", got)
	}
	if got := query[int64](t, s, `select count(*) from weir.usage_hourly where channel_id = 0 and estimated = 1 and unpriced = 1`); got != 1 {
		t.Errorf("%d sums of no channel", got)
	}
	rows, err := s.Usage(t.Context(), UsageFilter{})
	if err != nil || len(rows) != 1 || rows[0].FirstByteMS != nil || rows[0].ChannelID != 0 || !rows[0].Estimated {
		t.Errorf("rows = %+v, %v", rows, err)
	}
}

func TestPostIsFencedByThePosition(t *testing.T) {
	s := migrated(t)
	writer := uuid.New()
	first := batch(writer, 0, record(t, noon()), record(t, noon()))
	mustPost(t, s, first)
	for name, b := range map[string]usage.Batch{
		"again":          first,
		"overlap":        batch(writer, 1, record(t, noon())),
		"gap":            batch(writer, 3, record(t, noon())),
		"unknown writer": batch(uuid.New(), 5, record(t, noon())),
	} {
		if err := s.Post(t.Context(), b); !errors.Is(err, usage.ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantPosition(t, s, writer, 2)
	wantSums(t, s, numbers{Requests: 2, Tokens: 240})
	mustPost(t, s, usage.Batch{Writer: writer, From: 2, To: 50}) // lines that make no rows
	wantPosition(t, s, writer, 50)
	mustPost(t, s, batch(writer, 50, record(t, noon())))
	wantSums(t, s, numbers{Requests: 3, Tokens: 360})
	if got := query[int64](t, s, `select count(*) from weir.writer`); got != 1 {
		t.Errorf("%d writers", got)
	}
}

func TestOneOfManyPostersOfABatchWins(t *testing.T) {
	s := migrated(t)
	writer := uuid.New()
	b := batch(writer, 0, record(t, noon()))
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Post(t.Context(), b) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, usage.ErrFenced):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
	wantSums(t, s, numbers{Requests: 1, Tokens: 120})
}

func TestPostRefusesABatchThatContradictsItself(t *testing.T) {
	s := migrated(t)
	writer := uuid.New()
	late, early := batch(writer, 10, record(t, noon())), batch(writer, 10, record(t, noon()))
	late.Records[0].Seq, early.Records[0].Seq = 12, 10
	for name, b := range map[string]usage.Batch{
		"no writer": batch(uuid.Nil, 0), "backwards": {Writer: writer, From: 2, To: 1}, "negative": {Writer: writer, From: -1, To: 1}, "late": late, "early": early,
	} {
		if err := s.Post(t.Context(), b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPostTakesWhatCannotBeRefused: a row that Postgres refuses would hold up the log for ever.
func TestPostTakesWhatCannotBeRefused(t *testing.T) {
	s := migrated(t)
	poison := record(t, noon())
	poison.Model, poison.UpstreamModel = "a\x00b\xff"+strings.Repeat("é", 500), "\xff\x00"
	poison.Tokens = usage.Tokens{Input: math.MaxInt64, CachedInput: -1, Output: math.MinInt64, Reasoning: math.MaxInt64}
	poison.RequestBytes, poison.ResponseBytes, poison.HTTPStatus, poison.Attempts = math.MaxInt64, -5, math.MaxInt64, -1
	poison.Duration, poison.FirstByte = math.MaxInt64, math.MaxInt64
	poison.Tenant, poison.Key, poison.Channel = math.MaxInt64, -1, 999
	var records []usage.Record
	for _, at := range []time.Time{{}, time.Unix(0, 0), noon(), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Unix(1<<60, 0), time.Unix(-1<<60, 0)} {
		poison.Time = at
		records = append(records, poison)
	}
	writer := uuid.New()
	for i := range int64(3) {
		for j := range records {
			records[j].Exchange = uuid.New()
		}
		mustPost(t, s, batch(writer, i*int64(len(records)), records...))
	}
	wantSums(t, s, numbers{Requests: 18, Tokens: 18 * maxCount})
	rows, err := s.Usage(t.Context(), UsageFilter{})
	if err != nil || len(rows) != 18 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if got := rows[0]; got.HTTPStatus != math.MaxInt32 || got.Attempts != 0 || got.CachedInput != 0 || len(got.Model) > maxText || !strings.HasPrefix(got.Model, "a\uFFFDb\uFFFD") {
		t.Errorf("row = %+v", got)
	}
	sums, err := s.SumUsage(t.Context(), UsageFilter{}, []string{"day", "key", "tenant", "channel", "model"})
	if err != nil || len(sums) == 0 {
		t.Errorf("sums = %+v, %v", sums, err)
	}
}

func TestRowsOutliveWhatTheyName(t *testing.T) {
	s := migrated(t)
	acme, err := s.CreateTenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	k, _ := mustKey(t, s, NewKey{Tenant: "acme", Name: "ci"})
	c, err := s.CreateChannel(t.Context(), plain("one"))
	if err != nil {
		t.Fatal(err)
	}
	r := record(t, noon())
	r.Tenant, r.Key, r.Channel = acme.ID, k.ID, c.ID
	mustPost(t, s, batch(uuid.New(), 0, r))
	names := func() []string {
		t.Helper()
		rows, err := s.Usage(t.Context(), UsageFilter{})
		if err != nil || len(rows) != 1 {
			t.Fatalf("rows = %+v, %v", rows, err)
		}
		return []string{rows[0].Tenant, rows[0].Key, rows[0].Channel}
	}
	if diff := cmp.Diff(names(), []string{"acme", "ci", "one"}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	_, err = s.RevokeKey(t.Context(), "ci")
	if err := errors.Join(err, s.DeleteChannel(t.Context(), "one"), s.DeleteTenant(t.Context(), "acme")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(), []string{"", "", ""}); diff != "" {
		t.Errorf("after their deletion (-got +want):\n%s", diff)
	}
}

// TestSumsEqualRowsWhateverIsPosted posts random batches from several writers at once, some of them twice, some cut off by a
// context that ends at any moment, and goes on from the position as a shipper does.
func TestSumsEqualRowsWhateverIsPosted(t *testing.T) {
	s := migrated(t)
	const writers, batches = 4, 15
	var want numbers
	var wg sync.WaitGroup
	for w := range writers {
		rnd := rand.New(rand.NewPCG(1, uint64(w)))
		var records [][]usage.Record
		for range batches {
			var b []usage.Record
			for range 1 + rnd.IntN(200) {
				r := record(t, noon().Add(time.Duration(rnd.IntN(7200))*time.Second))
				r.Tenant, r.Key, r.Channel = policy.TenantID(rnd.IntN(3)), policy.KeyID(rnd.IntN(20)), policy.ChannelID(rnd.IntN(4))
				r.Model = fmt.Sprintf("m%d", rnd.IntN(5))
				r.Estimated = rnd.IntN(3) == 0
				r.Tokens = usage.Tokens{Input: rnd.Int64N(5000), Output: rnd.Int64N(900)}
				want.Requests++
				want.Tokens += r.Input + r.Output
				if r.Cost = (usage.Cost{}); rnd.IntN(4) > 0 {
					r.Cost = usage.Cost{CostNanoUSD: rnd.Int64N(1e9), PriceVersion: 1}
					want.Cost += r.CostNanoUSD
				}
				b = append(b, r)
			}
			records = append(records, b)
		}
		wg.Go(func() {
			writer, at := uuid.New(), int64(0)
			for i := 0; i < len(records); {
				b := batch(writer, at, records[i]...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(20))*time.Millisecond)
				_ = s.Post(ctx, b) // done, fenced, cut off, or done and cut off: the position tells
				cancel()
				position, err := s.Position(t.Context(), writer)
				if err != nil || position != b.From && position != b.To {
					t.Errorf("position = %d, %v; posted %d to %d", position, err, b.From, b.To)
					return
				}
				if position == b.From {
					if err := s.Post(t.Context(), b); err != nil && !errors.Is(err, usage.ErrFenced) {
						t.Error(err)
						return
					}
				}
				at = b.To
				i++
			}
		})
	}
	wg.Wait()
	wantSums(t, s, want)
	wantTheSame(t, s)
}

// wantTheSame compares every group of the hourly sums with its rows.
func wantTheSame(t *testing.T, s *Store) {
	t.Helper()
	const rows = `select date_trunc('hour', ts, 'UTC') as hour, tenant_id, key_id, model, coalesce(channel_id, 0) as channel_id, count(*) as requests,
		count(*) filter (where estimated) as estimated, count(*) filter (where cost_nanousd is null) as unpriced,
		sum(input_tokens) as input_tokens, sum(cached_input_tokens) as cached_input_tokens, sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens,
		coalesce(sum(cost_nanousd), 0) as cost_nanousd, sum(request_bytes) as request_bytes, sum(response_bytes) as response_bytes
		from weir.usage group by 1, 2, 3, 4, 5`
	const sums = `select hour, tenant_id, key_id, model, channel_id, requests, estimated, unpriced, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens,
		cost_nanousd, request_bytes, response_bytes from weir.usage_hourly`
	if n := query[int64](t, s, `select count(*) from ((`+rows+` except `+sums+`) union all (`+sums+` except `+rows+`)) d`); n != 0 {
		t.Errorf("%d groups differ between rows and hourly sums", n)
	}
	const balances = `select tenant_id, key_id, requests, tokens, cost_nanousd from weir.balance`
	const keys = `select tenant_id, key_id, count(*) as requests, sum(input_tokens + output_tokens) as tokens,
		coalesce(sum(cost_nanousd), 0) as cost_nanousd from weir.usage group by 1, 2`
	if n := query[int64](t, s, `select count(*) from ((`+keys+` except `+balances+`) union all (`+balances+` except `+keys+`)) d`); n != 0 {
		t.Errorf("%d keys differ between rows and balances", n)
	}
}

func TestTagsAreKeptAsTheyCanBe(t *testing.T) {
	s := migrated(t)
	plain, tagged := record(t, noon()), record(t, noon().Add(time.Second))
	tagged.Tags = []policy.Tag{{Name: "team", Value: "röd \"x\""}, {Name: "a", Value: "1"}, {Name: "a", Value: "2"}, {Name: "odd", Value: "\x00\xff"}}
	mustPost(t, s, batch(uuid.New(), 0, plain, tagged))
	rows, err := s.Usage(t.Context(), UsageFilter{})
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if diff := cmp.Diff(rows[0].Tags, map[string]string{"team": "röd \"x\"", "a": "2", "odd": "\uFFFD\uFFFD"}); diff != "" || rows[1].Tags != nil {
		t.Errorf("got, want: %s; the other row has %v", diff, rows[1].Tags)
	}
	if n := query[int64](t, s, `select count(*) from weir.usage where tags->>'a' = '2'`); n != 1 {
		t.Errorf("%d rows are found by their tag", n)
	}
}
