// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// BudgetRef names whose budget is meant: a key's, or else a tenant's, by id or name.
type BudgetRef struct {
	Key    string
	Tenant string
}

func (r BudgetRef) path() string {
	if r.Key != "" {
		return pathOf("key", r.Key) + "/budget"
	}
	return pathOf("tenant", r.Tenant) + "/budget"
}

// Budgets returns all budgets, without their leases.
func (c *Client) Budgets(ctx context.Context) ([]Budget, error) {
	l, err := get[List[Budget]](ctx, c, "/api/v1/budgets")
	return l.Items, err
}

// Budget returns a budget and its leases.
func (c *Client) Budget(ctx context.Context, ref BudgetRef) (Budget, error) {
	return get[Budget](ctx, c, ref.path())
}

// TopUp adds to the credit of a budget, once for each reference.
func (c *Client) TopUp(ctx context.Context, ref BudgetRef, t TopUp) (ToppedUp, error) {
	return send[ToppedUp](ctx, c, http.MethodPost, ref.path()+"/top-ups", t)
}

// Ledger returns the last entries of a budget, the newest first; at most 1000.
func (c *Client) Ledger(ctx context.Context, ref BudgetRef, limit int) ([]LedgerEntry, error) {
	l, err := get[List[LedgerEntry]](ctx, c, ref.path()+"/ledger?limit="+strconv.Itoa(limit))
	return l.Items, err
}

// ReleaseLeases ends the leases of a processor whose journal is lost.
func (c *Client) ReleaseLeases(ctx context.Context, holder string, r Release) (Released, error) {
	return send[Released](ctx, c, http.MethodPost, "/api/v1/leases/"+url.PathEscape(holder)+"/release", r)
}
