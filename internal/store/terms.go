// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/policy/limit"
)

// Terms are what keys and tenants are held to. They may be as many as keys, and are followed one by one as keys are.
type Terms struct {
	Budgets []budget.Budget
	Limits  []limit.Limit
}

// TermsChange is what has become of them.
type TermsChange struct {
	Budgets budget.Change
	Limits  limit.Change
}

// All returns the change that makes these terms all that there are.
func (t *Terms) All() TermsChange {
	return TermsChange{Budgets: budget.Change{All: true, Budgets: t.Budgets}, Limits: limit.Change{All: true, Limits: t.Limits}}
}

// Empty reports whether nothing has changed.
func (c *TermsChange) Empty() bool { return c.len() == 0 && !c.Budgets.All && !c.Limits.All }

func (c *TermsChange) len() int {
	return len(c.Budgets.Budgets) + len(c.Budgets.Gone) + len(c.Limits.Limits) + len(c.Limits.Gone)
}

// truncated reports whether it is not known which of them are gone.
func (c *TermsChange) truncated() bool {
	return slices.Contains(c.Budgets.Gone, 0) || slices.Contains(c.Limits.Gone, 0)
}

const (
	selectBudgetTerms = `select id, coalesce(key_id, 0), tenant_id, amount, period from weir.budget `
	selectLimitTerms  = `select id, coalesce(tenant_id, 0), coalesce(key_id, 0), each_key, model, coalesce(requests, 0), coalesce(input_tokens, 0),
		coalesce(output_tokens, 0), coalesce(tokens, 0), coalesce(concurrency, 0), coalesce(burst_ms, 0) from weir.rate_limit `
)

func scanLimitTerms(row pgx.CollectableRow) (l limit.Limit, err error) {
	var burst int64
	err = row.Scan(&l.ID, &l.Tenant, &l.Key, &l.Each, &l.Model, &l.Requests, &l.Input, &l.Output, &l.Total, &l.Concurrent, &burst)
	l.Burst = time.Duration(burst) * time.Millisecond
	return l, err
}

// loadTerms reads all of them.
func loadTerms(ctx context.Context, tx pgx.Tx) (TermsChange, error) {
	var t Terms
	var errs [2]error
	t.Budgets, errs[0] = many(ctx, tx, pgx.RowToStructByPos[budget.Budget], selectBudgetTerms)
	t.Limits, errs[1] = many(ctx, tx, scanLimitTerms, selectLimitTerms)
	return t.All(), errors.Join(errs[:]...)
}

// queueTerms asks for those that have changed since a position.
func queueTerms(batch *pgx.Batch, since keyPosition, c *TermsChange) {
	at := since.snapshot()
	batch.Queue(selectBudgetTerms+`where`+unseen+` limit $2`, at, maxDelta+1).Query(func(rows pgx.Rows) (err error) {
		c.Budgets.Budgets, err = pgx.CollectRows(rows, pgx.RowToStructByPos[budget.Budget])
		return err
	})
	batch.Queue(selectLimitTerms+`where`+unseen+` limit $2`, at, maxDelta+1).Query(func(rows pgx.Rows) (err error) {
		c.Limits.Limits, err = pgx.CollectRows(rows, scanLimitTerms)
		return err
	})
	batch.Queue(`select kind, id from weir.terms_gone where`+unseen+` limit $2`, at, maxDelta+1).Query(func(rows pgx.Rows) error {
		var kind string
		var id int64
		_, err := pgx.ForEachRow(rows, []any{&kind, &id}, func() error {
			if kind == "budget" {
				c.Budgets.Gone = append(c.Budgets.Gone, id)
			} else {
				c.Limits.Gone = append(c.Limits.Gone, limit.ID(id))
			}
			return nil
		})
		return err
	})
}

// setTerms changes the budget of an owner and its rates for all models.
func setTerms(ctx context.Context, tx pgx.Tx, o owner, b *BudgetChange, r *RatesChange) error {
	if err := setBudget(ctx, tx, o, b); err != nil {
		return err
	}
	return setOwnRates(ctx, tx, o, r)
}

// HeldKey is a key and all that it is held to.
type HeldKey struct {
	Key
	Budgets []BudgetState // its own, that of its tenant, and those of the tenants above, in this order; without the leases one by one
	Limits  []RateLimit   // its own, those of its tenant, then those of all
}

// HeldKey returns the key that ref names, with all that it is held to, as of a time.
func (s *Store) HeldKey(ctx context.Context, ref string, now time.Time) (HeldKey, error) {
	var h HeldKey
	err := s.readOnly(ctx, func(tx pgx.Tx) (err error) {
		if h.Key, err = findKey(ctx, tx, ref); err != nil {
			return err
		}
		if h.Budgets, err = budgetsOver(ctx, tx, &h.Key, now); err != nil {
			return err
		}
		h.Limits, err = limitsOver(ctx, tx, &h.Key)
		return err
	})
	if err != nil && !own(err) {
		err = fmt.Errorf("read key %q: %w", ref, err)
	}
	return h, err
}

func budgetsOver(ctx context.Context, tx pgx.Tx, k *Key, now time.Time) ([]BudgetState, error) {
	all, err := many(ctx, tx, scanBudget, `with recursive above (id, parent_id, depth) as (
			select id, parent_id, 1 from weir.tenant where id = $1
			union all select t.id, t.parent_id, depth + 1 from weir.tenant t join above a on t.id = a.parent_id where depth < $3
		) `+selectBudget+`join above a on a.id = b.tenant_id where b.key_id = $2 or b.key_id is null order by b.key_id is null, a.depth`,
		int64(k.Tenant), int64(k.ID), policy.MaxCharged)
	if err != nil {
		return nil, err
	}
	return statesOf(ctx, tx, all, now)
}

func limitsOver(ctx context.Context, tx pgx.Tx, k *Key) ([]RateLimit, error) {
	all, err := many(ctx, tx, scanRateLimit, selectRateLimit+`where l.key_id = $1 or l.key_id is null and (l.tenant_id = $2 or l.tenant_id is null)`,
		int64(k.ID), int64(k.Tenant))
	if err != nil {
		return nil, err
	}
	byID := make(map[limit.ID]RateLimit, len(all))
	limits := make([]limit.Limit, 0, len(all))
	for _, l := range all {
		byID[l.ID] = l
		limits = append(limits, l.Limit)
	}
	table, err := limit.NewTable(limits)
	if err != nil {
		return nil, err
	}
	var over []RateLimit
	for _, l := range table.Over(k.ID, k.Tenant) {
		over = append(over, byID[l.ID])
	}
	return over, nil
}
