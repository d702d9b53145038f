// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// hourKey and balanceKey are the primary keys of weir.usage_hourly and weir.balance.
type (
	hourKey struct {
		hour    time.Time
		tenant  policy.TenantID
		key     policy.KeyID
		model   string
		channel policy.ChannelID
	}
	balanceKey struct {
		tenant policy.TenantID
		key    policy.KeyID
	}
)

func (a hourKey) compare(b hourKey) int {
	return cmp.Or(a.hour.Compare(b.hour), cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.key, b.key),
		cmp.Compare(a.model, b.model), cmp.Compare(a.channel, b.channel))
}

func (a balanceKey) compare(b balanceKey) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.key, b.key))
}

// total is what a batch adds to a row of weir.usage_hourly or weir.balance.
type total struct {
	requests, estimated, unpriced int64
	tokens                        usage.Tokens
	cost                          int64 // nano-dollars
	requestBytes, responseBytes   int64
}

func (t *total) add(r *usage.Record) {
	t.requests++
	if r.Estimated {
		t.estimated++
	}
	t.unpriced++ // a record carries no cost
	t.tokens.Input += r.Input
	t.tokens.CachedInput += r.CachedInput
	t.tokens.Output += r.Output
	t.tokens.Reasoning += r.Reasoning
	t.requestBytes += r.RequestBytes
	t.responseBytes += r.ResponseBytes
}

// plus adds o to t, times times.
func (t *total) plus(o *total, times int64) {
	t.requests += times * o.requests
	t.estimated += times * o.estimated
	t.unpriced += times * o.unpriced
	t.tokens.Input += times * o.tokens.Input
	t.tokens.CachedInput += times * o.tokens.CachedInput
	t.tokens.Output += times * o.tokens.Output
	t.tokens.Reasoning += times * o.tokens.Reasoning
	t.cost += times * o.cost
	t.requestBytes += times * o.requestBytes
	t.responseBytes += times * o.responseBytes
}

// contribution is what a row has added to the sums.
type contribution struct {
	hourKey
	total
}

// addSums adds the rows to their sums, and takes out of them what taken has added. The rows are added up here and not in SQL, and sorted, so that writers that touch the
// same sums lock them in one order and cannot deadlock; the balances, which most writers share, are locked last and so briefly.
func addSums(ctx context.Context, tx pgx.Tx, rows []usage.Record, taken []contribution) error {
	hours, balances := make(map[hourKey]*total), make(map[balanceKey]*total)
	for i := range rows {
		r := &rows[i]
		at(hours, hourKey{r.Time.Truncate(time.Hour), r.Tenant, r.Key, r.Model, r.Channel}).add(r)
		at(balances, balanceKey{r.Tenant, r.Key}).add(r)
	}
	for i := range taken {
		c := &taken[i]
		at(hours, c.hourKey).plus(&c.total, -1)
		at(balances, balanceKey{c.tenant, c.key}).plus(&c.total, -1)
	}
	var batch pgx.Batch
	queueHours(&batch, hours)
	queueEmptied(&batch, taken)
	queueBalances(&batch, balances)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("add to sums: %w", err)
	}
	return nil
}

func at[K comparable](m map[K]*total, key K) *total {
	t := m[key]
	if t == nil {
		t = new(total)
		m[key] = t
	}
	return t
}

func queueHours(batch *pgx.Batch, hours map[hourKey]*total) {
	var (
		hour                 []time.Time
		tenant, key, channel []int64
		model                []string
		counts               [10][]int64
	)
	for _, k := range slices.SortedFunc(maps.Keys(hours), hourKey.compare) {
		hour, model = append(hour, k.hour), append(model, k.model)
		tenant, key, channel = append(tenant, int64(k.tenant)), append(key, int64(k.key)), append(channel, int64(k.channel))
		t := hours[k]
		for i, n := range [10]int64{
			t.requests, t.estimated, t.unpriced, t.tokens.Input, t.tokens.CachedInput, t.tokens.Output, t.tokens.Reasoning,
			t.cost, t.requestBytes, t.responseBytes,
		} {
			counts[i] = append(counts[i], n)
		}
	}
	c := &counts
	batch.Queue(`insert into weir.usage_hourly as h (hour, tenant_id, key_id, model, channel_id, requests, estimated, unpriced,
			input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_nanousd, request_bytes, response_bytes)
		select * from unnest($1::timestamptz[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])
		on conflict (hour, tenant_id, key_id, model, channel_id) do update set
			requests = h.requests + excluded.requests,
			estimated = h.estimated + excluded.estimated,
			unpriced = h.unpriced + excluded.unpriced,
			input_tokens = h.input_tokens + excluded.input_tokens,
			cached_input_tokens = h.cached_input_tokens + excluded.cached_input_tokens,
			output_tokens = h.output_tokens + excluded.output_tokens,
			reasoning_tokens = h.reasoning_tokens + excluded.reasoning_tokens,
			cost_nanousd = h.cost_nanousd + excluded.cost_nanousd,
			request_bytes = h.request_bytes + excluded.request_bytes,
			response_bytes = h.response_bytes + excluded.response_bytes`,
		hour, tenant, key, model, channel, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9])
}

// queueEmptied deletes sums that are of no row any more.
func queueEmptied(batch *pgx.Batch, taken []contribution) {
	for i := range taken {
		k := &taken[i].hourKey
		batch.Queue(`delete from weir.usage_hourly where hour = $1 and tenant_id = $2 and key_id = $3 and model = $4 and channel_id = $5 and requests = 0`,
			k.hour, int64(k.tenant), int64(k.key), k.model, int64(k.channel))
	}
}

func queueBalances(batch *pgx.Batch, balances map[balanceKey]*total) {
	var tenant, key, requests, tokens, cost []int64
	for _, k := range slices.SortedFunc(maps.Keys(balances), balanceKey.compare) {
		t := balances[k]
		tenant, key = append(tenant, int64(k.tenant)), append(key, int64(k.key))
		requests, tokens, cost = append(requests, t.requests), append(tokens, t.tokens.Input+t.tokens.Output), append(cost, t.cost)
	}
	batch.Queue(`insert into weir.balance as b (tenant_id, key_id, requests, tokens, cost_nanousd)
		select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
		on conflict (tenant_id, key_id) do update set
			requests = b.requests + excluded.requests,
			tokens = b.tokens + excluded.tokens,
			cost_nanousd = b.cost_nanousd + excluded.cost_nanousd`,
		tenant, key, requests, tokens, cost)
}
