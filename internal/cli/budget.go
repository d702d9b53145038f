// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/policy/budget"
)

func budgetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "budget COMMAND",
		Short: "What keys and tenants may spend, and have spent",
		Long: `A budget is how many dollars a key or a tenant may spend, per day, week or month in the time zone of the tenant, or
for ever. A request is refused if it might cost more than is left of the budget of its key, of its tenant, or of a
tenant above that.

Budgets are set with weir key create and set, and weir tenant create and set: --budget, --budget-period,
--budget-notices.`,
	}
	c.AddCommand(budgetList(), budgetShow(), budgetTopUp(), budgetLedger(), budgetRelease())
	return c
}

// budgetFlags are those that set the budget of a key or a tenant.
type budgetFlags struct{ amount, period, notices string }

// flagNames are for [anyChanged].
var budgetFlagNames = [...]string{"budget", "budget-period", "budget-notices"}

func (f *budgetFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.amount, "budget", "", "`USD` that it may spend in each period, or none")
	c.Flags().StringVar(&f.period, "budget-period", "", "`PERIOD` of its budget: day, week, month or never (default: month)")
	c.Flags().StringVar(&f.notices, "budget-notices", "", "`PERCENT` of the budget at which the webhook is told, as in 50,80,100")
}

// terms returns what the flags say; nil if they say nothing. With --budget none, remove is true.
func (f *budgetFlags) terms(c *cobra.Command) (t *admin.BudgetTerms, remove bool, err error) {
	if !anyChanged(c, budgetFlagNames[:]...) {
		return nil, false, nil
	}
	if f.amount == "none" {
		if anyChanged(c, budgetFlagNames[1:]...) {
			return nil, false, wrongUsage("--budget none goes without --budget-period and --budget-notices")
		}
		return nil, true, nil
	}
	t = &admin.BudgetTerms{}
	if c.Flags().Changed("budget") {
		n, err := dollars("--budget", f.amount)
		if err != nil {
			return nil, false, err
		}
		t.AmountNanoUSD = &n
	}
	if c.Flags().Changed("budget-period") {
		if _, err := budget.ParsePeriod(f.period); err != nil {
			return nil, false, wrongUsage("--budget-period: %w", err)
		}
		t.Period = &f.period
	}
	if c.Flags().Changed("budget-notices") {
		shares := []int{}
		for _, s := range splitNames(f.notices) {
			n, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
			if err != nil || n < 1 || n > 100 {
				return nil, false, wrongUsage("--budget-notices: %q is not a number of percent from 1 to 100", s)
			}
			shares = append(shares, n)
		}
		t.Notices = &shares
	}
	return t, false, nil
}

// change is what the flags ask to change.
func (f *budgetFlags) change(c *cobra.Command) (n admin.Nullable[admin.BudgetTerms], err error) {
	t, remove, err := f.terms(c)
	switch {
	case err != nil:
		return n, err
	case remove:
		return admin.Null[admin.BudgetTerms](), nil
	case t != nil:
		return admin.To(*t), nil
	}
	return n, nil
}

func dollars(flag, s string) (int64, error) {
	n, err := budget.ParseUSD(strings.TrimPrefix(s, "$"))
	if err != nil {
		return 0, wrongUsage("%s: %w", flag, err)
	}
	return n, nil
}

// owners are the flags that say whose budget is meant.
type owners struct{ key, tenant string }

func (o *owners) add(c *cobra.Command) {
	c.Flags().StringVar(&o.key, "key", "", "that of this `KEY`")
	c.Flags().StringVar(&o.tenant, "tenant", "", "that of this `TENANT`")
}

func (o *owners) ref() (admin.BudgetRef, error) {
	if (o.key == "") == (o.tenant == "") {
		return admin.BudgetRef{}, wrongUsage("say whose budget is meant: either --key or --tenant")
	}
	return admin.BudgetRef{Key: o.key, Tenant: o.tenant}, nil
}

func budgetOwner(b admin.Budget) string {
	if b.Key != nil {
		return "key " + b.Tenant + "/" + *b.Key
	}
	return "tenant " + b.Tenant
}

func renewal(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return localTime(*t)
}

func percents(shares []int) string {
	var out []string
	for _, s := range shares {
		out = append(out, strconv.Itoa(s)+"%")
	}
	return listed(out, "none")
}

func budgetFacts(b admin.Budget) []fact {
	facts := []fact{
		{"of", budgetOwner(b)},
		{"budget", usd(&b.AmountNanoUSD)},
		{"period", b.Period + ", " + b.TimeZone},
		{"notices", percents(b.Notices)},
		{"renews", renewal(b.Renews)},
		{"credit", usd(&b.CreditNanoUSD)},
		{"spent", usd(&b.SpentNanoUSD)},
		{"leased", usd(&b.LeasedNanoUSD)},
		{"left", usd(&b.LeftNanoUSD)},
	}
	for _, l := range b.Leases {
		facts = append(facts, fact{"lease", fmt.Sprintf("%s: %s, of which %s is spent; seen %s", l.Holder, usd(&l.GrantedNanoUSD), usd(&l.SpentNanoUSD), age(l.Seen))})
	}
	return facts
}

func budgetList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the budgets",
		Long: `List the budgets and how they stand in their present period. LEASED is what processors have taken ahead of need; it
goes back when it is not used.`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Budgets(c.Context())
			if err != nil {
				return err
			}
			return printList(c, all, "There is no budget: every key may spend what it likes. Make one: weir key set KEY --budget USD",
				[]string{"OF", "PERIOD", "CREDIT", "SPENT", "LEASED", "LEFT", "RENEWS"},
				func(b admin.Budget) []string {
					return []string{
						budgetOwner(b), b.Period, usd(&b.CreditNanoUSD), usd(&b.SpentNanoUSD), usd(&b.LeasedNanoUSD), usd(&b.LeftNanoUSD), renewal(b.Renews),
					}
				})
		},
	}
}

func budgetShow() *cobra.Command {
	var o owners
	c := &cobra.Command{
		Use:   "show {--key KEY | --tenant TENANT}",
		Short: "Show a budget and who has leased of it",
		Long: `Show a budget in its present period, and what each processor has leased of it. A processor is named by the identity of
its journal, which is in the file journal/identity of its state folder.`,
		Example: "  weir budget show --key acme/bot",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ref, err := o.ref()
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			b, err := client.Budget(c.Context(), ref)
			if err != nil {
				return err
			}
			return printThing(c, b, budgetFacts(b))
		},
	}
	o.add(c)
	return c
}

func budgetTopUp() *cobra.Command {
	var o owners
	var amount string
	var t admin.TopUp
	c := &cobra.Command{
		Use:   "top-up {--key KEY | --tenant TENANT} --amount USD --reference REF [--note TEXT]",
		Short: "Add to the credit of a budget",
		Long: `Add to what may be spent in the present period: for good, if the budget never renews. What is booked under a reference
is booked once, so that a payment may be reported twice.`,
		Example: "  weir key create --name prepaid --budget 0 --budget-period never\n  weir budget top-up --key prepaid --amount 25 --reference invoice-1041",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ref, err := o.ref()
			if err != nil {
				return err
			}
			if amount == "" || t.Reference == "" {
				return wrongUsage("--amount and --reference must be given")
			}
			if t.AmountNanoUSD, err = dollars("--amount", amount); err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			done, err := client.TopUp(c.Context(), ref, t)
			if err != nil {
				return err
			}
			if !done.Booked {
				remark(c, "%q had been booked before: nothing is added.", t.Reference)
			}
			return printThing(c, done, budgetFacts(done.Budget))
		},
	}
	o.add(c)
	c.Flags().StringVar(&amount, "amount", "", "`USD` to add")
	c.Flags().StringVar(&t.Reference, "reference", "", "`REF` of the payment")
	c.Flags().StringVar(&t.Note, "note", "", "a `TEXT` for people")
	return c
}

func budgetLedger() *cobra.Command {
	var o owners
	last := 100
	c := &cobra.Command{
		Use:   "ledger {--key KEY | --tenant TENANT} [--last N]",
		Short: "List the movements of a budget's money",
		Long: `List the movements of a budget's money, the newest first. The sum of AMOUNT in a period is its balance: credit less
what is spent. The sum of LEASED is what processors have leased and not spent. What happens all the time is added up
by the hour: grants and returns of leases, and what was spent.`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ref, err := o.ref()
			if err != nil {
				return err
			}
			if last < 1 || last > 1000 {
				return wrongUsage("--last must be from 1 to 1000")
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			entries, err := client.Ledger(c.Context(), ref, last)
			if err != nil {
				return err
			}
			return printList(c, entries, "Nothing has moved yet.",
				[]string{"TIME", "PERIOD", "KIND", "AMOUNT", "LEASED", "ENTRIES", "HOLDER", "REFERENCE", "NOTE"},
				func(e admin.LedgerEntry) []string {
					period, holder := "", ""
					if e.Period != nil {
						period = localTime(*e.Period)
					}
					if e.Holder != nil {
						holder = e.Holder.String()
					}
					return []string{localTime(e.Time), period, e.Kind, usd(&e.AmountNanoUSD), usd(&e.LeasedNanoUSD), count(e.Entries), holder, e.Reference, e.Note}
				})
		},
	}
	o.add(c)
	c.Flags().IntVar(&last, "last", last, "at most `N`, the newest")
	return c
}

func budgetRelease() *cobra.Command {
	var r admin.Release
	c := &cobra.Command{
		Use:   "release HOLDER [--forgive]",
		Short: "End the leases of a processor whose journal is lost",
		Long: `End the leases of a processor that will never come back with its journal, as when its disk is lost. HOLDER is as weir
budget show names it. What was leased and has no row of usage may have been spent: it counts as spent, or, with
--forgive, may be spent again.

A processor that is merely down needs none of this: it goes on with its leases when it starts. One that lives is
refused its budgets until it is restarted.`,
		Args: arguments("HOLDER"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			done, err := client.ReleaseLeases(c.Context(), args[0], r)
			if err != nil {
				return err
			}
			return printThing(c, done, []fact{{"holder", done.Holder.String()}, {"had left", usd(&done.LeasedNanoUSD)}, {"forgiven", yesNo(done.Forgiven)}})
		},
	}
	c.Flags().BoolVar(&r.Forgive, "forgive", false, "let it be spent again")
	return c
}
