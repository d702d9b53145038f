// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// heard is a store and how many dead letters it has told of.
func heard(t *testing.T) (*Store, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	s := mustOpen(t, pgtest.Database(t), Options{OnDeadLetter: func(more int) { n.Add(int64(more)) }})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, &n
}

func wantDeadLetters(t *testing.T, s *Store, told *atomic.Int64, want int64) {
	t.Helper()
	if got, err := s.DeadLetters(t.Context()); got != want || told.Load() != want || err != nil {
		t.Errorf("%d dead letters, told of %d, want %d: %v", got, told.Load(), want, err)
	}
}

// evil makes Postgres refuse rows of the model "evil" in some way.
func evil() map[string]string {
	return map[string]string{
		"constraint": `alter table weir.usage add constraint not_evil check (model <> 'evil')`,
		"trigger of the rows": `create function weir.refuse() returns trigger language plpgsql as $$ begin raise 'evil'; end $$;
			create trigger refuse before insert on weir.usage for each row when (new.model = 'evil') execute function weir.refuse()`,
		"trigger of the sums": `create function weir.refuse() returns trigger language plpgsql as $$ begin raise 'evil'; end $$;
			create trigger refuse before insert on weir.usage_hourly for each row when (new.model = 'evil') execute function weir.refuse()`,
		"trigger at the end": `create function weir.refuse() returns trigger language plpgsql as $$ begin raise 'evil'; end $$;
			create constraint trigger refuse after insert on weir.usage_hourly deferrable initially deferred for each row when (new.model = 'evil') execute function weir.refuse()`,
		"sum overflow": `insert into weir.balance values (1, 666, 0, 9223372036854775807, 0)`,
	}
}

func TestRefusedRowsAreBuriedAndTheOthersPosted(t *testing.T) {
	for name, sql := range evil() {
		t.Run(name, func(t *testing.T) {
			s, told := heard(t)
			exec(t, s, sql)
			var records []usage.Record
			for i := range 50 {
				r := record(t, noon())
				if i%20 == 3 {
					r.Model, r.Key = "evil", 666
				}
				records = append(records, r)
			}
			writer := uuid.New()
			mustPost(t, s, batch(writer, 0, records...))
			wantPosition(t, s, writer, 50)
			wantDeadLetters(t, s, told, 3)
			if name == "sum overflow" {
				exec(t, s, `delete from weir.balance where key_id = 666`)
			}
			wantSums(t, s, numbers{Requests: 47, Tokens: 47 * 120})
			wantTheSame(t, s)
			type letter struct {
				Writer, Exchange uuid.UUID
				Seq              int64
				TS               time.Time
				Reason           string
				Record           []byte
			}
			letters, err := many(t.Context(), s.pool, pgx.RowToStructByPos[letter],
				`select writer, exchange_id, seq, ts, reason, record::text::bytea from weir.dead_letter order by seq`)
			if err != nil || len(letters) != 3 {
				t.Fatalf("letters = %+v, %v", letters, err)
			}
			for i, l := range letters {
				want := records[3+20*i]
				var got usage.Record
				if err := json.Unmarshal(l.Record, &got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(got, want); diff != "" {
					t.Errorf("record (-got +want):\n%s", diff)
				}
				if l.Writer != writer || l.Exchange != want.Exchange || l.Seq != want.Seq || !l.TS.Equal(want.Time) || l.Reason == "" {
					t.Errorf("letter = %+v", l)
				}
			}
		})
	}
}

func TestABatchOfNothingButRefusedRowsMovesThePosition(t *testing.T) {
	s, told := heard(t)
	exec(t, s, evil()["constraint"])
	var records []usage.Record
	for range 200 {
		r := record(t, noon())
		r.Model = "evil"
		records = append(records, r)
	}
	writer := uuid.New()
	mustPost(t, s, batch(writer, 0, records...))
	wantPosition(t, s, writer, 200)
	wantDeadLetters(t, s, told, 200)
	mustPost(t, s, batch(writer, 200, record(t, noon())))
	wantSums(t, s, numbers{Requests: 1, Tokens: 120})
}

func TestARefusedLateLineLeavesTheUnresolvedRow(t *testing.T) {
	s, told := heard(t)
	exec(t, s, `alter table weir.usage add constraint no_channel_66 check (channel_id <> 66)`)
	bad, good := record(t, noon()), record(t, noon())
	bad.Channel = 66
	mustResolve(t, s, unresolved(bad), unresolved(good))
	mustPost(t, s, batch(uuid.New(), 0, bad, good))
	wantStatuses(t, s, map[string]int64{"ok": 1, "unresolved": 1})
	wantSums(t, s, numbers{Requests: 2, Tokens: 120 + 390, Cost: 500})
	wantDeadLetters(t, s, told, 1)
}

func TestResolveBuriesWhatIsRefused(t *testing.T) {
	s, told := heard(t)
	exec(t, s, evil()["constraint"])
	bad, good := unresolved(record(t, noon())), unresolved(record(t, noon()))
	bad.Model = "evil"
	mustResolve(t, s, bad, good)
	wantStatuses(t, s, map[string]int64{"unresolved": 1})
	wantDeadLetters(t, s, told, 1)
	if got := query[uuid.UUID](t, s, `select writer from weir.dead_letter`); got != uuid.Nil {
		t.Errorf("writer = %s", got)
	}
}

func TestWritersWithRefusedRowsDoNotDeadlock(t *testing.T) {
	s, told := heard(t)
	exec(t, s, evil()["constraint"])
	const writers, batches, size = 4, 4, 40
	var work [writers][batches][]usage.Record
	for w := range writers {
		for b := range batches {
			for i := range size {
				r := record(t, noon())
				r.Key = policy.KeyID((i*(w+3) + b) % 17)
				if i%13 == w {
					r.Model = "evil"
				}
				work[w][b] = append(work[w][b], r)
			}
		}
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			writer := uuid.New()
			for b := range batches {
				if err := s.Post(t.Context(), batch(writer, int64(b*size), work[w][b]...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	bad := told.Load()
	wantDeadLetters(t, s, told, bad)
	wantTheSame(t, s)
	if n := query[int64](t, s, `select count(*) from weir.usage`); n+bad != writers*batches*size || bad == 0 {
		t.Errorf("%d rows and %d dead letters of %d records", n, bad, writers*batches*size)
	}
}

// TestWhatIsNobodysFaultIsNotBuried: what may succeed the next time must fail now, and leave nothing behind.
func TestWhatIsNobodysFaultIsNotBuried(t *testing.T) {
	s, told := heard(t)
	writer, at := uuid.New(), int64(0)
	for name, code := range map[string]string{
		"a deadlock": "40P01", "a serialization failure": "40001", "a cancelled statement": "57014", "a full disk": "53100", "a lock timeout": "55P03",
		"a lack of rights": "42501", "a shutdown": "57P01", "a read-only database": "25006", "an undefined table": "42P01",
	} {
		exec(t, s, fmt.Sprintf(`create function weir.fail() returns trigger language plpgsql as $$ begin raise 'no' using errcode = '%s'; end $$;
			create trigger fail before insert on weir.balance for each row execute function weir.fail()`, code))
		b := batch(writer, at, record(t, noon()), record(t, noon()))
		err := s.Post(t.Context(), b)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != code {
			t.Errorf("%s: %v", name, err)
		}
		wantPosition(t, s, writer, at)
		exec(t, s, `drop trigger fail on weir.balance; drop function weir.fail`)
		mustPost(t, s, b)
		at = b.To
	}
	wantSums(t, s, numbers{Requests: at, Tokens: at * 120})
	wantDeadLetters(t, s, told, 0)
}

func TestRefusedIsWhatPostgresWouldRefuseAgain(t *testing.T) {
	for code, want := range map[string]bool{
		"22001": true, "22003": true, "22021": true, "22P05": true, "23502": true, "23505": true, "23514": true, "44000": true, "P0001": true, "54000": true,
		"08006": false, "40001": false, "40P01": false, "42P10": false, "53100": false, "53200": false, "55P03": false, "57014": false, "XX001": false,
	} {
		if got := refused(fmt.Errorf("post: %w", &pgconn.PgError{Code: code, ConstraintName: "c"})); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
	if refused(nil) || refused(errors.New("lost")) || refused(&pgconn.PgError{Code: "23514", TableName: "usage"}) {
		t.Error("refused is said of what says nothing of rows")
	}
}

func TestAMissingPartitionIsMadeAndNobodyIsBuried(t *testing.T) {
	s, told := heard(t)
	exec(t, s, `drop table weir.usage_default`)
	r := record(t, noon().AddDate(3, 0, 0))
	mustPost(t, s, batch(uuid.New(), 0, r))
	exec(t, s, `drop table weir.usage_default`)
	mustResolve(t, s, unresolved(r))
	if n := query[int64](t, s, `select count(*) from weir.usage`); n != 1 {
		t.Errorf("%d rows", n)
	}
	wantDeadLetters(t, s, told, 0)
	exec(t, s, `drop table weir.usage_default`)
	if err := s.EnsurePartitions(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := query[int64](t, s, `select count(*) from pg_class where oid = 'weir.usage_default'::regclass`); n != 1 {
		t.Errorf("%d default partitions", n)
	}
}
