// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
)

// Budget is a row of weir.budget.
type Budget struct {
	ID         int64
	Tenant     policy.TenantID
	Key        policy.KeyID // zero: it is the tenant's
	TenantName string
	KeyName    string
	Zone       string // of the tenant, in which periods begin
	Amount     int64  // nano-dollars, of each period
	Period     budget.Period
	Shares     []int // percent of the credit at which somebody is told, rising
	Created    time.Time
}

// zone returns the zone in which periods of the budget begin.
func (b *Budget) zone() (*time.Location, error) {
	zone, err := budget.ParseZone(b.Zone)
	if err != nil {
		return nil, fmt.Errorf("budget %d: %w", b.ID, err)
	}
	return zone, nil
}

// BudgetChange says what to change of the budget of a key or a tenant; nil leaves a field as it is. With an amount, a budget is made where there is none; its
// period is then a month unless it says otherwise.
type BudgetChange struct {
	Amount *int64 // nano-dollars
	Period *string
	Shares *[]int
	Remove bool // and nothing else: no budget from now on
}

// BudgetRef names the owner of a budget: a key, or else a tenant.
type BudgetRef struct {
	Key    string
	Tenant string
}

const maxShares = 10

const selectBudget = `select b.id, b.tenant_id, coalesce(b.key_id, 0), t.name, coalesce(k.name, ''), t.time_zone, b.amount, b.period, b.shares, b.created
	from weir.budget b join weir.tenant t on t.id = b.tenant_id left join weir.key k on k.id = b.key_id `

func scanBudget(row pgx.CollectableRow) (b Budget, err error) {
	var shares []int32
	err = row.Scan(&b.ID, &b.Tenant, &b.Key, &b.TenantName, &b.KeyName, &b.Zone, &b.Amount, &b.Period, &shares, &b.Created)
	for _, s := range shares {
		b.Shares = append(b.Shares, int(s))
	}
	b.Created = b.Created.UTC()
	return b, err
}

func budgets(ctx context.Context, q querier) ([]Budget, error) {
	return many(ctx, q, scanBudget, selectBudget+`order by b.id`)
}

// Budgets returns all budgets, oldest first.
func (s *Store) Budgets(ctx context.Context) ([]Budget, error) {
	b, err := budgets(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("list budgets: %w", err)
	}
	return b, nil
}

// owner is whose a budget is.
type owner struct {
	tenant policy.TenantID
	key    policy.KeyID // zero: the tenant's
}

func (o owner) key64() *int64 {
	if o.key == 0 {
		return nil
	}
	id := int64(o.key)
	return &id
}

// budgetOf returns the budget of an owner, or nil.
func budgetOf(ctx context.Context, q querier, o owner) (*Budget, error) {
	b, err := one(ctx, q, scanBudget, selectBudget+`where b.tenant_id = $1 and b.key_id is not distinct from $2`, int64(o.tenant), o.key64())
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find budget: %w", err)
	}
	return &b, nil
}

// findBudget returns the budget that ref names.
func findBudget(ctx context.Context, q querier, ref BudgetRef) (*Budget, error) {
	if (ref.Key == "") == (ref.Tenant == "") {
		return nil, invalid("budget: say of which key, or of which tenant")
	}
	var o owner
	var name string
	if ref.Key != "" {
		k, err := findKey(ctx, q, ref.Key)
		if err != nil {
			return nil, err
		}
		o, name = owner{k.Tenant, k.ID}, "key "+k.Name
	} else {
		t, err := findTenant(ctx, q, ref.Tenant)
		if err != nil {
			return nil, err
		}
		o, name = owner{tenant: t.ID}, "tenant "+t.Name
	}
	b, err := budgetOf(ctx, q, o)
	if err == nil && b == nil {
		return nil, notFound("budget of", name)
	}
	return b, err
}

// Budget returns the budget that ref names.
func (s *Store) Budget(ctx context.Context, ref BudgetRef) (Budget, error) {
	b, err := findBudget(ctx, s.pool, ref)
	if err != nil {
		return Budget{}, err
	}
	return *b, nil
}

// check returns why the change cannot be made, whatever is there.
func (c *BudgetChange) check() error {
	if c == nil {
		return nil
	}
	if c.Remove && (c.Amount != nil || c.Period != nil || c.Shares != nil) {
		return invalid("budget: it is either removed or changed")
	}
	if c.Amount != nil && (*c.Amount < 0 || *c.Amount > budget.MaxAmount) {
		return invalid("budget of %s dollars: it must be from 0 to %s", budget.FormatUSD(*c.Amount), budget.FormatUSD(budget.MaxAmount))
	}
	if c.Period != nil {
		if _, err := budget.ParsePeriod(*c.Period); err != nil {
			return invalid("budget: %w", err)
		}
	}
	if c.Shares != nil {
		if len(*c.Shares) > maxShares {
			return invalid("budget: %d shares to be told of, at most %d", len(*c.Shares), maxShares)
		}
		for _, share := range *c.Shares {
			if share < 1 || share > 100 {
				return invalid("budget: the share %d is not between 1 and 100 percent", share)
			}
		}
	}
	return nil
}

// setBudget makes, changes or removes the budget of an owner.
func setBudget(ctx context.Context, tx pgx.Tx, o owner, c *BudgetChange) error {
	if c == nil {
		return nil
	}
	if err := c.check(); err != nil {
		return err
	}
	b, err := budgetOf(ctx, tx, o)
	if err != nil {
		return err
	}
	if c.Remove {
		if b != nil {
			_, err = tx.Exec(ctx, `delete from weir.budget where id = $1`, b.ID)
		}
		return err
	}
	if b == nil {
		if c.Amount == nil {
			if c.Period == nil && c.Shares == nil {
				return nil
			}
			return invalid("budget: there is none yet: say how much it is")
		}
		b = &Budget{Period: budget.Month}
	}
	before := b.Period
	set(&b.Amount, c.Amount)
	if c.Period != nil {
		b.Period = budget.Period(*c.Period)
	}
	if c.Shares != nil {
		b.Shares = slices.Compact(slices.Sorted(slices.Values(*c.Shares)))
	}
	shares := make([]int32, 0, len(b.Shares))
	for _, share := range b.Shares {
		shares = append(shares, int32(share)) //nolint:gosec // at most 100
	}
	if b.ID != 0 && b.Period == before {
		_, err = tx.Exec(ctx, `update weir.budget set amount = $2, shares = $3 where id = $1`, b.ID, b.Amount, shares)
		return err
	}
	if b.ID != 0 {
		if _, err := tx.Exec(ctx, `delete from weir.budget where id = $1`, b.ID); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `insert into weir.budget (tenant_id, key_id, amount, period, shares) values ($1, $2, $3, $4, $5)`,
		int64(o.tenant), o.key64(), b.Amount, string(b.Period), shares)
	return err
}

// setPlace changes where a tenant stands in the tree, and its time zone.
func setPlace(ctx context.Context, tx pgx.Tx, t *Tenant, c TenantChange) error {
	if c.Zone != nil {
		if _, err := budget.ParseZone(*c.Zone); err != nil {
			return invalid("tenant %q: %w", t.Name, err)
		}
		t.Zone = cmp.Or(*c.Zone, "UTC")
	}
	switch {
	case c.Parent == nil:
		return nil
	case *c.Parent == "":
		t.Parent, t.ParentName = 0, ""
		return nil
	}
	parent, err := findTenant(ctx, tx, *c.Parent)
	if err != nil {
		return err
	}
	t.Parent, t.ParentName = parent.ID, parent.Name
	all, err := tenants(ctx, tx)
	if err != nil {
		return err
	}
	return checkTree(all, *t)
}

// maxAbove is how many tenants may be above one.
const maxAbove = policy.MaxCharged - 2

// checkTree returns why a tenant cannot stand where it is to.
func checkTree(all []Tenant, moved Tenant) error {
	parents := make(map[policy.TenantID]policy.TenantID, len(all))
	for _, t := range all {
		parents[t.ID] = t.Parent
	}
	parents[moved.ID] = moved.Parent
	for _, t := range all {
		above := 0
		for at := t.ID; parents[at] != 0; at = parents[at] {
			if parents[at] == t.ID {
				return invalid("tenant %q: it would be above itself", t.Name)
			}
			if above++; above > maxAbove {
				return invalid("tenant %q: more than %d tenants would be above it", t.Name, maxAbove)
			}
		}
	}
	return nil
}
