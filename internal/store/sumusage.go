// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy/budget"
)

// Dimensions returns what [Store.SumUsage] can group by.
func Dimensions() []string {
	return []string{"key", "model", "channel", "tenant", "hour", "day", "month"}
}

// dimensionSQL returns the expression of a dimension over the columns of weir.usage_hourly. Days and months are those of zone.
func dimensionSQL(name string, zone *time.Location) (sql string, ok bool) {
	switch name {
	case "key":
		return `key_id::text`, true
	case "tenant":
		return `tenant_id::text`, true
	case "channel":
		return `channel_id::text`, true
	case "model":
		return `model collate "C"`, true
	case "hour":
		return `to_char(hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"')`, true
	case "day":
		return `to_char(hour at time zone ` + literal(zone.String()) + `, 'YYYY-MM-DD')`, true
	case "month":
		return `to_char(hour at time zone ` + literal(zone.String()) + `, 'YYYY-MM')`, true
	}
	return "", false
}

func literal(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// sumZone returns the zone of days and months; empty is UTC. Sums are kept by the hour, so a day must begin with one.
func sumZone(name string) (*time.Location, error) {
	zone, err := budget.ParseZone(name)
	if err != nil {
		return nil, invalid("%v", err)
	}
	year := time.Now().Year()
	for _, month := range []time.Month{time.January, time.July} {
		if _, offset := time.Date(year, month, 1, 0, 0, 0, 0, zone).Zone(); offset%3600 != 0 {
			return nil, invalid("time zone %q: its days do not begin with an hour of UTC, and sums are kept by the hour", name)
		}
	}
	return zone, nil
}

// sumColumns are the numbers of weir.usage_hourly in the order of [UsageSum]; the list for weir.usage makes the same of one row.
const (
	sumColumns = `requests, estimated, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, billed_input_tokens, billed_output_tokens, cost_nanousd, unpriced`
	rowColumns = `1, estimated::int, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, billed_input_tokens, billed_output_tokens, coalesce(cost_nanousd, 0), (cost_nanousd is null)::int`
)

// SumUsage returns totals of usage, grouped by the dimensions in by: any of [Dimensions], or none for one grand total. Groups are
// in the order of time where by has an hour, a day or a month, then by requests, most first. Days and months are those of f.Zone. Tenants, keys and channels go by their
// names; by their ids when they have been deleted; no channel is "". A limit bounds the groups, not the rows.
//
// Whole hours come from the hourly sums and only what is left of the first and last hour from rows; with a filter on the status or
// an exchange everything comes from rows, which takes time in proportion to their number.
func (s *Store) SumUsage(ctx context.Context, f UsageFilter, by []string) ([]UsageSum, error) {
	zone, err := sumZone(f.Zone)
	if err != nil {
		return nil, err
	}
	groups := make([]string, len(by))
	var times []string
	for i, name := range by {
		sql, ok := dimensionSQL(name, zone)
		if !ok || slices.Contains(by[:i], name) {
			return nil, invalid("dimension %q: group by each of %s once", name, strings.Join(Dimensions(), ", "))
		}
		groups[i] = sql
		if name == "hour" || name == "day" || name == "month" {
			times = append(times, strconv.Itoa(i+1))
		}
	}
	if f.Limit < 0 {
		return nil, invalid("limit %d: it must not be negative", f.Limit)
	}
	source, args := sumSource(&f)
	sql := `select ` + strings.Join(append(groups, `coalesce(sum(requests), 0)::bigint as requests, coalesce(sum(estimated), 0)::bigint,
			coalesce(sum(input_tokens), 0)::bigint, coalesce(sum(cached_input_tokens), 0)::bigint,
			coalesce(sum(output_tokens), 0)::bigint, coalesce(sum(reasoning_tokens), 0)::bigint,
			coalesce(sum(billed_input_tokens), 0)::bigint, coalesce(sum(billed_output_tokens), 0)::bigint,
			least(coalesce(sum(cost_nanousd), 0), 9e18)::bigint, coalesce(sum(unpriced), 0)::bigint`), ", ") + ` from (` + source + `) s`
	if len(by) > 0 {
		var positions []string
		for i := range by {
			positions = append(positions, strconv.Itoa(i+1))
		}
		order := append(append(times, `requests desc`), positions...)
		sql += ` group by ` + strings.Join(positions, ", ") + ` order by ` + strings.Join(order, ", ")
	}
	if f.Limit > 0 {
		sql += ` limit ` + strconv.Itoa(f.Limit)
	}
	sums, err := many(ctx, s.pool, scanSum(by), sql, args...)
	if err == nil {
		err = s.nameGroups(ctx, by, sums)
	}
	if err != nil {
		return nil, fmt.Errorf("sum usage: %w", err)
	}
	return sums, nil
}

// sumSource returns a query whose rows, in the shape of weir.usage_hourly, add up to what f selects.
func sumSource(f *UsageFilter) (sql string, args []any) {
	var c conditions
	var parts []string
	part := func(table, hour, columns string, restrict func(*conditions)) {
		c.sql.Reset()
		c.filter(f)
		restrict(&c)
		parts = append(parts, `select `+hour+` as hour, tenant_id, key_id, coalesce(channel_id, 0) as channel_id, model, `+columns+
			` from `+table+` `+c.sql.String())
	}
	rows := func(since, until time.Time) {
		part(`weir.usage`, `date_trunc('hour', ts, 'UTC')`, rowColumns, func(c *conditions) {
			c.between("ts", since, until)
			if f.Status != "" {
				c.add(`status = ?`, text(f.Status))
			}
			if f.Exchange != uuid.Nil {
				c.exchange(f.Exchange, wideWindow)
			}
		})
	}
	sums := func(since, until time.Time) {
		part(`weir.usage_hourly`, `hour`, sumColumns, func(c *conditions) { c.between("hour", since, until) })
	}
	first, last := ceilHour(f.Since), f.Until.Truncate(time.Hour)
	switch {
	case f.Status != "" || f.Exchange != uuid.Nil, !f.Since.IsZero() && !f.Until.IsZero() && last.Before(first):
		rows(f.Since, f.Until)
	default:
		sums(first, last)
		if !first.Equal(f.Since) {
			rows(f.Since, first)
		}
		if !last.Equal(f.Until) {
			rows(last, f.Until)
		}
	}
	// The first part names the columns of the union.
	return `select * from (values (null::timestamptz, 0::bigint, 0::bigint, 0::bigint, '', 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint))
		as nothing (hour, tenant_id, key_id, channel_id, model, ` + sumColumns + `) where false union all ` + strings.Join(parts, ` union all `), c.args
}

func ceilHour(t time.Time) time.Time {
	if down := t.Truncate(time.Hour); !down.Equal(t) {
		return down.Add(time.Hour)
	}
	return t
}

func scanSum(by []string) pgx.RowToFunc[UsageSum] {
	return func(row pgx.CollectableRow) (u UsageSum, err error) {
		groups := make([]string, len(by))
		into := make([]any, 0, len(by)+10)
		for i := range groups {
			into = append(into, &groups[i])
		}
		err = row.Scan(append(into, &u.Requests, &u.Estimated, &u.Input, &u.CachedInput, &u.Output, &u.Reasoning, &u.BilledInput, &u.BilledOutput, &u.CostNanoUSD, &u.Unpriced)...)
		u.Group = make(map[string]string, len(by))
		for i, name := range by {
			u.Group[name] = groups[i]
		}
		return u, err
	}
}

// nameGroups puts names in the place of ids.
func (s *Store) nameGroups(ctx context.Context, by []string, sums []UsageSum) error {
	for _, dimension := range by {
		var sql string
		switch dimension {
		case "tenant":
			sql = `select id, name from weir.tenant where id = any($1)`
		case "channel":
			sql = `select id, name from weir.channel where id = any($1) union all select 0, ''`
		case "key":
			// Keys of one name are told apart by their tenant, and revoked ones among them by their id.
			sql = `select k.id, case
					when (select count(*) from weir.key o where o.name = k.name) = 1 then k.name
					when k.revoked is null then t.name || '/' || k.name
					else t.name || '/' || k.name || '#' || k.id end
				from weir.key k join weir.tenant t on t.id = k.tenant_id where k.id = any($1)`
		default:
			continue
		}
		ids := make([]int64, len(sums))
		for i := range sums {
			n, err := strconv.ParseInt(sums[i].Group[dimension], 10, 64)
			if err != nil {
				return err
			}
			ids[i] = n
		}
		rows, err := s.pool.Query(ctx, sql, ids)
		if err != nil {
			return err
		}
		names := make(map[int64]string, len(sums))
		var id int64
		var name string
		if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil }); err != nil {
			return err
		}
		for i := range sums {
			if name, ok := names[ids[i]]; ok {
				sums[i].Group[dimension] = name
			}
		}
	}
	return nil
}
