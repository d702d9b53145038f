// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/postgres"
)

// counts are what both the provider and Weir count.
type counts struct {
	Requests    int64 `json:"requests"`
	Input       int64 `json:"input_tokens"`
	CachedInput int64 `json:"cached_input_tokens"`
	Output      int64 `json:"output_tokens"`
	Reasoning   int64 `json:"reasoning_tokens"`
}

func (c counts) minus(o counts) counts {
	return counts{c.Requests - o.Requests, c.Input - o.Input, c.CachedInput - o.CachedInput, c.Output - o.Output, c.Reasoning - o.Reasoning}
}

func (c counts) plus(o counts) counts { return c.minus(counts{}.minus(o)) }

// ledgerTotals asks the provider what it has served since its ledger was reset.
func ledgerTotals(ctx context.Context, provider string) (fake.Totals, error) {
	var s fake.Snapshot
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+provider+"/ledger?totals=true", nil)
	if err != nil {
		return s.Totals, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return s.Totals, fmt.Errorf("read the provider's ledger: %w", err)
	}
	err = json.NewDecoder(resp.Body).Decode(&s)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return s.Totals, fmt.Errorf("read the provider's ledger: %w", err)
	}
	return s.Totals, nil
}

// resetLedger lets the provider forget what it has served, so that it holds no more than one run in memory.
func resetLedger(ctx context.Context, provider string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+provider+"/ledger/reset", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("reset the provider's ledger: %w", err)
	}
	return resp.Body.Close()
}

// served is the provider's own count. It is an error if a request did not end as it should.
func served(t fake.Totals) (counts, error) {
	if t.Open > 0 || t.Completed != t.Requests {
		return counts{}, fmt.Errorf("of %d requests the provider completed %d, and %d are open", t.Requests, t.Completed, t.Open)
	}
	return counts{t.Requests, t.Input, t.CachedInput, t.Output, t.Reasoning}, nil
}

// books are what Weir has written into Postgres.
type books struct {
	server *postgres.Server
	conn   *pgx.Conn // ends with the server
	want   counts    // what the provider has served so far
}

func openBooks(ctx context.Context, server *postgres.Server) (*books, error) {
	conn, err := pgx.Connect(ctx, server.DSN())
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return &books{server: server, conn: conn}, nil
}

// posted is how many requests the balances say. It is a matter of one row, and so does not disturb a measurement.
func (b *books) posted(ctx context.Context) (n int64, err error) {
	err = b.conn.QueryRow(ctx, `select coalesce(sum(requests), 0)::bigint from weir.balance`).Scan(&n)
	return n, err
}

// settleTimeout is how long a row may take to arrive.
const settleTimeout = 30 * time.Second

// settle waits until so many requests are in the books.
func (b *books) settle(ctx context.Context, want int64) error {
	deadline := time.Now().Add(settleTimeout)
	for {
		got, err := b.posted(ctx)
		if err != nil {
			return fmt.Errorf("read balances: %w", err)
		}
		if got >= want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d rows are in the database after %v", got, want, settleTimeout)
		}
		sleepUntil(ctx, time.Now().Add(20*time.Millisecond))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// check compares all rows and their sums with what the provider has served since the beginning. Each row must be of an exchange
// that went well at the first attempt, with counts that are the provider's own. After an error, what there is counts as right, so
// that the same fault is not found again.
func (b *books) check(ctx context.Context) error {
	want := b.want
	for table, sql := range map[string]string{
		"weir.usage": `select count(*), sum(input_tokens)::bigint, sum(cached_input_tokens)::bigint, sum(output_tokens)::bigint,
			sum(reasoning_tokens)::bigint, count(*) filter (where status <> 'ok' or estimated or attempts <> 1) from weir.usage`,
		"weir.usage_hourly": `select sum(requests)::bigint, sum(input_tokens)::bigint, sum(cached_input_tokens)::bigint,
			sum(output_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(estimated)::bigint from weir.usage_hourly`,
	} {
		var got counts
		var odd int64
		err := b.conn.QueryRow(ctx, sql).Scan(&got.Requests, &got.Input, &got.CachedInput, &got.Output, &got.Reasoning, &odd)
		if err != nil {
			return fmt.Errorf("read %s: %w", table, err)
		}
		if got != want || odd > 0 {
			b.want = got
			return fmt.Errorf("%s has %+v and the provider has %+v; %d rows are not those of a plain success", table, got, want, odd)
		}
	}
	return nil
}
