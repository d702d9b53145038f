// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/usage"
)

func TestEnsurePartitions(t *testing.T) {
	s := migrated(t)
	day := time.Date(2030, 3, 31, 23, 30, 0, 0, time.FixedZone("east", 9*3600)) // the 31st there, and in UTC too
	utc := day.UTC().Truncate(24 * time.Hour)
	times := []time.Time{
		utc.Add(-time.Microsecond), utc, utc.Add(24*time.Hour - time.Microsecond), utc.Add(24 * time.Hour), utc.AddDate(0, 0, partitionDays+1),
	}
	var records []usage.Record
	for _, at := range times {
		records = append(records, record(t, at))
	}
	writer := uuid.New()
	mustPost(t, s, batch(writer, 0, records...)) // before their days have partitions
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := s.EnsurePartitions(t.Context(), day); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mustPost(t, s, batch(writer, 5, record(t, times[1])))
	want := map[string]int64{"weir.usage_20300331": 3, "weir.usage_20300401": 1, "weir.usage_default": 2}
	if diff := cmp.Diff(placed(t, s), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if got := query[int64](t, s, `select count(*) from pg_indexes where schemaname = 'weir' and tablename = 'usage_20300331'`); got != 2 {
		t.Errorf("%d indexes", got)
	}
}

// placed returns how many rows each partition has.
func placed(t *testing.T, s *Store) map[string]int64 {
	t.Helper()
	type table struct {
		Name string
		Rows int64
	}
	tables, err := many(t.Context(), s.pool, pgx.RowToStructByPos[table], `select tableoid::regclass::text, count(*) from weir.usage group by 1`)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, p := range tables {
		got[p.Name] = p.Rows
	}
	return got
}

// TestDaysAreOfUTCWhateverTheSessionsTimeZone posts around midnights that are special somewhere, from a session half an hour off.
func TestDaysAreOfUTCWhateverTheSessionsTimeZone(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t)+"&timezone=Asia/Kolkata", Options{})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]int64)
	writer, at := uuid.New(), int64(0)
	for _, day := range []time.Time{
		time.Date(2031, 12, 31, 0, 0, 0, 0, time.UTC), // a year's end
		time.Date(2032, 2, 28, 0, 0, 0, 0, time.UTC),  // a leap year
		time.Date(2031, 3, 30, 0, 0, 0, 0, time.UTC),  // clocks go forward in Europe
		time.Date(2031, 10, 26, 0, 0, 0, 0, time.UTC), // and back
	} {
		if err := s.EnsurePartitions(t.Context(), day); err != nil {
			t.Fatal(err)
		}
		for d := range 3 {
			begin := day.AddDate(0, 0, d)
			for _, r := range []usage.Record{record(t, begin), record(t, begin.Add(24*time.Hour-time.Microsecond)), record(t, begin.Add(90*time.Minute))} {
				mustPost(t, s, batch(writer, at, r))
				at++
			}
			want["weir."+partitionName(begin)] = 3
		}
	}
	if diff := cmp.Diff(placed(t, s), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	wantTheSame(t, s)
	if n := query[int64](t, s, `select count(*) from weir.usage_hourly`); n != 4*3*3 {
		t.Errorf("%d hours", n)
	}
}

// TestManyRowsOfTheDefaultPartitionMove: their day's partition must come into being, however long that takes.
func TestManyRowsOfTheDefaultPartitionMove(t *testing.T) {
	dsn := pgtest.Database(t)
	s := mustOpen(t, dsn, Options{})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	day := noon().AddDate(0, 2, 0)
	exec(t, s, `insert into weir.usage (`+strings.Join(usageColumns(), ", ")+`)
		select $1::timestamptz + i * interval '1 ms', 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1, i, 200, 1, 1, 1, false, false, gen_random_uuid(), gen_random_uuid(), 'm', 'm', 'chat', 'ok', null, null, null, null
		from generate_series(1, 20000) i`, day)
	hasty := mustOpen(t, dsn+"&statement_timeout=20", Options{})
	if err := hasty.ensurePartition(t.Context(), day.Truncate(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(placed(t, s), map[string]int64{"weir." + partitionName(day): 20000}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestRetainGoesByTheClockThatIsBehind(t *testing.T) {
	s := migrated(t)
	if err := s.EnsurePartitions(t.Context(), noon().AddDate(0, 0, -50)); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	mustPost(t, s, batch(uuid.New(), 0, record(t, noon().AddDate(0, 0, -50)), record(t, noon().AddDate(0, 0, -45)), record(t, noon())))
	for _, c := range []struct {
		ahead time.Duration // of the processor's clock
		left  int64
	}{{-20 * day, 3}, {-8 * day, 2}, {1000 * day, 1}} {
		if _, err := s.Retain(t.Context(), noon().Add(c.ahead), 40*day); err != nil {
			t.Fatal(err)
		}
		if n := query[int64](t, s, `select count(*) from weir.usage`); n != c.left {
			t.Errorf("a clock that is %v ahead leaves %d rows, want %d", c.ahead, n, c.left)
		}
	}
}

func TestDropPartitionsKeepsTheSums(t *testing.T) {
	s := migrated(t)
	if err := s.EnsurePartitions(t.Context(), noon().AddDate(0, 0, -5)); err != nil {
		t.Fatal(err)
	}
	var records, open []usage.Record
	for _, days := range []int{-1000, -6, -5, -4, -3, -2, -1, 0} {
		records = append(records, record(t, noon().AddDate(0, 0, days)))
		open = append(open, unresolved(record(t, noon().AddDate(0, 0, days))))
	}
	mustPost(t, s, batch(uuid.New(), 0, records...))
	mustResolve(t, s, open...)
	exec(t, s, `create table weir.usage_99999999 (like weir.usage)`)
	exec(t, s, `create table weir.usage_20000101 (like weir.usage)`) // no partition

	before := noon().AddDate(0, 0, -2).In(time.FixedZone("east", 14*3600)) // the day after, there
	dropped, err := s.DropPartitions(t.Context(), before)
	if dropped != 3 || err != nil {
		t.Errorf("dropped %d, %v; want 3", dropped, err)
	}
	want := make(map[string]int64)
	for _, days := range []int{-2, -1, 0} {
		want["weir."+partitionName(noon().AddDate(0, 0, days))] = 2
	}
	if diff := cmp.Diff(placed(t, s), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if n := query[int64](t, s, `select count(*) from weir.unresolved`); n != 3 {
		t.Errorf("%d unresolved", n)
	}
	sums, err := s.SumUsage(t.Context(), UsageFilter{}, nil)
	if err != nil || len(sums) != 1 || sums[0].Requests != 16 {
		t.Errorf("sums = %+v, %v", sums, err)
	}
	if dropped, err := s.DropPartitions(t.Context(), before); dropped != 0 || err != nil {
		t.Errorf("again: dropped %d, %v", dropped, err)
	}
	if n := query[int64](t, s, `select count(*) from pg_tables where tablename in ('usage_99999999', 'usage_20000101')`); n != 2 {
		t.Errorf("%d tables left that are not ours", n)
	}
	// A day of which lines come late has no partition any more, and its rows a place all the same.
	mustPost(t, s, batch(uuid.New(), 0, record(t, noon().AddDate(0, 0, -5))))
	if n := placed(t, s)["weir.usage_default"]; n != 1 {
		t.Errorf("%d rows in the default partition", n)
	}
}

func TestDropPartitionsDoesNotWaitForReadersForEver(t *testing.T) {
	s := migrated(t)
	if err := s.EnsurePartitions(t.Context(), noon().AddDate(0, 0, -3)); err != nil {
		t.Fatal(err)
	}
	reader, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), `select count(*) from weir.usage`); err != nil {
		t.Fatal(err)
	}
	dropped, err := s.DropPartitions(t.Context(), noon())
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "55P03" || dropped != 0 {
		t.Errorf("dropped %d beside a reader: %v", dropped, err)
	}
	mustPost(t, s, batch(uuid.New(), 0, record(t, noon())))
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dropped, err := s.DropPartitions(t.Context(), noon()); dropped != 3 || err != nil {
		t.Errorf("dropped %d after the reader: %v", dropped, err)
	}
}

// TestDropPartitionsWhileRowsArePosted: neither side may fail for the other.
func TestDropPartitionsWhileRowsArePosted(t *testing.T) {
	s := migrated(t)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			writer := uuid.New()
			for at := range int64(30) {
				r := record(t, noon().AddDate(0, 0, -1-int(at)%3).Add(time.Duration(i)*time.Second))
				if _, err := s.Resolve(t.Context(), resolution(unresolved(r))); err != nil {
					t.Error(err)
				}
				if err := s.Post(t.Context(), batch(writer, 2*at, r, record(t, noon()))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		if err := s.EnsurePartitions(t.Context(), noon().AddDate(0, 0, -3)); err != nil {
			t.Error(err)
		}
		if _, err := s.DropPartitions(t.Context(), noon()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if n := query[int64](t, s, `select sum(requests)::bigint from weir.usage_hourly`); n < 120 {
		t.Errorf("%d requests in the sums", n)
	}
	if got := placed(t, s)["weir."+partitionName(noon())]; got != 60 {
		t.Errorf("%d rows of today, want 60", got)
	}
}
