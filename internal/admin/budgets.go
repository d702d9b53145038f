// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/store"
)

// BudgetReader reads budgets and their books.
type BudgetReader interface {
	BudgetState(ctx context.Context, ref store.BudgetRef, now time.Time) (store.BudgetState, error)
	BudgetStates(ctx context.Context, now time.Time) ([]store.BudgetState, error)
	Ledger(ctx context.Context, ref store.BudgetRef, limit int) ([]store.LedgerEntry, error)
}

// BudgetWriter moves money. What budgets are is changed with their keys and tenants.
type BudgetWriter interface {
	TopUp(ctx context.Context, t store.TopUp, now time.Time) (st store.BudgetState, booked bool, err error)
	ReleaseLeases(ctx context.Context, holder uuid.UUID, forgive bool) (released int64, err error)
}

func (a *api) budgetRoutes() []route {
	return []route{
		{"GET", "/api/v1/budgets", a.listBudgets},
		{"GET", "/api/v1/keys/{ref}/budget", a.showBudget(keyRef)},
		{"POST", "/api/v1/keys/{ref}/budget/top-ups", a.topUp(keyRef)},
		{"GET", "/api/v1/keys/{ref}/budget/ledger", a.ledger(keyRef)},
		{"GET", "/api/v1/tenants/{ref}/budget", a.showBudget(tenantRef)},
		{"POST", "/api/v1/tenants/{ref}/budget/top-ups", a.topUp(tenantRef)},
		{"GET", "/api/v1/tenants/{ref}/budget/ledger", a.ledger(tenantRef)},
		{"POST", "/api/v1/leases/{holder}/release", a.releaseLeases},
	}
}

func budgetOf(s store.BudgetState) Budget {
	b := Budget{
		ID: s.ID, Tenant: s.TenantName, AmountNanoUSD: s.Amount, Period: string(s.Period), TimeZone: s.Zone, Notices: append([]int{}, s.Shares...),
		Began: timeOrNil(s.Began), Renews: timeOrNil(s.Renews), CreditNanoUSD: s.Credit, SpentNanoUSD: s.Spent, LeasedNanoUSD: s.Leased,
		LeftNanoUSD: s.Left(), Leases: []Lease{}, Created: s.Created,
	}
	if s.Key != 0 {
		b.Key = &s.KeyName
	}
	for _, l := range s.Leases {
		b.Leases = append(b.Leases, Lease{Holder: l.Holder, GrantedNanoUSD: l.Granted, SpentNanoUSD: l.Spent, Asked: l.Asked.UTC(), Seen: l.Seen.UTC()})
	}
	return b
}

func entryOf(e store.LedgerEntry) LedgerEntry {
	out := LedgerEntry{
		ID: e.ID, Time: e.Time, Period: timeOrNil(e.Period), Kind: e.Kind, AmountNanoUSD: e.Amount, LeasedNanoUSD: e.Leased, Entries: e.Entries,
		Reference: e.Reference, Note: e.Note,
	}
	if e.Holder != uuid.Nil {
		out.Holder = &e.Holder
	}
	return out
}

// change returns what the terms change; nil if nothing is said.
func (t *BudgetTerms) change() *store.BudgetChange {
	if t == nil {
		return nil
	}
	return &store.BudgetChange{Amount: t.AmountNanoUSD, Period: t.Period, Shares: t.Notices}
}

// changeOf is the change that a member asks for that may be null.
func changeOf(n Nullable[BudgetTerms]) *store.BudgetChange {
	if n.Present && n.Value == nil {
		return &store.BudgetChange{Remove: true}
	}
	return n.Value.change()
}

func keyRef(r *http.Request) store.BudgetRef    { return store.BudgetRef{Key: r.PathValue("ref")} }
func tenantRef(r *http.Request) store.BudgetRef { return store.BudgetRef{Tenant: r.PathValue("ref")} }

func (a *api) listBudgets(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Store.BudgetStates(r.Context(), time.Now())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(all, budgetOf))
	return nil
}

// showBudget answers for the budget that ref takes from the path.
func (a *api) showBudget(ref func(*http.Request) store.BudgetRef) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		st, err := a.Store.BudgetState(r.Context(), ref(r), time.Now())
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, budgetOf(st))
		return nil
	}
}

func (a *api) topUp(ref func(*http.Request) store.BudgetRef) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var t TopUp
		if err := decode(w, r, &t); err != nil {
			return err
		}
		st, booked, err := a.Store.TopUp(r.Context(), store.TopUp{BudgetRef: ref(r), Amount: t.AmountNanoUSD, Reference: t.Reference, Note: t.Note}, time.Now())
		if err != nil {
			return err
		}
		status := http.StatusCreated
		if !booked {
			status = http.StatusOK
		}
		writeJSON(w, status, ToppedUp{Budget: budgetOf(st), Booked: booked})
		return nil
	}
}

func (a *api) ledger(ref func(*http.Request) store.BudgetRef) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		q := query{values: r.URL.Query()}
		limit := q.limit()
		if err := q.done(); err != nil {
			return err
		}
		entries, err := a.Store.Ledger(r.Context(), ref(r), limit)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, listOf(entries, entryOf))
		return nil
	}
}

func (a *api) releaseLeases(w http.ResponseWriter, r *http.Request) error {
	holder, err := uuid.Parse(r.PathValue("holder"))
	if err != nil {
		return invalid("%q is not the identity of a holder of leases", r.PathValue("holder")).hint("a budget that is shown names them")
	}
	var n Release
	if err := decode(w, r, &n); err != nil {
		return err
	}
	released, err := a.Store.ReleaseLeases(r.Context(), holder, n.Forgive)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Released{Holder: holder, LeasedNanoUSD: released, Forgiven: n.Forgive})
	return nil
}
