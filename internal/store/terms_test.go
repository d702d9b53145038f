// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/policy/limit"
)

// follower polls again and again.
type follower struct {
	*testing.T
	store *Store
	at    keyPosition
}

func (f *follower) poll() keyChanges {
	f.Helper()
	c, err := f.store.pollKeys(f.Context(), f.at)
	if err != nil {
		f.Fatal(err)
	}
	f.at = c.at
	return c
}

func TestTermsAreFollowedOneByOne(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	f := &follower{t, s, loaded(t, s)}
	month, day := "month", "day"
	k, _, err := s.CreateKey(ctx, NewKey{Name: "bot", Budget: &BudgetChange{Amount: new(dollar), Period: &month}, Limits: &RatesChange{Requests: new(int64(60))}})
	if err != nil {
		t.Fatal(err)
	}
	c := f.poll()
	if len(c.changed) != 1 || len(c.terms.Budgets.Budgets) != 1 || len(c.terms.Limits.Limits) != 1 {
		t.Fatalf("a key with a budget and a limit: %+v", c)
	}
	first := c.terms.Budgets.Budgets[0]
	if first != (budget.Budget{ID: first.ID, Key: k.ID, Tenant: k.Tenant, Amount: dollar, Period: budget.Month}) || first.ID == 0 {
		t.Errorf("budget %+v", first)
	}
	l := c.terms.Limits.Limits[0]
	if l != (limit.Limit{ID: l.ID, Tenant: k.Tenant, Key: k.ID, Model: "*", Rates: limit.Rates{Requests: 60}}) || l.ID == 0 {
		t.Errorf("limit %+v", l)
	}
	if c = f.poll(); !c.terms.Empty() || len(c.changed) != 0 {
		t.Errorf("nothing has happened: %+v", c)
	}
	if _, err := s.SetKey(ctx, "bot", KeyChange{Budget: &BudgetChange{Period: &day}, Limits: &RatesChange{Requests: new(int64(0))}}); err != nil {
		t.Fatal(err)
	}
	c = f.poll()
	if b := c.terms.Budgets; len(b.Budgets) != 1 || b.Budgets[0].Period != budget.Day || !slices.Equal(b.Gone, []int64{first.ID}) {
		t.Errorf("after another period: %+v", b)
	}
	if !slices.Equal(c.terms.Limits.Gone, []limit.ID{l.ID}) || len(c.terms.Limits.Limits) != 0 {
		t.Errorf("after the limit was lifted: %+v", c.terms.Limits)
	}
	if _, err := s.SetTenant(ctx, DefaultTenant, TenantChange{Budget: &BudgetChange{Amount: new(dollar)}}); err != nil {
		t.Fatal(err)
	}
	before := c.revision
	if c = f.poll(); len(c.terms.Budgets.Budgets) != 1 || c.revision != before {
		t.Errorf("a budget of a tenant: %+v; the revision was %d", c, before)
	}
	if _, _, err := s.TopUp(ctx, TopUp{BudgetRef: BudgetRef{Key: "bot"}, Amount: dollar, Reference: "r"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if c = f.poll(); len(c.terms.Budgets.Budgets) != 1 {
		t.Errorf("nobody hears of a top-up: %+v", c)
	}
	exec(t, s, `truncate weir.budget`)
	if c = f.poll(); !c.all {
		t.Error("after a truncate not all are to be read")
	}
	exec(t, s, `update weir.terms_gone set gone = now() - interval '25 hours'`)
	if err := s.PruneKeys(ctx); err != nil || query[int64](t, s, `select count(*) from weir.terms_gone`) != 0 {
		t.Errorf("what was deleted long ago is remembered: %v", err)
	}
}

// A budget that is replaced by one with another period leaves no look without either.
func TestKeyIsNeverSeenWithoutItsBudgetWhileThatChanges(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	f := &follower{t, s, loaded(t, s)}
	done := make(chan error, 1)
	const rounds = 100
	go func() {
		done <- func() error {
			for i := range rounds {
				name, periods := fmt.Sprintf("bot-%d", i), [...]string{"day", "week"}
				if _, _, err := s.CreateKey(ctx, NewKey{Name: name, Budget: &BudgetChange{Amount: new(dollar)}}); err != nil {
					return err
				}
				if _, err := s.SetKey(ctx, name, KeyChange{Budget: &BudgetChange{Period: &periods[i%2]}}); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	x, err := budget.NewIndex([]budget.Tenant{{ID: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	book := budget.New(budget.Options{})
	book.SetIndex(x)
	known := make(map[policy.KeyID]bool)
	for over := false; !over; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			over = true
		default:
		}
		c := f.poll()
		if err := book.Change(c.terms.Budgets); err != nil {
			t.Fatal(err)
		}
		for _, k := range c.changed {
			known[k.ID] = true
		}
		for id := range known {
			if !x.Applies(id, 1) {
				t.Fatalf("key %d has no budget", id)
			}
		}
	}
	if len(known) != rounds {
		t.Errorf("%d keys were seen, want %d", len(known), rounds)
	}
}

// rowCounter counts statements, and the rows that come back from them.
type rowCounter struct {
	mu sync.Mutex
	counts
}

type counts struct {
	statements int
	rows       int64
	configured int // how often the configuration was read
}

func (r *rowCounter) note(sql string, rows int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements++
	r.rows += rows
	if strings.Contains(sql, "from weir.channel") {
		r.configured++
	}
}

func (r *rowCounter) take() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.counts
	r.counts = counts{}
	return taken
}

type statementKey struct{}

func (*rowCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, data.SQL)
}

func (r *rowCounter) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	sql, _ := ctx.Value(statementKey{}).(string)
	r.note(sql, data.CommandTag.RowsAffected())
}

func (*rowCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (r *rowCounter) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	r.note(data.SQL, data.CommandTag.RowsAffected())
}

func (*rowCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func TestOneChangeAmongFiftyThousandBudgetsAndLimitsReadsOne(t *testing.T) {
	const many = 50_000
	s := mustOpen(t, pgtest.Database(t), Options{MaxConns: 2})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillKeys(t, s, many)
	exec(t, s, `alter table weir.budget disable trigger audit; alter table weir.rate_limit disable trigger audit;
		insert into weir.budget (tenant_id, key_id, amount, period) select tenant_id, id, 1000000000, 'month' from weir.key;
		insert into weir.rate_limit (tenant_id, key_id, requests) select tenant_id, id, 60 from weir.key;
		alter table weir.budget enable trigger audit; alter table weir.rate_limit enable trigger audit; analyze weir.budget, weir.rate_limit`)
	counted := new(rowCounter)
	config := s.pool.Config()
	config.ConnConfig.Tracer = counted
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	followed := *s
	followed.pool = pool
	terms, looks := make(chan TermsChange, 10), make(chan Look, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- followed.Watch(ctx, Following{
			Keys: &policy.Keyring{}, Apply: func(Configuration) error { return nil },
			Terms: func(c TermsChange) error { terms <- c; return nil }, Seen: func(l Look) { looks <- l },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		pool.Close()
	})
	if all := next(t, terms); len(all.Budgets.Budgets) != many || len(all.Limits.Limits) != many || !all.Budgets.All {
		t.Fatalf("at the start %d budgets and %d limits", len(all.Budgets.Budgets), len(all.Limits.Limits))
	}
	next(t, looks)
	counted.take()
	for len(looks) > 0 {
		<-looks
	}
	_, err = s.SetKey(t.Context(), "7", KeyChange{Budget: &BudgetChange{Amount: new(2 * dollar)}, Limits: &RatesChange{Requests: new(int64(61))}})
	if err != nil {
		t.Fatal(err)
	}
	one := next(t, terms)
	want := TermsChange{
		Budgets: budget.Change{Budgets: []budget.Budget{{ID: one.Budgets.Budgets[0].ID, Key: 7, Tenant: 1, Amount: 2 * dollar, Period: budget.Month}}},
		Limits:  limit.Change{Limits: []limit.Limit{{ID: one.Limits.Limits[0].ID, Tenant: 1, Key: 7, Model: "*", Rates: limit.Rates{Requests: 61}}}},
	}
	if diff := cmp.Diff(one, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	next(t, looks)
	// Of each look: where it stands, and the revision. And the key, its budget and its limit.
	got := counted.take()
	if most := int64(2*(len(looks)+3) + 3); got.rows > most || got.configured != 0 {
		t.Errorf("%d rows came from %d statements, want %d at most; the configuration was read %d times", got.rows, got.statements, most, got.configured)
	}
	t.Logf("%d statements, %d rows", got.statements, got.rows)
}

// Without an index each poll would go through all rows, though it returns few.
func TestPollOfTermsReadsNoTableAsAWhole(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{MaxConns: 1})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillKeys(t, s, 2000)
	exec(t, s, `insert into weir.budget (tenant_id, key_id, amount, period) select tenant_id, id, 1000000000, 'month' from weir.key`)
	exec(t, s, `insert into weir.rate_limit (tenant_id, key_id, requests) select tenant_id, id, 60 from weir.key`)
	exec(t, s, `analyze weir.budget, weir.rate_limit`)
	f := &follower{t, s, loaded(t, s)}
	read := func() int64 {
		exec(t, s, `select pg_stat_force_next_flush()`)
		return query[int64](t, s, `select sum(seq_tup_read)::bigint from pg_stat_user_tables where schemaname = 'weir' and relname in ('budget', 'rate_limit', 'key', 'terms_gone')`)
	}
	before := read()
	for range 3 {
		f.poll()
	}
	if after := read(); after != before {
		t.Errorf("%d rows were read in sequence", after-before)
	}
}

// next takes one of what is told.
func next[T any](t *testing.T, from chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("no %T was told", *new(T))
		panic("unreachable")
	}
}

func TestKeyIsMadeWithItsTermsOrNotAtAll(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	_, _, err := s.CreateKey(ctx, NewKey{Name: "bot", Budget: &BudgetChange{Amount: new(dollar)}, Limits: &RatesChange{Burst: new(time.Minute)}})
	wantError(t, err, ErrInvalid, "limits nothing")
	if _, err := s.Key(ctx, "bot"); err == nil {
		t.Error("a key without its limit was made")
	}
	if _, _, err := s.CreateKey(ctx, NewKey{Name: "bot"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.SetKey(ctx, "bot", KeyChange{Name: new("other"), Budget: &BudgetChange{Amount: new(dollar)}, Limits: &RatesChange{Requests: new(int64(-1))}})
	wantError(t, err, ErrInvalid, "-1")
	if n := query[int64](t, s, `select (select count(*) from weir.budget) + (select count(*) from weir.key where name = 'other')`); n != 0 {
		t.Error("a part of a change was made")
	}
}

func TestHeldKeyHasAllThatCounts(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	for _, c := range []struct{ name, parent string }{{"top", ""}, {"middle", "top"}, {"low", "middle"}, {"other", ""}} {
		if _, err := s.CreateTenant(ctx, c.name, TenantChange{Parent: &c.parent, Budget: &BudgetChange{Amount: new(dollar)}, Limits: &RatesChange{Total: new(int64(1000))}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SetTenant(ctx, "middle", TenantChange{Budget: &BudgetChange{Remove: true}}); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.CreateKey(ctx, NewKey{Tenant: "low", Name: "bot", Budget: &BudgetChange{Amount: new(2 * dollar)}, Limits: &RatesChange{Requests: new(int64(60))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []LimitScope{{EachKey: true}, {Tenant: "low", EachKey: true, Model: "gpt-*"}, {Model: "gpt-*"}} {
		if _, err := s.SetRateLimit(ctx, scope, RatesChange{Concurrent: new(int64(5))}); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.HeldKey(ctx, "low/bot", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range h.Budgets {
		got = append(got, fmt.Sprintf("budget %s %s %s", b.TenantName, b.KeyName, budget.FormatUSD(b.Credit)))
	}
	for _, l := range h.Limits {
		got = append(got, fmt.Sprintf("limit %s %s %s %v", l.TenantName, l.KeyName, l.Model, l.Each))
	}
	want := []string{
		"budget low bot 2.00", "budget low  1.00", "budget top  1.00",
		"limit low bot * false", "limit low  * false", "limit low  gpt-* true", "limit   gpt-* false",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}
