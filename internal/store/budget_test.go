// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
)

func TestBudgetsAreRefusedThatMakeNoSense(t *testing.T) {
	s, _ := budgeted(t, dollar)
	for says, c := range map[string]BudgetChange{
		"from 0 to":            {Amount: new(int64(-1))},
		"1000000000.00":        {Amount: new(int64(math.MaxInt64))},
		"is none of day":       {Period: new("fortnight")},
		"between 1 and 100":    {Shares: &[]int{50, 101}},
		"at most 10":           {Shares: new(slices.Repeat([]int{5}, 11))},
		"removed or changed":   {Remove: true, Amount: new(dollar)},
		"between 1 and 100 pe": {Shares: &[]int{0}},
	} {
		_, err := s.SetKey(t.Context(), "bot", KeyChange{Budget: &c})
		wantError(t, err, ErrInvalid, says)
		_, _, err = s.CreateKey(t.Context(), NewKey{Budget: &c})
		wantError(t, err, ErrInvalid, says)
		_, err = s.SetTenant(t.Context(), "default", TenantChange{Budget: &c})
		wantError(t, err, ErrInvalid, says)
	}
	_, err := s.SetTenant(t.Context(), "default", TenantChange{Budget: &BudgetChange{Period: new("day")}})
	wantError(t, err, ErrInvalid, "say how much")
	if keys, err := s.Keys(t.Context(), KeyFilter{}); err != nil || len(keys) != 1 {
		t.Errorf("keys whose budget was refused were made: %d, %v", len(keys), err)
	}
}

func TestTenantsFormATree(t *testing.T) {
	s := migrated(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := s.CreateTenant(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	put := func(child, parent string) error {
		_, err := s.SetTenant(t.Context(), child, TenantChange{Parent: &parent})
		return err
	}
	for child, parent := range map[string]string{"b": "a", "c": "b"} {
		if err := put(child, parent); err != nil {
			t.Fatal(err)
		}
	}
	for child, parent := range map[string]string{"a": "a"} {
		wantError(t, put(child, parent), ErrInvalid, "above itself")
	}
	wantError(t, put("a", "c"), ErrInvalid, "above itself")
	wantError(t, put("a", "nobody"), ErrNotFound, "nobody")
	wantError(t, s.DeleteTenant(t.Context(), "a"), ErrInUse, "parent of 1")
	last := "c"
	for _, name := range []string{"d", "e", "f", "g"} {
		if _, err := s.CreateTenant(t.Context(), name, TenantChange{Parent: &last}); err != nil {
			t.Fatal(err)
		}
		last = name
	}
	_, err := s.CreateTenant(t.Context(), "deep", TenantChange{Parent: &last})
	wantError(t, err, ErrInvalid, "more than 6 tenants")
	if err := put("c", ""); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Tenant(t.Context(), "c"); err != nil || c.Parent != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = s.SetTenant(t.Context(), "a", TenantChange{Zone: new("Mars/Olympus")})
	wantError(t, err, ErrInvalid, "not known")
	if a, err := s.SetTenant(t.Context(), "a", TenantChange{Zone: new("Europe/Berlin")}); err != nil || a.Zone != "Europe/Berlin" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestChangeOfTheAmountMovesTheCreditAndOfThePeriodBeginsAnew(t *testing.T) {
	s, a := budgeted(t, dollar)
	l := s.lessee(t)
	l.mustSync(budget.Ask{Account: a, Want: 100})
	if _, err := s.SetKey(t.Context(), "bot", KeyChange{Budget: &BudgetChange{Amount: new(dollar / 2)}}); err != nil {
		t.Fatal(err)
	}
	if st, err := s.BudgetState(t.Context(), BudgetRef{Key: "bot"}, time.Now()); err != nil || st.Credit != dollar/2 {
		t.Errorf("%+v, %v", st, err)
	}
	if g := l.mustSync(budget.Ask{Account: a, Floor: 100, Want: 100}).Grants[0]; g.Credit != dollar/2 {
		t.Errorf("%+v", g)
	}
	wantBooks(t, s)
	if _, err := s.SetKey(t.Context(), "bot", KeyChange{Budget: &BudgetChange{Period: new("day")}}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Budget(t.Context(), BudgetRef{Key: "bot"})
	if err != nil || b.ID == a.Budget || b.Amount != dollar/2 || b.Period != budget.Day {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestTopUpIsBookedOnceByItsReference(t *testing.T) {
	s, a := budgeted(t, 0)
	top := TopUp{BudgetRef: BudgetRef{Key: "bot"}, Amount: 5 * dollar, Reference: "invoice 7", Note: "thanks"}
	for i, want := range []bool{true, false, false} {
		st, booked, err := s.TopUp(t.Context(), top, time.Now())
		if err != nil || booked != want || st.Credit != 5*dollar {
			t.Errorf("%d: %+v, booked %v, %v", i, st, booked, err)
		}
	}
	other := top
	other.Amount++
	_, _, err := s.TopUp(t.Context(), other, time.Now())
	wantError(t, err, ErrExists, "invoice 7")
	for says, bad := range map[string]TopUp{
		"more than 0":   {BudgetRef: top.BudgetRef, Amount: -1, Reference: "r"},
		"at most":       {BudgetRef: top.BudgetRef, Amount: math.MaxInt64, Reference: "r"},
		"printable":     {BudgetRef: top.BudgetRef, Amount: 1, Reference: "a\nb"},
		"200 printable": {BudgetRef: top.BudgetRef, Amount: 1},
		"of which key":  {Amount: 1, Reference: "r"},
		"1000000000.00": {BudgetRef: top.BudgetRef, Amount: budget.MaxAmount, Reference: "all"},
	} {
		_, _, err := s.TopUp(t.Context(), bad, time.Now())
		wantError(t, err, ErrInvalid, says)
	}
	_, _, err = s.TopUp(t.Context(), TopUp{BudgetRef: BudgetRef{Tenant: "default"}, Amount: 1, Reference: "r"}, time.Now())
	wantError(t, err, ErrNotFound, "budget of")
	wantBooks(t, s)
	entries, err := s.Ledger(t.Context(), top.BudgetRef, 10)
	if err != nil || len(entries) != 2 || entries[0].Kind != "top_up" || entries[0].Reference != "invoice 7" || entries[1].Kind != "allowance" {
		t.Errorf("%+v, %v", entries, err)
	}
	if g := s.lessee(t).mustSync(budget.Ask{Account: a, Need: dollar}).Grants[0]; g.Short || g.Credit != 5*dollar {
		t.Errorf("%+v", g)
	}
}

func TestLeasesOfALostJournalAreReleased(t *testing.T) {
	for name, forgive := range map[string]bool{"charged": false, "forgiven": true} {
		t.Run(name, func(t *testing.T) {
			s, a := budgeted(t, dollar)
			l := s.lessee(t)
			held := l.mustSync(budget.Ask{Account: a, Need: dollar / 4}).Grants[0].Granted
			mustPost(t, s, batch(uuid.New(), 0, l.chargedRecord(1000, a)))
			released, err := s.ReleaseLeases(t.Context(), l.holder, forgive)
			if err != nil || released != held-1000 {
				t.Errorf("released %d, %v, want %d", released, err, held-1000)
			}
			want := held
			if forgive {
				want = 1000
			}
			if st, err := s.BudgetState(t.Context(), BudgetRef{Key: "bot"}, time.Now()); err != nil || st.Spent != want || st.Leased != 0 {
				t.Errorf("%+v, %v, want %d as spent", st, err, want)
			}
			wantBooks(t, s)
			if _, err := l.sync(); err == nil {
				t.Error("who held them was not fenced")
			}
			_, err = s.ReleaseLeases(t.Context(), uuid.New(), forgive)
			wantError(t, err, ErrNotFound, "holder")
		})
	}
}

func TestAccountsAreOfThePeriodAndZone(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme", TenantChange{
		Zone: new("Asia/Tokyo"), Budget: &BudgetChange{Amount: new(dollar), Period: new("day")},
	}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC) // one o'clock of the next day in Tokyo
	st, err := s.BudgetState(t.Context(), BudgetRef{Tenant: "acme"}, now)
	if err != nil || !st.Began.Equal(time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)) || !st.Renews.Equal(st.Began.Add(24*time.Hour)) {
		t.Errorf("%+v, %v", st, err)
	}
	l := s.lessee(t)
	today := policy.Account{Budget: st.ID, Period: st.Began.Unix()}
	tomorrow := policy.Account{Budget: st.ID, Period: st.Renews.Unix()}
	r := l.mustSync(budget.Ask{Account: today, Need: dollar}, budget.Ask{Account: tomorrow, Need: dollar})
	if r.Grants[0].Granted != dollar || r.Grants[1].Granted != dollar {
		t.Errorf("%+v: each day has a budget of its own", r.Grants)
	}
	wantBooks(t, s)
}
