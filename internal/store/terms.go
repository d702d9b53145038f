// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

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
	for _, id := range c.Budgets.Gone {
		if id == 0 {
			return true
		}
	}
	for _, id := range c.Limits.Gone {
		if id == 0 {
			return true
		}
	}
	return false
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
