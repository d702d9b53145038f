// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/usage"
)

const dollar = int64(budget.NanoUSD)

// budgeted returns a store with a budget of so much, that never renews, of the key "bot".
func budgeted(t *testing.T, amount int64) (*Store, policy.Account) {
	t.Helper()
	s := migrated(t)
	return s, policy.Account{Budget: newBudget(t, s, "bot", amount)}
}

func newBudget(t *testing.T, s *Store, key string, amount int64) int64 {
	t.Helper()
	never := string(budget.Never)
	if _, _, err := s.CreateKey(t.Context(), NewKey{Name: key, Budget: &BudgetChange{Amount: &amount, Period: &never}}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Budget(t.Context(), BudgetRef{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return b.ID
}

// lessee is who asks for leases.
type lessee struct {
	*testing.T
	store  *Store
	holder uuid.UUID
	epoch  int64
	count  int64
}

func (s *Store) lessee(t *testing.T) *lessee {
	t.Helper()
	l := &lessee{T: t, store: s, holder: uuid.New()}
	j, err := s.Join(t.Context(), l.holder)
	if err != nil {
		t.Fatal(err)
	}
	l.epoch, l.count = j.Epoch, j.Count
	return l
}

func (l *lessee) sync(asks ...budget.Ask) (budget.Reply, error) {
	r, err := l.store.Sync(l.Context(), budget.Request{Holder: l.holder, Epoch: l.epoch, Count: l.count, Asks: asks})
	if err == nil {
		l.count = r.Count
	}
	return r, err
}

func (l *lessee) mustSync(asks ...budget.Ask) budget.Reply {
	l.Helper()
	r, err := l.sync(asks...)
	if err != nil {
		l.Fatal(err)
	}
	return r
}

// chargedRecord returns a record that is charged so much to accounts.
func (l *lessee) chargedRecord(cost int64, accounts ...policy.Account) usage.Record {
	r := record(l.T, noon())
	r.Charges = policy.Charges{Holder: l.holder, Reserved: cost, Accounts: accounts}
	return r
}

// wantBooks checks that no account is charged with more than its credit, that the ledger adds up to balances and leases, and that leases have what
// was spent.
func wantBooks(t *testing.T, s *Store) {
	t.Helper()
	type account struct {
		Budget, Period, Credit, Spent, Charged, Out, Balance, Leased int64
	}
	all, err := many(t.Context(), s.pool, pgx.RowToStructByPos[account], `select budget_id, period, credit, l.spent, l.charged, l.out, e.amount, e.leased
		from weir.budget_period p
		cross join lateral (select coalesce(sum(spent), 0)::bigint spent, coalesce(sum(greatest(granted, spent)), 0)::bigint charged,
			coalesce(sum(granted - spent), 0)::bigint as out from weir.lease l where (l.budget_id, l.period) = (p.budget_id, p.period)) l
		cross join lateral (select coalesce(sum(amount), 0)::bigint amount, coalesce(sum(leased), 0)::bigint leased
			from weir.ledger e where (e.budget_id, e.period) = (p.budget_id, p.period)) e`)
	if err != nil || len(all) == 0 {
		t.Fatal(err, len(all))
	}
	for _, a := range all {
		if a.Charged > a.Credit {
			t.Errorf("account %d of %d is charged with %d of %d", a.Budget, a.Period, a.Charged, a.Credit)
		}
		if a.Balance != a.Credit-a.Spent || a.Leased != a.Out {
			t.Errorf("account %d of %d: the ledger has the balance %d and %d in leases, want %d and %d", a.Budget, a.Period, a.Balance, a.Leased, a.Credit-a.Spent, a.Out)
		}
	}
}

func TestLeaseIsGrantedAndGivenBack(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	r := l.mustSync(budget.Ask{Account: a, Need: dollar / 100, Want: dollar / 10})
	if g := r.Grants[0]; g.Granted != dollar/10 || g.Credit != dollar || g.Short || g.Forgotten || r.SetBack {
		t.Errorf("grant %+v", g)
	}
	wantBooks(t, s)
	mustPost(t, s, batch(uuid.New(), 0, l.chargedRecord(dollar/100, a)))
	r = l.mustSync(budget.Ask{Account: a, Floor: dollar / 100, Keep: dollar / 100})
	if g := r.Grants[0]; g.Granted != dollar/100 || g.Lease != dollar/100 || g.Spent != dollar/100 {
		t.Errorf("after everything was given back: %+v", g)
	}
	wantBooks(t, s)
	st, err := s.BudgetState(t.Context(), BudgetRef{Key: "bot"}, time.Now())
	if err != nil || st.Credit != dollar || st.Spent != dollar/100 || st.Leased != 0 || st.Left() != dollar/100*99 || !st.Renews.IsZero() || len(st.Leases) != 1 {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestListOfBudgetsSaysWhatEachSays(t *testing.T) {
	s, a := budgeted(t, dollar)
	zone := "Europe/Berlin"
	if _, err := s.CreateTenant(t.Context(), "acme", TenantChange{Zone: &zone, Budget: &BudgetChange{Amount: new(2 * dollar)}}); err != nil {
		t.Fatal(err)
	}
	first, second := s.lessee(t), s.lessee(t)
	first.mustSync(budget.Ask{Account: a, Need: dollar / 10})
	second.mustSync(budget.Ask{Account: a, Need: dollar / 20})
	mustPost(t, s, batch(uuid.New(), 0, first.chargedRecord(dollar/100, a), second.chargedRecord(dollar/50, a)))
	now := time.Now()
	if _, _, err := s.TopUp(t.Context(), TopUp{BudgetRef: BudgetRef{Tenant: "acme"}, Amount: dollar, Reference: "r"}, now); err != nil {
		t.Fatal(err)
	}
	var want []BudgetState
	for _, ref := range []BudgetRef{{Key: "bot"}, {Tenant: "acme"}} {
		st, err := s.BudgetState(t.Context(), ref, now)
		if err != nil {
			t.Fatal(err)
		}
		st.Leases = nil
		want = append(want, st)
	}
	got, err := s.BudgetStates(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-list +each):\n%s", diff)
	}
	if want[0].Spent != dollar/100*3 || want[1].Credit != 3*dollar || want[1].Renews.IsZero() {
		t.Errorf("%+v", want)
	}
}

func TestWhoNeedsMoreThanIsLeftIsToldAndOthersHearOfIt(t *testing.T) {
	s, a := budgeted(t, dollar)
	first, second := s.lessee(t), s.lessee(t)
	first.mustSync(budget.Ask{Account: a, Need: dollar - 10})
	r := second.mustSync(budget.Ask{Account: a, Need: 11})
	if g := r.Grants[0]; !g.Short || g.Granted != 0 || len(r.Wanted) != 0 {
		t.Errorf("grant %+v, wanted %v", g, r.Wanted)
	}
	if r := first.mustSync(); !slices.Equal(r.Wanted, []policy.Account{a}) {
		t.Errorf("wanted %v, want the account", r.Wanted)
	}
	wantBooks(t, s)
}

func TestSecondLifeFencesTheFirstAndFindsItsLeases(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: 100})
	j, err := s.Join(t.Context(), l.holder)
	if err != nil || j.Epoch != l.epoch+1 || j.Count != l.count || len(j.Leases) != 1 || j.Leases[0].Granted < 100 {
		t.Errorf("joined %+v, %v", j, err)
	}
	if _, err := l.sync(budget.Ask{Account: a, Need: 100}); !errors.Is(err, budget.ErrFenced) {
		t.Errorf("error %v, want one that says that it is fenced", err)
	}
}

func TestSetBackIsSeenAndWhatWasForgottenComesBack(t *testing.T) {
	s, a := budgeted(t, dollar)
	l, other := s.lessee(t), s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: 100})
	exec(t, s, `create table saved_lease as table weir.lease; create table saved_holder as table weir.holder; create table saved_ledger as table weir.ledger`)
	held := l.mustSync(budget.Ask{Account: a, Floor: 100, Need: dollar / 2}).Grants[0].Granted
	exec(t, s, `begin; delete from weir.lease; insert into weir.lease table saved_lease; delete from weir.holder; insert into weir.holder table saved_holder;
		delete from weir.ledger; insert into weir.ledger overriding system value table saved_ledger; commit`)
	other.mustSync(budget.Ask{Account: a, Need: dollar / 4})
	r := l.mustSync(budget.Ask{Account: a, Floor: held})
	if g := r.Grants[0]; !r.SetBack || !g.Forgotten || g.Granted < dollar/4 || g.Granted > held {
		t.Errorf("set back %v, grant %+v, held %d", r.SetBack, g, held)
	}
	wantBooks(t, s)
	exec(t, s, `delete from weir.holder`)
	if r := l.mustSync(); !r.SetBack || r.Count <= held && r.Count < 3 {
		t.Errorf("a holder that was forgotten: %+v", r)
	}
}

func TestBudgetThatIsDeletedGrantsNothing(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: 100})
	if _, err := s.SetKey(t.Context(), "bot", KeyChange{Budget: &BudgetChange{Remove: true}}); err != nil {
		t.Fatal(err)
	}
	if g := l.mustSync(budget.Ask{Account: a, Floor: 100, Need: 200}).Grants[0]; !g.Gone || g.Granted != 0 {
		t.Errorf("grant %+v", g)
	}
	mustPost(t, s, batch(uuid.New(), 0, l.chargedRecord(50, a))) // it is charged all the same
	if got := query[int64](t, s, `select spent from weir.lease`); got != 50 {
		t.Errorf("spent %d, want 50", got)
	}
}

func TestUnresolvedExchangeIsChargedWithItsReservationUntilItsLineComes(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: dollar / 2})
	r := l.chargedRecord(1000, a)
	mustResolve(t, s, unresolved(r))
	mustResolve(t, s, unresolved(r))
	if got := query[int64](t, s, `select spent from weir.lease`); got != 1000 {
		t.Errorf("spent %d, want what was reserved, once", got)
	}
	mustPost(t, s, batch(uuid.New(), 0, r))
	if got := query[int64](t, s, `select spent from weir.lease`); got != r.Charged() {
		t.Errorf("spent %d, want the cost of the line alone", got)
	}
	wantBooks(t, s)
}

func TestRefusedRowIsChargedAllTheSame(t *testing.T) {
	s, told := heard(t)
	a := policy.Account{Budget: newBudget(t, s, "bot", dollar)}
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: dollar / 2})
	exec(t, s, `alter table weir.usage add constraint evil check (model <> 'evil')`)
	bad, late := l.chargedRecord(1000, a), l.chargedRecord(300, a)
	bad.Model = "evil"
	mustResolve(t, s, unresolved(late))
	late.Model = "evil"
	mustPost(t, s, batch(uuid.New(), 0, bad, l.chargedRecord(20, a), late))
	wantDeadLetters(t, s, told, 2)
	if got := query[int64](t, s, `select spent from weir.lease`); got != 1320 {
		t.Errorf("spent %d, want 1320", got)
	}
	wantBooks(t, s)
}

// A provider that claims absurd numbers of tokens again and again must not keep rows from being written, nor give a budget back what is spent.
func TestSumsOfMoneyAreCutAndNeverWrap(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Need: 100})
	mustPost(t, s, batch(uuid.New(), 0, l.chargedRecord(10, a)))
	exec(t, s, `update weir.lease set spent = 9223372036854775807`)
	exec(t, s, `update weir.ledger set amount = -9223372036854775808, leased = -9223372036854775808 where kind = 'spend'`)
	exec(t, s, `update weir.balance set cost_nanousd = 9223372036854775807`)
	exec(t, s, `update weir.usage_hourly set cost_nanousd = 9223372036854775807`)
	dear := l.chargedRecord(10, a)
	dear.Cost = usage.Cost{CostNanoUSD: math.MaxInt64, PriceVersion: 1}
	open := l.chargedRecord(budget.MaxAmount, a)
	mustResolve(t, s, unresolved(open))
	mustPost(t, s, batch(uuid.New(), 0, dear, unpriced(l, a), unpriced(l, a), open))
	for _, column := range []string{
		"select spent from weir.lease", "select min(-amount) from weir.ledger where kind = 'spend'",
		"select min(cost_nanousd) from weir.balance", "select min(cost_nanousd) from weir.usage_hourly",
	} {
		if n := query[int64](t, s, column); n < 7_000_000_000_000_000_000 {
			t.Errorf("%s: %d", column, n)
		}
	}
	st, err := s.BudgetState(t.Context(), BudgetRef{Key: "bot"}, time.Now())
	if err != nil || st.Left() > 0 || st.Spent < budget.MaxAmount {
		t.Errorf("%+v, %v", st, err)
	}
	if g := l.mustSync(budget.Ask{Account: a, Need: 1}).Grants[0]; !g.Short {
		t.Errorf("it is granted %+v", g)
	}
	if _, err := s.SumUsage(t.Context(), UsageFilter{}, nil); err != nil {
		t.Error(err)
	}
}

// unpriced is a row whose price is not known, and that was thought to cost all there is.
func unpriced(l *lessee, a policy.Account) usage.Record {
	r := l.chargedRecord(budget.MaxAmount, a)
	r.Cost = usage.Cost{}
	return r
}

func TestHoldersAndPostersAtOnceNeitherDeadlockNorOverspend(t *testing.T) {
	s := migrated(t)
	var accounts []policy.Account
	for i := range 4 {
		accounts = append(accounts, policy.Account{Budget: newBudget(t, s, fmt.Sprintf("bot-%d", i), dollar)})
	}
	var wg sync.WaitGroup
	for n := range 5 {
		l := s.lessee(t)
		wg.Go(func() {
			if err := spendAll(t.Context(), l, accounts, rand.New(rand.NewPCG(uint64(n), 1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantBooks(t, s)
	for _, a := range accounts {
		if got := query[int64](t, s, `select sum(spent)::bigint from weir.lease where budget_id = $1`, a.Budget); got < dollar/2 || got > dollar {
			t.Errorf("%d was spent of account %d", got, a.Budget)
		}
	}
}

// spendAll leases and spends until nothing is left, as a holder that never gives back.
func spendAll(ctx context.Context, l *lessee, accounts []policy.Account, random *rand.Rand) error {
	granted, spent := make([]int64, len(accounts)), make([]int64, len(accounts))
	writer, at := uuid.New(), int64(0)
	for range 40 {
		var asks []budget.Ask
		var which []int
		for i, a := range accounts {
			if random.IntN(2) == 0 {
				asks = append(asks, budget.Ask{Account: a, Floor: granted[i], Keep: spent[i], Need: dollar / 50, Want: dollar / 10})
				which = append(which, i)
			}
		}
		r, err := l.sync(asks...)
		if err != nil {
			return err
		}
		var records []usage.Record
		for j, g := range r.Grants {
			i := which[j]
			granted[i] = g.Granted
			for granted[i]-spent[i] >= dollar/100 {
				spent[i] += dollar / 100
				records = append(records, l.chargedRecord(dollar/100, accounts[i]))
			}
		}
		random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		if err := l.store.Post(ctx, batch(writer, at, records...)); err != nil {
			return err
		}
		at += int64(len(records))
	}
	return nil
}
