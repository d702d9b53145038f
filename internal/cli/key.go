// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

func keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key COMMAND",
		Short: "What clients of the gateway authenticate with",
		Long: `A key is what a client of the gateway sends as its API key. Only a hash of it is kept.
KEY is an id, a name, or TENANT/NAME where several tenants have a key of that name.`,
	}
	c.AddCommand(keyCreate(), keyImport(), keyList(), keyShow(), keySet(), keyRotate(), keyRevoke())
	return c
}

func keyState(k admin.Key) string {
	switch {
	case k.Revoked:
		return "revoked"
	case k.Disabled:
		return "disabled"
	case k.Expires != nil && k.Expires.Before(time.Now()):
		return "expired"
	}
	return "enabled"
}

func keyFacts(k admin.Key) []fact {
	facts := []fact{
		{"id", count(k.ID)},
		{"name", k.Name},
		{"tenant", k.Tenant},
		{"secret", k.Hint},
		{"models", listed(k.Models, "all")},
		{"state", keyState(k)},
		{"expires", expiry(k.Expires)},
		{"created", timeAndAge(k.Created)},
	}
	return append(facts, scopeFacts(k)...)
}

func keyCreate() *cobra.Command {
	var n admin.NewKey
	var models, expires string
	var rates rateFlags
	var scope scopeFlags
	var money budgetFlags
	c := &cobra.Command{
		Use:   "create [--tenant TENANT] [--name NAME] [--models A,B] [--expires TIME] [--budget USD] [--allow-ip CIDR,…] [--rpm N] [--tpm N] …",
		Short: "Make a key and print it, once",
		Long: `Make a key and print it. It cannot be shown again: only a hash of it is kept.

Standard output holds the key and nothing else, so that it can go straight to where it is needed.`,
		Example: `  weir key create --name laptop
  weir key create --tenant acme --models 'gpt-4o*,text-embedding-3-small' --expires 2027-01-01T00:00:00Z
  weir key create --name office --allow-ip 10.0.0.0/8,192.0.2.7 --groups eu --tags team=search
  OPENAI_API_KEY=$(weir key create --name ci)`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			n.Models = splitNames(models)
			if expires != "" {
				t, err := parseExpiry(expires)
				if err != nil {
					return err
				}
				n.Expires = t
			}
			if err := scope.create(&n); err != nil {
				return err
			}
			var err error
			if n.Limits, err = rates.rates(c); err != nil {
				return err
			}
			terms, _, err := money.terms(c)
			if err != nil {
				return err
			}
			n.Budget = terms
			client, err := connect(c)
			if err != nil {
				return err
			}
			k, err := client.CreateKey(c.Context(), n)
			if err != nil {
				return err
			}
			return printCreatedKey(c, k)
		},
	}
	c.Flags().StringVar(&n.Tenant, "tenant", "", "the `TENANT` that owns it (default \"default\")")
	c.Flags().StringVar(&n.Name, "name", "", "a `NAME` for people (default: made from its id)")
	c.Flags().StringVar(&models, "models", "", "`MODELS` that it may use, * for any characters (default: all)")
	c.Flags().StringVar(&expires, "expires", "", "the `TIME` when it ends: 2027-01-01 or 2027-01-01T00:00:00Z (default: never)")
	scope.register(c)
	rates.add(c)
	money.add(c)
	return c
}

func printCreatedKey(c *cobra.Command, k admin.CreatedKey) error {
	if asJSON(c) {
		return printJSON(c, k)
	}
	remark(c, "Key %d, %q of tenant %q. Keep it: it is not shown again.", k.ID, k.Name, k.Tenant)
	if _, err := fmt.Fprintln(c.OutOrStdout(), k.Secret); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	remark(c, `
Use it as OpenAI's, with the gateway's address as base URL:

  export OPENAI_BASE_URL=http://GATEWAY:10000/v1 OPENAI_API_KEY=sk-weir-…
  curl $OPENAI_BASE_URL/models -H "authorization: Bearer $OPENAI_API_KEY"`)
	return nil
}

// parseExpiry takes a time, or "never" as nil.
func parseExpiry(s string) (*time.Time, error) {
	if s == "never" {
		return nil, nil //nolint:nilnil // Never is no time.
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.ParseInLocation(time.DateOnly, s, time.Local)
	}
	if err != nil {
		return nil, wrongUsage("--expires %q is neither a time as in 2027-01-01T00:00:00Z nor a day as in 2027-01-01", s)
	}
	return &t, nil
}

// splitNames splits at commas and drops the spaces that people put there.
func splitNames(s string) []string {
	names := []string{}
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func keyList() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "list [--tenant TENANT]",
		Short: "List the keys",
		Long:  "List the keys, oldest first, revoked ones too.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Keys(c.Context(), tenant)
			if err != nil {
				return err
			}
			return printList(c, all, "There is no key yet. Make one: weir key create",
				[]string{"ID", "NAME", "TENANT", "SECRET", "MODELS", "STATE", "EXPIRES", "CREATED"},
				func(k admin.Key) []string {
					return []string{count(k.ID), k.Name, k.Tenant, k.Hint, listed(few(k.Models), "all"), keyState(k), expiry(k.Expires), age(k.Created)}
				})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	return c
}

func keyShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Show a key, but not its secret",
		Long: `Show a key, but of its secret only the first and last characters; and all budgets and limits that it is held to: its own, those of its
tenant, and those above.`,
		Args: arguments("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			k, err := client.Key(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printThing(c, k, append(keyFacts(k.Key), termFacts(k)...))
		},
	}
}

func keySet() *cobra.Command {
	var name, models, expires string
	var disabled bool
	var rates rateFlags
	var scope scopeFlags
	var money budgetFlags
	c := &cobra.Command{
		Use:   "set KEY [--name NAME] [--models A,B] [--expires TIME] [--disabled[=false]] [--budget USD] [--rpm N] …",
		Short: "Change a key",
		Long:  "Change a key. It takes effect within a second on every gateway.",
		Example: `  weir key set laptop --models 'gpt-4o*'
  weir key set laptop --models '*' --expires never
  weir key set laptop --disabled=false`,
		Args: arguments("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			limits, err := rates.rates(c)
			if err != nil {
				return err
			}
			ch := admin.KeyChange{Limits: limits}
			if ch.Budget, err = money.change(c); err != nil {
				return err
			}
			if ch.Limits == nil && !anyChanged(c, append(scopeNames(), append(budgetFlagNames[:], "name", "models", "expires", "disabled")...)...) {
				return errNothingToSet
			}
			if err := scope.change(c, &ch); err != nil {
				return err
			}
			if c.Flags().Changed("name") {
				ch.Name = &name
			}
			if c.Flags().Changed("models") {
				ch.Models = new(splitNames(models))
			}
			if c.Flags().Changed("disabled") {
				ch.Disabled = &disabled
			}
			if c.Flags().Changed("expires") {
				t, err := parseExpiry(expires)
				if err != nil {
					return err
				}
				ch.Expires = admin.Nullable[time.Time]{Present: true, Value: t}
			}
			return sendKeyChange(c, args[0], ch)
		},
	}
	c.Flags().StringVar(&name, "name", "", "give it another `NAME`")
	c.Flags().StringVar(&models, "models", "", "`MODELS` that it may use, * for any characters; '*' is all")
	c.Flags().StringVar(&expires, "expires", "", "the `TIME` when it ends: 2027-01-01, 2027-01-01T00:00:00Z, or never")
	c.Flags().BoolVar(&disabled, "disabled", false, "refuse it until it is enabled again")
	scope.register(c)
	rates.add(c)
	money.add(c)
	return c
}

// sendKeyChange changes a key and prints it as it is then.
func sendKeyChange(c *cobra.Command, ref string, ch admin.KeyChange) error {
	client, err := connect(c)
	if err != nil {
		return err
	}
	k, err := client.SetKey(c.Context(), ref, ch)
	if err != nil {
		return err
	}
	return printThing(c, k, keyFacts(k))
}

func anyChanged(c *cobra.Command, flags ...string) bool {
	for _, f := range flags {
		if c.Flags().Changed(f) {
			return true
		}
	}
	return false
}

func keyRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke KEY",
		Short: "End a key for good",
		Long: `End a key for good. It stops working within a second on every gateway, and stays in the list, because usage refers to it.
To stop it for a while: weir key set KEY --disabled`,
		Args: arguments("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			k, err := client.RevokeKey(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printThing(c, k, keyFacts(k))
		},
	}
}
