// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
)

// Locks of budgets are taken in this order, and those of one kind by budget, period and holder: the holder, accounts (weir.budget_period), leases, entries of
// the ledger. Who posts usage takes those of leases and of the ledger only, after all others: see [Store.Post].

var _ budget.Bank = (*Store)(nil)

// Join implements [budget.Bank].
func (s *Store) Join(ctx context.Context, holder uuid.UUID) (budget.Joined, error) {
	var j budget.Joined
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `insert into weir.holder as h (id, epoch, count) values ($1, 1, 0)
			on conflict (id) do update set epoch = h.epoch + 1, seen = now() returning epoch, count`, holder).Scan(&j.Epoch, &j.Count)
		if err != nil {
			return err
		}
		j.Leases, err = many(ctx, tx, scanLease, `select budget_id, period, granted, spent from weir.lease
			where holder = $1 and granted > spent order by budget_id, period`, holder)
		return err
	})
	if err != nil {
		return budget.Joined{}, fmt.Errorf("join as holder of leases: %w", err)
	}
	return j, nil
}

func scanLease(row pgx.CollectableRow) (l budget.Lease, err error) {
	err = row.Scan(&l.Budget, &l.Period, &l.Granted, &l.Spent)
	return l, err
}

// wantedFor is how long, in SQL, a budget counts as wanted after a processor needed more than there was: longer than others take to hear of it.
const wantedFor = `interval '3 seconds'`

// Sync implements [budget.Bank], by two round trips and a commit.
func (s *Store) Sync(ctx context.Context, r budget.Request) (budget.Reply, error) {
	var reply budget.Reply
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		reply, err = syncLeases(ctx, tx, r)
		return err
	})
	if err != nil {
		return budget.Reply{}, fmt.Errorf("ask for leases: %w", err)
	}
	return reply, nil
}

func syncLeases(ctx context.Context, tx pgx.Tx, r budget.Request) (reply budget.Reply, err error) {
	accounts := make([]policy.Account, 0, len(r.Asks))
	var current []policy.Account
	for _, a := range r.Asks {
		accounts = append(accounts, a.Account)
		if a.Want > 0 || a.Need > 0 {
			current = append(current, a.Account)
		}
	}
	var batch pgx.Batch
	queueHolder(&batch, r, &reply)
	open := make(map[policy.Account]standing, len(accounts))
	if len(accounts) > 0 {
		queueOpen(&batch, accounts, current)
		queueStandings(&batch, accounts, r.Holder, open)
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return reply, err
	}
	batch = pgx.Batch{}
	var moves []move
	for _, ask := range r.Asks {
		st, known := open[ask.Account]
		if !known {
			reply.Grants = append(reply.Grants, budget.Grant{Gone: true})
			continue
		}
		v := budget.Allot(st.State, st.lease, ask)
		reply.Grants = append(reply.Grants, budget.Grant{Verdict: v, Credit: st.Credit, Spent: st.Spent, Lease: st.lease.Spent})
		moves = append(moves, move{account: ask.Account, change: v.Granted - st.lease.Granted, short: v.Short})
		queueNotices(&batch, ask.Account, st)
	}
	queueGrants(&batch, r.Holder, moves)
	batch.Queue(`select l.budget_id, l.period from weir.budget_period p join weir.lease l using (budget_id, period)
		where p.wanted > now() - `+wantedFor+` and l.holder = $1 and l.granted > l.spent order by 1, 2`, r.Holder).
		Query(func(rows pgx.Rows) (err error) {
			reply.Wanted, err = pgx.CollectRows(rows, pgx.RowToStructByPos[policy.Account])
			return err
		})
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return reply, err
	}
	return reply, nil
}

// queueHolder counts the request, and finds out whether somebody else has joined, or the database was set back.
func queueHolder(batch *pgx.Batch, r budget.Request, reply *budget.Reply) {
	var epoch, count int64
	batch.Queue(`select epoch, count from weir.holder where id = $1 for update`, r.Holder).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&epoch, &count)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if epoch > r.Epoch {
			return budget.ErrFenced
		}
		reply.SetBack = epoch < r.Epoch || count < r.Count
		return nil
	})
	batch.Queue(`insert into weir.holder as h (id, epoch, count) values ($1, $2, $3::bigint + 1) on conflict (id) do update
		set epoch = greatest(h.epoch, excluded.epoch), count = greatest(h.count + 1, excluded.count), seen = now() returning count`, r.Holder, r.Epoch, r.Count).
		QueryRow(func(row pgx.Row) error { return row.Scan(&reply.Count) })
}

// arrays returns the columns of accounts.
func arrays(accounts []policy.Account) (budgets, periods []int64) {
	for _, a := range accounts {
		budgets, periods = append(budgets, a.Budget), append(periods, a.Period)
	}
	return budgets, periods
}

// queueOpen makes accounts that are not there yet, and locks them. Those that are in use are brought up to date with their budgets; what becomes of a budget says
// nothing of periods that are over.
func queueOpen(batch *pgx.Batch, accounts, current []policy.Account) {
	budgets, periods := arrays(accounts)
	batch.Queue(`with made as (
			insert into weir.budget_period (budget_id, period, allowance, credit)
			select b.id, a.period, b.amount, b.amount from unnest($1::bigint[], $2::bigint[]) a (id, period) join weir.budget b using (id) order by 1, 2
			on conflict do nothing returning budget_id, period, allowance
		) insert into weir.ledger (budget_id, period, kind, amount) select budget_id, period, 'allowance', allowance from made`, budgets, periods)
	batch.Queue(`select from weir.budget_period p join unnest($1::bigint[], $2::bigint[]) a (budget_id, period) using (budget_id, period)
		order by budget_id, period for update of p`, budgets, periods)
	budgets, periods = arrays(current)
	batch.Queue(`with old as (
			select p.budget_id, p.period, b.amount - p.allowance as change, b.amount
			from weir.budget_period p join unnest($1::bigint[], $2::bigint[]) a (budget_id, period) using (budget_id, period) join weir.budget b on b.id = p.budget_id
			where b.amount <> p.allowance
		), done as (
			update weir.budget_period p set credit = p.credit + old.change, allowance = old.amount from old where (p.budget_id, p.period) = (old.budget_id, old.period)
		) insert into weir.ledger (budget_id, period, kind, amount, note) select budget_id, period, 'adjustment', change, 'the budget was changed' from old`,
		budgets, periods)
}

// standing is an account and what a holder has of it.
type standing struct {
	budget.State
	lease  budget.Lease
	shares []int32
}

// queueStandings reads accounts that are locked. Those of budgets that were deleted are left out.
func queueStandings(batch *pgx.Batch, accounts []policy.Account, holder uuid.UUID, into map[policy.Account]standing) {
	budgets, periods := arrays(accounts)
	// No sum of leases is believed to be more than an int64 holds.
	batch.Queue(`select p.budget_id, p.period, p.credit, b.shares,
			least(coalesce(sum(l.spent), 0), 9e18)::bigint,
			least(coalesce(sum(greatest(l.granted, l.spent)), 0), 9e18)::bigint,
			count(*) filter (where l.holder = $3 or l.granted > l.spent or l.asked > now() - interval '1 minute')::int,
			coalesce(sum(l.granted) filter (where l.holder = $3), 0)::bigint,
			coalesce(sum(l.spent) filter (where l.holder = $3), 0)::bigint
		from unnest($1::bigint[], $2::bigint[]) a (budget_id, period) join weir.budget_period p using (budget_id, period)
			left join weir.lease l using (budget_id, period) join weir.budget b on b.id = p.budget_id
		group by p.budget_id, p.period, p.credit, b.shares`, budgets, periods, holder).
		Query(func(rows pgx.Rows) error {
			var st standing
			a := &st.lease.Account
			_, err := pgx.ForEachRow(rows, []any{
				&a.Budget, &a.Period, &st.Credit, &st.shares, &st.Spent, &st.Charged, &st.Holders, &st.lease.Granted, &st.lease.Spent,
			}, func() error {
				into[*a] = st
				st.shares = nil
				return nil
			})
			return err
		})
}

// move is a change of a lease.
type move struct {
	account policy.Account
	change  int64
	short   bool
}

// queueGrants writes what was decided, in the order of the accounts.
func queueGrants(batch *pgx.Batch, holder uuid.UUID, moves []move) {
	var accounts, short []policy.Account
	var changes []int64
	for _, m := range moves {
		accounts, changes = append(accounts, m.account), append(changes, m.change)
		if m.short {
			short = append(short, m.account)
		}
	}
	if len(short) > 0 {
		budgets, periods := arrays(short)
		batch.Queue(`update weir.budget_period p set wanted = now() from unnest($1::bigint[], $2::bigint[]) a (budget_id, period)
			where (p.budget_id, p.period) = (a.budget_id, a.period)`, budgets, periods)
	}
	if len(accounts) == 0 {
		return
	}
	budgets, periods := arrays(accounts)
	batch.Queue(`insert into weir.lease as l (budget_id, period, holder, granted)
		select a.budget_id, a.period, $3, a.change from unnest($1::bigint[], $2::bigint[], $4::bigint[]) a (budget_id, period, change) order by 1, 2
		on conflict (budget_id, period, holder) do update set granted = l.granted + excluded.granted, asked = now()`, budgets, periods, holder, changes)
	batch.Queue(`insert into weir.ledger as e (budget_id, period, holder, kind, amount, leased, hour)
		select a.budget_id, a.period, $3, case when a.change > 0 then 'grant' else 'return' end, 0, a.change, date_trunc('hour', now())
		from unnest($1::bigint[], $2::bigint[], $4::bigint[]) a (budget_id, period, change) where a.change <> 0 order by 1, 2
		on conflict (budget_id, period, holder, kind, hour) where hour is not null
		do update set leased = `+added("e", "leased")+`, entries = e.entries + 1, at = now()`, budgets, periods, holder, changes)
}

// queueNotices notes which shares of the credit are spent.
func queueNotices(batch *pgx.Batch, a policy.Account, st standing) {
	for _, share := range st.shares {
		if st.Credit > 0 && float64(st.Spent) >= float64(st.Credit)*float64(share)/100 {
			batch.Queue(`insert into weir.budget_notice (budget_id, period, share, spent, credit) values ($1, $2, $3, $4, $5) on conflict do nothing`,
				a.Budget, a.Period, share, st.Spent, st.Credit)
		}
	}
}
