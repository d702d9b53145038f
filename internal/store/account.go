// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
)

// BudgetState is a budget in its present period.
type BudgetState struct {
	Budget
	Began, Renews time.Time // zero for a budget that never renews
	Credit        int64     // nano-dollars: the amount and what was topped up
	Spent         int64     // by exchanges that have a row
	Leased        int64     // by processors, and not spent
	Leases        []HeldLease
}

// Left returns what is neither spent nor leased; negative if more was spent than there was.
func (b *BudgetState) Left() int64 { return budget.Add(budget.Add(b.Credit, -b.Spent), -b.Leased) }

// HeldLease is what one processor holds of a budget.
type HeldLease struct {
	Holder  uuid.UUID
	Granted int64
	Spent   int64
	Asked   time.Time // when it last asked for it, or gave something back
	Seen    time.Time // when it was last heard of
}

// LedgerEntry is a movement of money, or the sum of those of an hour.
type LedgerEntry struct {
	ID        int64
	Time      time.Time // of the last movement
	Period    time.Time // began then; zero for a budget that never renews
	Kind      string    // allowance, adjustment, top_up, grant, return, spend or release
	Amount    int64     // by which the balance changed, in nano-dollars
	Leased    int64     // by which what is out in leases changed
	Entries   int64     // movements
	Holder    uuid.UUID // zero: none
	Reference string
	Note      string
}

// TopUp is money that is paid in.
type TopUp struct {
	BudgetRef
	Amount    int64  // nano-dollars
	Reference string // of the payment: what is booked under it is booked once
	Note      string
}

const (
	maxReference = 200 // bytes
	maxLedger    = 1000
)

// BudgetState returns how the budget that ref names stands at a time.
func (s *Store) BudgetState(ctx context.Context, ref BudgetRef, now time.Time) (BudgetState, error) {
	var st BudgetState
	err := s.readOnly(ctx, func(tx pgx.Tx) error {
		b, err := findBudget(ctx, tx, ref)
		if err != nil {
			return err
		}
		st, err = stateOf(ctx, tx, *b, now)
		return err
	})
	if err != nil && !own(err) {
		return BudgetState{}, fmt.Errorf("read budget: %w", err)
	}
	return st, err
}

// BudgetStates returns how all budgets stand at a time, without the leases one by one.
func (s *Store) BudgetStates(ctx context.Context, now time.Time) ([]BudgetState, error) {
	var states []BudgetState
	err := s.readOnly(ctx, func(tx pgx.Tx) error {
		all, err := budgets(ctx, tx)
		if err != nil {
			return err
		}
		states, err = statesOf(ctx, tx, all, now)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list budgets: %w", err)
	}
	return states, nil
}

func (s *Store) readOnly(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

// stateAt returns the state of a budget that nothing was spent of, and its account.
func (b *Budget) stateAt(now time.Time, zone *time.Location) (BudgetState, policy.Account) {
	account, renews := (&budget.Budget{ID: b.ID, Period: b.Period}).AccountAt(now, zone)
	st := BudgetState{Budget: *b, Credit: b.Amount}
	if !renews.IsZero() {
		st.Began, st.Renews = time.Unix(account.Period, 0).UTC(), renews.UTC()
	}
	return st, account
}

// statesOf returns how budgets stand at a time, in their order, without the leases one by one.
func statesOf(ctx context.Context, tx pgx.Tx, all []Budget, now time.Time) ([]BudgetState, error) {
	states := make([]BudgetState, len(all))
	accounts := make([]policy.Account, len(all))
	zones := make(map[string]*time.Location)
	for i := range all {
		zone := zones[all[i].Zone]
		if zone == nil {
			var err error
			if zone, err = all[i].zone(); err != nil {
				return nil, err
			}
			zones[all[i].Zone] = zone
		}
		states[i], accounts[i] = all[i].stateAt(now, zone)
	}
	ids, periods := arrays(accounts)
	rows, err := tx.Query(ctx, `select a.i, coalesce(max(p.credit - p.allowance), 0), least(coalesce(sum(l.spent), 0), 9e18)::bigint,
			least(coalesce(sum(greatest(l.granted - l.spent, 0)), 0), 9e18)::bigint
		from unnest($1::bigint[], $2::bigint[]) with ordinality a (budget_id, period, i)
			left join weir.budget_period p using (budget_id, period) left join weir.lease l using (budget_id, period)
		group by a.i`, ids, periods)
	if err != nil {
		return nil, err
	}
	var i, more, spent, leased int64
	_, err = pgx.ForEachRow(rows, []any{&i, &more, &spent, &leased}, func() error {
		st := &states[i-1]
		st.Credit, st.Spent, st.Leased = st.Credit+more, spent, leased
		return nil
	})
	return states, err
}

func stateOf(ctx context.Context, tx pgx.Tx, b Budget, now time.Time) (BudgetState, error) {
	zone, err := b.zone()
	if err != nil {
		return BudgetState{}, err
	}
	st, account := b.stateAt(now, zone)
	// What the account does not know yet of a change of the budget is added here.
	err = tx.QueryRow(ctx, `select credit + $3 - allowance from weir.budget_period where budget_id = $1 and period = $2`, b.ID, account.Period, b.Amount).Scan(&st.Credit)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return st, err
	}
	st.Leases, err = many(ctx, tx, func(row pgx.CollectableRow) (l HeldLease, err error) {
		err = row.Scan(&l.Holder, &l.Granted, &l.Spent, &l.Asked, &l.Seen)
		return l, err
	}, `select l.holder, l.granted, l.spent, l.asked, coalesce(h.seen, l.asked) from weir.lease l left join weir.holder h on h.id = l.holder
		where l.budget_id = $1 and l.period = $2 order by l.holder`, b.ID, account.Period)
	for _, l := range st.Leases {
		st.Spent = budget.Add(st.Spent, l.Spent)
		st.Leased = budget.Add(st.Leased, max(budget.Add(l.Granted, -l.Spent), 0))
	}
	return st, err
}

// TopUp adds to the credit of the present period. A reference that was booked before is not booked again: then booked is false, and the same amount must be
// named, or the error wraps [ErrExists].
func (s *Store) TopUp(ctx context.Context, t TopUp, now time.Time) (st BudgetState, booked bool, err error) {
	if err := t.check(); err != nil {
		return st, false, err
	}
	err = s.changeKeys(ctx, func(tx pgx.Tx) error {
		b, err := findBudget(ctx, tx, t.BudgetRef)
		if err != nil {
			return err
		}
		zone, err := b.zone()
		if err != nil {
			return err
		}
		_, a := b.stateAt(now, zone)
		if err := openAccount(ctx, tx, a); err != nil {
			return err
		}
		if booked, err = t.book(ctx, tx, a); err != nil {
			return err
		}
		st, err = stateOf(ctx, tx, *b, now)
		return err
	})
	if err != nil && !own(err) {
		err = fmt.Errorf("top up budget: %w", err)
	}
	return st, booked, err
}

// openAccount makes an account if need be, and locks it.
func openAccount(ctx context.Context, tx pgx.Tx, a policy.Account) error {
	var batch pgx.Batch
	queueOpen(&batch, []policy.Account{a}, []policy.Account{a})
	return tx.SendBatch(ctx, &batch).Close()
}

func (t *TopUp) book(ctx context.Context, tx pgx.Tx, a policy.Account) (booked bool, err error) {
	tag, err := tx.Exec(ctx, `insert into weir.ledger (budget_id, period, kind, amount, reference, note) values ($1, $2, 'top_up', $3, $4, $5)
		on conflict (budget_id, reference) where reference is not null do nothing`, a.Budget, a.Period, t.Amount, t.Reference, t.Note)
	if err != nil {
		return false, err
	}
	if tag.RowsAffected() == 0 {
		var was int64
		if err := tx.QueryRow(ctx, `select amount from weir.ledger where budget_id = $1 and reference = $2`, a.Budget, t.Reference).Scan(&was); err != nil {
			return false, err
		}
		if was != t.Amount {
			return false, fmt.Errorf("top-up %q: %w, with %s dollars", t.Reference, ErrExists, budget.FormatUSD(was))
		}
		return false, nil
	}
	var credit int64
	if err := tx.QueryRow(ctx, `select credit from weir.budget_period where budget_id = $1 and period = $2`, a.Budget, a.Period).Scan(&credit); err != nil {
		return false, err
	}
	if credit > math.MaxInt64-t.Amount || credit+t.Amount > budget.MaxAmount {
		return false, invalid("top-up of %s dollars: a budget has at most %s", budget.FormatUSD(t.Amount), budget.FormatUSD(budget.MaxAmount))
	}
	_, err = tx.Exec(ctx, `update weir.budget_period set credit = credit + $3 where budget_id = $1 and period = $2`, a.Budget, a.Period, t.Amount)
	if err != nil {
		return false, err
	}
	// Processors that were refused more of it hear of the change as of one of the budget, and ask again.
	if _, err := tx.Exec(ctx, `update weir.budget set amount = amount where id = $1`, a.Budget); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, `select weir.note_entry('change', 'budget', b.id::text, weir.owner_of(to_jsonb(b)), jsonb_build_object('credit', $2::bigint),
		jsonb_build_object('credit', $3::bigint, 'top_up', $4::text)) from weir.budget b where b.id = $1`, a.Budget, credit, credit+t.Amount, t.Reference)
	return true, err
}

func (t *TopUp) check() error {
	switch {
	case t.Amount <= 0 || t.Amount > budget.MaxAmount:
		return invalid("top-up of %s dollars: it must be more than 0 and at most %s", budget.FormatUSD(t.Amount), budget.FormatUSD(budget.MaxAmount))
	case t.Reference == "" || len(t.Reference) > maxReference || text(t.Reference) != t.Reference || strings.ContainsFunc(t.Reference, unprintable):
		return invalid("reference %q of a top-up: it must have 1 to %d printable bytes", t.Reference, maxReference)
	case len(t.Note) > maxText || text(t.Note) != t.Note || strings.ContainsFunc(t.Note, unprintable):
		return invalid("note of a top-up: it must be printable and have at most %d bytes", maxText)
	}
	return nil
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }

// Ledger returns the last entries of the budget that ref names, the newest first; at most 1000.
func (s *Store) Ledger(ctx context.Context, ref BudgetRef, limit int) ([]LedgerEntry, error) {
	if limit < 1 || limit > maxLedger {
		return nil, invalid("limit %d of entries: it must be from 1 to %d", limit, maxLedger)
	}
	b, err := findBudget(ctx, s.pool, ref)
	if err != nil {
		return nil, err
	}
	entries, err := many(ctx, s.pool, scanEntry, `select id, at, period, kind, amount, leased, entries, holder, coalesce(reference, ''), note
		from weir.ledger where budget_id = $1 order by id desc limit $2`, b.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return entries, nil
}

func scanEntry(row pgx.CollectableRow) (e LedgerEntry, err error) {
	var period int64
	var holder *uuid.UUID
	err = row.Scan(&e.ID, &e.Time, &period, &e.Kind, &e.Amount, &e.Leased, &e.Entries, &holder, &e.Reference, &e.Note)
	if holder != nil {
		e.Holder = *holder
	}
	if period != 0 {
		e.Period = time.Unix(period, 0).UTC()
	}
	e.Time = e.Time.UTC()
	return e, err
}

// ReleaseLeases ends the leases of a processor whose journal is lost, and returns how much they had left. Of that it is not known whether it was spent: it counts
// as spent, unless forgive says that it is to be spent again. A processor that lives after all is fenced: it spends nothing until it is started anew.
func (s *Store) ReleaseLeases(ctx context.Context, holder uuid.UUID, forgive bool) (released int64, err error) {
	err = s.changeKeys(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `update weir.holder set epoch = epoch + 1 where id = $1`, holder)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return notFound("holder of leases", holder.String())
		}
		amount := `-rest`
		change := `spent = l.granted`
		if forgive {
			amount, change = `0`, `granted = l.spent`
		}
		// Accounts before leases: see lease.go.
		if _, err := tx.Exec(ctx, `select from weir.budget_period p join weir.lease l using (budget_id, period) where l.holder = $1
			order by budget_id, period for update of p`, holder); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `with old as (
				select budget_id, period, granted - spent as rest from weir.lease where holder = $1 and granted > spent order by 1, 2 for update
			), done as (
				update weir.lease l set `+change+` from old where l.holder = $1 and (l.budget_id, l.period) = (old.budget_id, old.period)
			), noted as (
				insert into weir.ledger (budget_id, period, holder, kind, amount, leased) select budget_id, period, $1, 'release', `+amount+`, -rest from old
			) select least(coalesce(sum(rest), 0), 9e18)::bigint from old`, holder).Scan(&released)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `select weir.note_entry('delete', 'lease', $1::text, '', jsonb_build_object('rest', $2::bigint, 'forgiven', $3::boolean), null)`,
			holder.String(), released, forgive)
		return err
	})
	if err != nil && !own(err) {
		err = fmt.Errorf("release leases of %s: %w", holder, err)
	}
	return released, err
}
