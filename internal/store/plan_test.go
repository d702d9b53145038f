// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
)

// queries notes what is asked of weir.usage.
type queries struct {
	mu   sync.Mutex
	seen []pgx.TraceQueryStartData
}

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "weir.usage") {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.seen = append(q.seen, data)
	}
	return ctx
}

func (*queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// plan is a node of an explained query.
type plan struct {
	Node     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Hit      int64   `json:"Shared Hit Blocks"`
	Read     int64   `json:"Shared Read Blocks"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []plan
}

// tables adds what each table was read by to the map.
func (p *plan) tables(into map[string]string) {
	if p.Relation != "" && p.Loops > 0 {
		into[p.Relation] = p.Node
	}
	for i := range p.Plans {
		p.Plans[i].tables(into)
	}
}

// cost is what the queries of a call read.
type cost struct {
	pages  int64
	took   float64           // of planning and execution, in milliseconds
	tables map[string]string // each with its kind of scan
}

// explain runs the call and then explains the queries that it made.
func explain(t *testing.T, s *Store, call func() error) cost {
	t.Helper()
	q := new(queries)
	config := s.pool.Config()
	config.ConnConfig.Tracer = q
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	old := s.pool
	s.pool = pool
	err = call()
	s.pool = old
	pool.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := cost{tables: make(map[string]string)}
	for _, data := range q.seen {
		out := query[[]byte](t, s, "explain (analyze, buffers, timing off, format json) "+data.SQL, data.Args...)
		var plans []struct {
			Plan      plan
			Planning  float64 `json:"Planning Time"`
			Execution float64 `json:"Execution Time"`
		}
		if err := json.Unmarshal(out, &plans); err != nil {
			t.Fatal(err)
		}
		p := &plans[0]
		p.Plan.tables(c.tables)
		c.pages += p.Plan.Hit + p.Plan.Read
		c.took += p.Planning + p.Execution
	}
	return c
}

// envRows names the environment variable with the number of rows that plans are tested with.
const envRows = "WEIR_TEST_USAGE_ROWS"

// filled returns a store with rows of 30 days, as many for each hour and key, of which there are 1000 of 50 tenants.
func filled(t *testing.T, rows int) (*Store, time.Time) {
	t.Helper()
	s := mustOpen(t, pgtest.Database(t)+"&statement_timeout=0", Options{})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := noon().Add(-12*time.Hour).AddDate(0, 0, -29)
	for d := 0; d < 30; d += partitionDays + 1 {
		if err := s.EnsurePartitions(t.Context(), begin.AddDate(0, 0, d)); err != nil {
			t.Fatal(err)
		}
	}
	for d := range 30 {
		exec(t, s, `insert into weir.usage (`+strings.Join(usageColumns(), ", ")+`)
			select ts, k % 50 + 1, k + 1, k % 4 + 1, 100, 0, 10, 0, 100, 10, 1000, 1000, i, 200, 1, 100, 1000, true, false,
				(lpad(to_hex((extract(epoch from ts) * 1000)::bigint), 12, '0') || '7' || right(md5(i::text || $1::text), 3) || 'a' || right(md5(i::text || 'x' || $1::text), 15))::uuid,
				'00000000-0000-0000-0000-000000000001', 'model-' || k % 8, 'up', 'chat', 'ok', null, null, null, null
			from (select i, i * 7919 % 1000 as k, date_trunc('milliseconds', $1::timestamptz + i * interval '1 day' / $2::int) as ts from generate_series(0, $2::int - 1) i) r`,
			begin.AddDate(0, 0, d), rows/30)
	}
	exec(t, s, `insert into weir.usage_hourly select date_trunc('hour', ts, 'UTC'), tenant_id, key_id, channel_id, count(*), 0, count(*),
		sum(input_tokens), 0, sum(output_tokens), 0, 0, sum(request_bytes), sum(response_bytes), model from weir.usage group by 1, 2, 3, 4, model`)
	exec(t, s, `vacuum analyze weir.usage`)
	exec(t, s, `vacuum analyze weir.usage_hourly`)
	return s, begin
}

// TestUsageIsReadFromFewPages: no list and no look-up may read more where there are more rows.
func TestUsageIsReadFromFewPages(t *testing.T) {
	rows := 60_000
	if n, err := strconv.Atoi(os.Getenv(envRows)); err == nil {
		rows = n
	}
	s, begin := filled(t, rows)
	exchange := query[uuid.UUID](t, s, `select exchange_id from weir.usage where ts >= $1 order by ts, exchange_id limit 1`, begin.Add(100*time.Hour))
	list := func(f UsageFilter) func() error {
		return func() error { _, err := s.Usage(t.Context(), f); return err }
	}
	sum := func(f UsageFilter, by ...string) func() error {
		return func() error { _, err := s.SumUsage(t.Context(), f, by); return err }
	}
	resolve := func() error {
		tx, err := s.pool.Begin(t.Context())
		if err != nil {
			return err
		}
		defer tx.Rollback(t.Context()) //nolint:errcheck // nothing was done
		r := record(t, begin.Add(100*time.Hour))
		_, err = without(t.Context(), tx, each(batch(uuid.New(), 0, r, record(t, begin.Add(200*time.Hour)), record(t, noon())).Records), ``)
		return err
	}
	const every, unbounded = 40, 1 << 40 // days there are with the default; pages
	for name, tt := range map[string]struct {
		call  func() error
		days  int
		pages int64
	}{
		"newest 20":             {list(UsageFilter{Limit: 20, Until: noon()}), 4, 60},
		"newest 20 of a tenant": {list(UsageFilter{Limit: 20, Until: noon(), Tenant: 7}), 4, 100},
		"newest 40 of a key":    {list(UsageFilter{Limit: 40, Until: noon(), Key: 7}), every, 300}, // of many days
		"of a key without rows": {list(UsageFilter{Limit: 20, Key: 5000}), every, 300},
		"of a day":              {list(UsageFilter{Limit: 20, Since: begin.AddDate(0, 0, 3), Until: begin.AddDate(0, 0, 4)}), 1, 40},
		"page 2":                {list(UsageFilter{Limit: 20, Before: exchange}), 4, 60},
		"one exchange":          {list(UsageFilter{Exchange: exchange}), 1, 20},
		"resolve three":         {resolve, 3, 40},
		"sum of everything":     {sum(UsageFilter{}), 0, unbounded},
		"sum by day":            {sum(UsageFilter{Since: begin.AddDate(0, 0, 20)}, "day"), 0, unbounded},
		"sum of a key":          {sum(UsageFilter{Key: 7, Since: noon()}, "model"), 0, unbounded},
		"sum of odd minutes":    {sum(UsageFilter{Since: begin.Add(100*time.Hour + time.Minute), Until: begin.Add(110*time.Hour - time.Minute)}), 1, unbounded},
	} {
		c := explain(t, s, tt.call)
		days := 0
		for table, scan := range c.tables {
			if strings.HasPrefix(table, "usage_") && table != "usage_hourly" {
				days++
				if scan == "Seq Scan" && table != "usage_default" {
					t.Errorf("%s: all of %s is read", name, table)
				}
			}
		}
		t.Logf("%-22s %6d pages of %2d days in %.1f ms", name, c.pages, days, c.took)
		if c.pages > tt.pages || days > tt.days {
			t.Errorf("%s: %d pages of %d days, want at most %d of %d", name, c.pages, days, tt.pages, tt.days)
		}
	}
}
