// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
	money "github.com/weir-proxy/weir/policy/budget"
)

// budget is known by whose it is: a key's or a tenant's.
type budget struct {
	Tenant  string `yaml:"tenant"`
	Key     string `yaml:"key"` // of the tenant, or of "default"
	USD     string `yaml:"usd"` // of each period
	Period  string `yaml:"period"`
	Notices []int  `yaml:"notices"` // percent

	nano int64
}

func (b *budget) keyRef() string { return cmp.Or(b.Tenant, defaultTenant) + "/" + b.Key }

// Ident implements [Thing].
func (b *budget) Ident() string {
	switch {
	case b.Key != "":
		return "of the key " + b.keyRef()
	case b.Tenant != "":
		return "of the tenant " + b.Tenant
	}
	return "of nobody"
}

// Resolve implements [Thing].
func (b *budget) Resolve(Environment) (err error) {
	if b.Key == "" && b.Tenant == "" {
		return errors.New("it needs a key or a tenant")
	}
	if b.USD == "" {
		return errors.New("it needs usd, the dollars of each period")
	}
	if b.nano, err = money.ParseUSD(b.USD); err != nil {
		return fmt.Errorf("usd: %w", err)
	}
	b.Period = cmp.Or(b.Period, string(money.Month))
	b.Notices = slices.Compact(slices.Sorted(slices.Values(b.Notices)))
	terms := b.terms()
	return terms.Check()
}

func (b *budget) terms() admin.BudgetTerms {
	notices := append([]int{}, b.Notices...)
	return admin.BudgetTerms{AmountNanoUSD: &b.nano, Period: &b.Period, Notices: &notices}
}

// Fields implements [Thing].
func (b *budget) Fields() []Field {
	var notices []string
	for _, n := range b.Notices {
		notices = append(notices, strconv.Itoa(n))
	}
	return []Field{{"usd", money.FormatUSD(b.nano)}, {"period", b.Period}, {"notices", strings.Join(notices, ", ")}}
}

// Put implements [Thing].
func (b *budget) Put(ctx context.Context, c *admin.Client, _ *Existing) error {
	return b.set(ctx, c, admin.To(b.terms()))
}

func (b *budget) set(ctx context.Context, c *admin.Client, terms admin.Nullable[admin.BudgetTerms]) (err error) {
	if b.Key != "" {
		_, err = c.SetKey(ctx, b.keyRef(), admin.KeyChange{Budget: terms})
	} else {
		_, err = c.SetTenant(ctx, b.Tenant, admin.TenantChange{Budget: terms})
	}
	return err
}

func listBudgets(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Budgets(ctx)
	var out []Existing
	for _, is := range all {
		as := &budget{Tenant: is.Tenant, Period: is.Period, Notices: is.Notices, nano: is.AmountNanoUSD}
		if is.Key != nil {
			as.Key = *is.Key
		}
		out = append(out, Existing{
			Ident: as.Ident(), Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return as.set(ctx, c, admin.Null[admin.BudgetTerms]()) },
		})
	}
	return out, err
}
