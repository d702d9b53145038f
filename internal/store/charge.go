// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/usage"
)

// charge is what a batch adds to the spending of a lease.
type charge struct {
	account policy.Account
	holder  uuid.UUID
	amount  int64
	entries int64
}

func (c *charge) compare(o *charge) int {
	return cmp.Or(cmp.Compare(c.account.Budget, o.account.Budget), cmp.Compare(c.account.Period, o.account.Period), bytes.Compare(c.holder[:], o.holder[:]))
}

// chargesOf adds up what rows are charged, less what they were charged as unresolved, in the order in which leases are locked.
func chargesOf(rows []*usage.Record, taken []contribution) []charge {
	var parts []charge
	var again map[uuid.UUID]bool
	if len(taken) > 0 {
		again = make(map[uuid.UUID]bool, len(taken))
		for i := range taken {
			again[taken[i].exchange] = true
		}
	}
	for _, r := range rows {
		for _, a := range r.Charges.Accounts {
			c := charge{account: a, holder: r.Charges.Holder, amount: r.Charged(), entries: 1}
			if again[r.Exchange] {
				c.amount = plusAmount(c.amount, -r.Charges.Reserved)
			}
			parts = append(parts, c)
		}
	}
	slices.SortFunc(parts, func(a, b charge) int { return a.compare(&b) })
	sums := parts[:0]
	for _, p := range parts {
		if n := len(sums); n > 0 && sums[n-1].compare(&p) == 0 {
			sums[n-1].amount = plusAmount(sums[n-1].amount, p.amount)
			sums[n-1].entries += p.entries
			continue
		}
		sums = append(sums, p)
	}
	return sums
}

// plusAmount adds amounts of which neither is beyond budget.MaxAmount. Nor is the sum: what does not fit is cut.
func plusAmount(a, b int64) int64 { return min(max(a+b, -budget.MaxAmount), budget.MaxAmount) }

// added is the SQL for a sum of money that grows by a batch. Beyond eight thousand million dollars it is cut: a provider that claims the like of that with each answer must not
// keep rows from being written, nor make a sum negative.
func added(table, column string) string {
	return `greatest(least(` + table + `.` + column + `, 8000000000000000000), -8000000000000000000) + excluded.` + column
}

// addCharges charges rows to the leases that they were reserved from, and enters that into the ledger. A lease that is not there, since the database has forgotten
// it, is made: what was spent was spent.
func addCharges(ctx context.Context, tx pgx.Tx, rows []*usage.Record, taken []contribution) error {
	charges := chargesOf(rows, taken)
	if len(charges) == 0 {
		return nil
	}
	var holders [][16]byte
	c := columns(4, len(charges))
	for i := range charges {
		one := &charges[i]
		holders = append(holders, one.holder)
		for j, n := range [4]int64{one.account.Budget, one.account.Period, one.amount, one.entries} {
			c[j] = append(c[j], n)
		}
	}
	var batch pgx.Batch
	batch.Queue(`insert into weir.lease as l (budget_id, period, holder, spent)
		select budget_id, period, holder, amount from unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[]) c (budget_id, period, holder, amount) order by 1, 2, 3
		on conflict (budget_id, period, holder) do update set spent = `+added("l", "spent"), c[0], c[1], holders, c[2])
	batch.Queue(`insert into weir.ledger as e (budget_id, period, holder, kind, amount, leased, entries, hour)
		select budget_id, period, holder, 'spend', -amount, -amount, entries, date_trunc('hour', now())
		from unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[]) c (budget_id, period, holder, amount, entries) order by 1, 2, 3
		on conflict (budget_id, period, holder, kind, hour) where hour is not null
		do update set amount = `+added("e", "amount")+`, leased = `+added("e", "leased")+`, entries = e.entries + excluded.entries, at = now()`,
		c[0], c[1], holders, c[2], c[3])
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("charge budgets: %w", err)
	}
	return nil
}
