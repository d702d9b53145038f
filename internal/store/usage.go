// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxRows bounds a list of usage.
const maxRows = 1000

// conditions builds the where clause of a query.
type conditions struct {
	sql  strings.Builder
	args []any
}

// add appends a condition; each ? in it stands for the next of the arguments.
func (c *conditions) add(condition string, args ...any) {
	if c.sql.Len() == 0 {
		c.sql.WriteString("where ")
	} else {
		c.sql.WriteString(" and ")
	}
	for _, arg := range args {
		before, after, _ := strings.Cut(condition, "?")
		c.args = append(c.args, arg)
		c.sql.WriteString(before + "$" + strconv.Itoa(len(c.args)))
		condition = after
	}
	c.sql.WriteString(condition)
}

// filter adds the conditions of f that rows of usage and hourly sums have in common.
func (c *conditions) filter(f *UsageFilter) {
	if f.Tenant != 0 {
		c.add(`tenant_id = ?`, f.Tenant)
	}
	if f.Key != 0 {
		c.add(`key_id = ?`, f.Key)
	}
	if f.Channel != 0 {
		c.add(`channel_id = ?`, f.Channel)
	}
	if f.Model != "" {
		c.add(`model = ?`, text(f.Model))
	}
}

// between adds a range of time to the conditions; a zero time leaves it open.
func (c *conditions) between(column string, since, until time.Time) {
	if !since.IsZero() {
		c.add(column+` >= ?`, since)
	}
	if !until.IsZero() {
		c.add(column+` < ?`, until)
	}
}

// exchange adds conditions that find one exchange. Its id carries its time, which the index is on.
func (c *conditions) exchange(id uuid.UUID, within time.Duration) {
	if t, ok := exchangeTime(id); ok {
		c.between("ts", t.Add(-within), t.Add(within))
	}
	c.add(`exchange_id = ?`, id)
}

// exchangeTime returns the time, to the millisecond, that a UUID of version 7 carries.
func exchangeTime(id uuid.UUID) (time.Time, bool) {
	if id.Version() != 7 {
		return time.Time{}, false
	}
	return time.Unix(id.Time().UnixTime()).UTC(), true
}

// An exchange is first looked for at the time in its id. A row that another clock gave its time is found in a second, wider look.
const (
	exactWindow = 2 * time.Millisecond
	wideWindow  = time.Minute
)

// Usage returns rows of weir.usage, newest first.
func (s *Store) Usage(ctx context.Context, f UsageFilter) ([]UsageRow, error) {
	if f.Limit < 0 {
		return nil, invalid("limit %d: it must not be negative", f.Limit)
	}
	if f.Limit == 0 || f.Limit > maxRows {
		f.Limit = maxRows
	}
	before := time.Time{}
	if f.Before != uuid.Nil {
		var err error
		if before, err = s.timeOf(ctx, f.Before); err != nil {
			return nil, err
		}
	}
	rows, err := s.newest(ctx, f, before)
	if err != nil {
		return nil, fmt.Errorf("list usage: %w", err)
	}
	return rows, nil
}

// recent is how far back is looked first for the newest rows, nearest first. Every day has a table, and most of a short list's time goes
// into opening them. The rows of a tenant are those of all of its keys, so the less time is looked through the better.
func recent(f *UsageFilter) []time.Duration {
	if f.ofTenant() {
		return []time.Duration{time.Minute, time.Hour, 48 * time.Hour}
	}
	return []time.Duration{48 * time.Hour}
}

// ofTenant reports whether f asks for rows of a tenant and nothing narrower that has an index.
func (f *UsageFilter) ofTenant() bool { return f.Tenant != 0 && f.Key == 0 && f.Exchange == uuid.Nil }

// newest lists what f selects. It looks where the rows are likely to be, and only then everywhere.
func (s *Store) newest(ctx context.Context, f UsageFilter, before time.Time) ([]UsageRow, error) {
	if f.Exchange != uuid.Nil {
		rows, err := s.usage(ctx, &f, before, exactWindow)
		if err == nil && len(rows) == 0 {
			rows, err = s.usage(ctx, &f, before, wideWindow)
		}
		return rows, err
	}
	end := time.Now()
	for _, t := range []time.Time{before, f.Until} {
		if !t.IsZero() && t.Before(end) {
			end = t
		}
	}
	for _, back := range recent(&f) {
		late := f
		if late.Since = end.Add(-back); !f.Since.Before(late.Since) {
			break
		}
		if rows, err := s.usage(ctx, &late, before, exactWindow); err != nil || len(rows) == f.Limit {
			return rows, err
		}
	}
	return s.usage(ctx, &f, before, exactWindow)
}

// timeOf returns when an exchange was admitted.
func (s *Store) timeOf(ctx context.Context, exchange uuid.UUID) (time.Time, error) {
	for _, window := range []time.Duration{exactWindow, wideWindow} {
		var c conditions
		c.exchange(exchange, window)
		times, err := many(ctx, s.pool, pgx.RowTo[time.Time], `select ts from weir.usage `+c.sql.String()+` limit 1`, c.args...)
		if err != nil {
			return time.Time{}, fmt.Errorf("find exchange %s: %w", exchange, err)
		}
		if len(times) > 0 {
			return times[0], nil
		}
	}
	if t, ok := exchangeTime(exchange); ok {
		return t, nil // its row may have been dropped with its day
	}
	return time.Time{}, fmt.Errorf("exchange %s: %w", exchange, ErrNotFound)
}

func (s *Store) usage(ctx context.Context, f *UsageFilter, before time.Time, window time.Duration) ([]UsageRow, error) {
	var c conditions
	c.filter(f)
	c.between("ts", f.Since, f.Until)
	if f.Status != "" {
		c.add(`status = ?`, text(f.Status))
	}
	if f.Exchange != uuid.Nil {
		c.exchange(f.Exchange, window)
	}
	if !before.IsZero() {
		c.add(`ts <= ?`, before) // for the index; the comparison of rows alone does not use it
		c.add(`(ts, exchange_id) < (?, ?)`, before, f.Before)
	}
	const newest = ` order by ts desc, exchange_id desc`
	found := `select * from weir.usage u ` + c.sql.String() + newest + ` limit ` + strconv.Itoa(f.Limit)
	if f.ofTenant() {
		// There is an index on keys and none on tenants. A key has a balance from its first row on.
		c.args = append(c.args, f.Tenant)
		c.add(`u.key_id = k.key_id`)
		found = `select u.* from (select key_id from weir.balance where tenant_id = $` + strconv.Itoa(len(c.args)) + `) k
			cross join lateral (select * from weir.usage u ` + c.sql.String() + newest + ` limit ` + strconv.Itoa(f.Limit) + `) u` + newest + ` limit ` + strconv.Itoa(f.Limit)
	}
	sql := `select ts, exchange_id, u.tenant_id, key_id, coalesce(channel_id, 0), coalesce(t.name, ''), coalesce(k.name, ''), coalesce(c.name, ''),
			model, upstream_model, operation, status, http_status, attempts, stream, estimated,
			input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, billed_input_tokens, billed_output_tokens, cost_nanousd, price_version, coalesce(token_details, '{}'), request_bytes, response_bytes, first_byte_ms, duration_ms, u.tags
		from (` + found + `) u
		left join weir.tenant t on t.id = u.tenant_id left join weir.key k on k.id = u.key_id left join weir.channel c on c.id = u.channel_id` + newest
	return many(ctx, s.pool, scanUsage, sql, c.args...)
}

func scanUsage(row pgx.CollectableRow) (u UsageRow, err error) {
	err = row.Scan(&u.Time, &u.Exchange, &u.TenantID, &u.KeyID, &u.ChannelID, &u.Tenant, &u.Key, &u.Channel,
		&u.Model, &u.UpstreamModel, &u.Operation, &u.Status, &u.HTTPStatus, &u.Attempts, &u.Stream, &u.Estimated,
		&u.Input, &u.CachedInput, &u.Output, &u.Reasoning, &u.BilledInput, &u.BilledOutput, &u.CostNanoUSD, &u.PriceVersion, &u.Details, &u.RequestBytes, &u.ResponseBytes, &u.FirstByteMS, &u.DurationMS, &u.Tags)
	u.Time = u.Time.UTC()
	return u, err
}
