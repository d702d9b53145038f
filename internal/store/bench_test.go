// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// BenchmarkPost reports what a row costs from a record in memory to its place in the table, the hourly sums and the balances: the
// processor's time of this process (weir-µs/row) and of the Postgres backend (postgres-µs/row, where it runs on this machine). The
// keys of a batch follow a Zipf distribution, each with one of eight models. Where exchanges are unresolved, they are of the time of
// the rows, and more than are compared one by one: as bad as it gets.
func BenchmarkPost(b *testing.B) {
	for _, c := range []load{
		{rows: 500, keys: 10_000},
		{rows: 5000, keys: 10_000},
		{rows: 5000, keys: 100},
		{rows: 5000, keys: 100, unresolved: 10_000},
		{rows: 50_000, keys: 10_000},
		{rows: 50_000, keys: 100},
	} {
		b.Run(fmt.Sprintf("rows=%d/keys=%d/unresolved=%d", c.rows, c.keys, c.unresolved), c.run)
	}
}

// load is what a benchmark posts: batches of so many rows of so many keys.
type load struct{ rows, keys, unresolved int }

func (l load) run(b *testing.B) {
	rows := l.rows
	s, err := Open(b.Context(), pgtest.Database(b), Options{MaxConns: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	var pid int
	if err := s.pool.QueryRow(b.Context(), `select pg_backend_pid()`).Scan(&pid); err != nil {
		b.Fatal(err)
	}
	if _, err := s.pool.Exec(b.Context(), `insert into weir.unresolved select gen_random_uuid(), now() from generate_series(1, $1) i`, l.unresolved); err != nil {
		b.Fatal(err)
	}
	records, fill := make([]usage.Record, rows), l.filler()
	writer, at := uuid.New(), int64(0)
	begin := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Minute)
	post := func() time.Duration {
		fill(records)
		records[0].Time = begin // a long stream
		before := ownTime(b)
		if err := s.Post(b.Context(), batch(writer, at, records...)); err != nil {
			b.Fatal(err)
		}
		at += int64(rows)
		return ownTime(b) - before
	}
	for range max(40_000/rows, 2) { // the caches, the plans and the sums of the hour
		post()
	}
	server, n := backendTime(pid), 0
	var own time.Duration
	for b.Loop() {
		own += post()
		n += rows
	}
	b.ReportMetric(float64((backendTime(pid)-server).Microseconds())/float64(n), "postgres-µs/row")
	b.ReportMetric(float64(own.Microseconds())/float64(n), "weir-µs/row")
}

// filler returns what makes rows of the last two seconds, as they come from a log.
func (l load) filler() func(records []usage.Record) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := rand.NewZipf(random, 1.1, 8, uint64(l.keys-1))
	return func(records []usage.Record) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		for i := range records {
			key := policy.KeyID(keys.Uint64() + 1)
			id, _ := uuid.NewV7()
			model := random.IntN(8)
			records[i] = usage.Record{
				Exchange: id, Time: now.Add(-time.Duration(random.IntN(2000)) * time.Millisecond), Tenant: policy.TenantID(key % 100), Key: key, Channel: policy.ChannelID(1 + model/4),
				Model: "model-" + strconv.Itoa(model), UpstreamModel: "model-2026-01", Operation: policy.OpChat, Status: usage.StatusOK, HTTPStatus: 200, Attempts: 1,
				Tokens: usage.Tokens{Input: 1000, Output: 100}, RequestBytes: 4000, ResponseBytes: 900, FirstByte: time.Second, Duration: 2 * time.Second, Seq: int64(i + 1),
			}
		}
	}
}

// backendTime returns the processor's time of a process of this machine; zero when it is not known.
func backendTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)) // nanoseconds on a CPU, nanoseconds of waiting, time slices
	if err != nil {
		return 0
	}
	on, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseInt(on, 10, 64)
	return time.Duration(n)
}

func ownTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
