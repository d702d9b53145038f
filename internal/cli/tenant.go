// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

func tenantCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tenant COMMAND",
		Short: "Customers, who own keys and are billed",
		Long: `A tenant is a customer: it owns keys, may have channels of its own, and is who usage is billed to.
There is always one named "default". TENANT is an id or a name.`,
	}
	c.AddCommand(tenantCreate(), tenantList(), tenantShow(), tenantSet(), tenantDelete())
	return c
}

func tenantState(t admin.Tenant) string {
	if t.Disabled {
		return "disabled"
	}
	return "enabled"
}

func parentOf(t admin.Tenant) string {
	if t.Parent == nil {
		return "none"
	}
	return *t.Parent
}

func printTenant(c *cobra.Command, t admin.Tenant) error {
	return printThing(c, t, []fact{
		{"id", count(t.ID)},
		{"name", t.Name},
		{"state", tenantState(t)},
		{"groups", listed(t.Groups, "any")},
		{"parent", parentOf(t)},
		{"time zone", t.TimeZone},
		{"created", timeAndAge(t.Created)},
	})
}

func tenantCreate() *cobra.Command {
	var n admin.NewTenant
	var rates rateFlags
	var money budgetFlags
	c := &cobra.Command{
		Use:     "create NAME [--parent TENANT] [--time-zone ZONE] [--budget USD] [--rpm N] [--tpm N] …",
		Short:   "Make a tenant",
		Long:    "Make a tenant. Names are of lowercase letters, digits, and - _ . between them.",
		Example: "  weir tenant create acme\n  weir tenant create acme-lab --parent acme --time-zone Europe/Berlin --budget 500 --budget-period month",
		Args:    arguments("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			limits, err := rates.rates(c)
			if err != nil {
				return err
			}
			terms, _, err := money.terms(c)
			if err != nil {
				return err
			}
			n.Name, n.Budget, n.Limits = args[0], terms, limits
			client, err := connect(c)
			if err != nil {
				return err
			}
			t, err := client.CreateTenant(c.Context(), n)
			if err != nil {
				return err
			}
			if err := printTenant(c, t); err != nil {
				return err
			}
			remark(c, "\nNow make a key for it: weir key create --tenant %s", t.Name)
			return nil
		},
	}
	rates.add(c)
	c.Flags().StringVar(&n.Parent, "parent", "", "the `TENANT` above it, whose budgets count too")
	c.Flags().StringVar(&n.TimeZone, "time-zone", "", "the `ZONE` in which the periods of its budgets begin, as in Europe/Berlin (default: UTC)")
	money.add(c)
	return c
}

func tenantList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tenants",
		Long:  "List the tenants, oldest first.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Tenants(c.Context())
			if err != nil {
				return err
			}
			return printList(c, all, "There is no tenant. Make one: weir tenant create NAME",
				[]string{"ID", "NAME", "STATE", "CREATED"},
				func(t admin.Tenant) []string { return []string{count(t.ID), t.Name, tenantState(t), age(t.Created)} })
		},
	}
}

func tenantShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show TENANT",
		Short: "Show a tenant",
		Long:  "Show a tenant.",
		Args:  arguments("TENANT"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			t, err := client.Tenant(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printTenant(c, t)
		},
	}
}

func tenantSet() *cobra.Command {
	var name, groups, parent, zone string
	var disabled bool
	var rates rateFlags
	var money budgetFlags
	c := &cobra.Command{
		Use:   "set TENANT [--name NAME] [--disabled[=false]] [--parent TENANT] [--budget USD] [--rpm N] …",
		Short: "Change a tenant",
		Long: `Change a tenant. Every key of a disabled tenant is refused, within a second on every gateway. The budgets of all
tenants above one count too. With another time zone, the present periods of its budgets begin anew.`,
		Example: `  weir tenant set acme --disabled
  weir tenant set acme --disabled=false`,
		Args: arguments("TENANT"),
		RunE: func(c *cobra.Command, args []string) error {
			var ch admin.TenantChange
			if c.Flags().Changed("name") {
				ch.Name = &name
			}
			if c.Flags().Changed("disabled") {
				ch.Disabled = &disabled
			}
			if c.Flags().Changed("groups") {
				names := splitNames(groups)
				ch.Groups = &names
			}
			if c.Flags().Changed("parent") {
				ch.Parent = admin.To(parent)
				if parent == "none" {
					ch.Parent = admin.Null[string]()
				}
			}
			if c.Flags().Changed("time-zone") {
				ch.TimeZone = &zone
			}
			var err error
			if ch.Budget, err = money.change(c); err != nil {
				return err
			}
			if ch.Limits, err = rates.rates(c); err != nil {
				return err
			}
			if ch == (admin.TenantChange{}) {
				return errNothingToSet
			}
			return sendTenantChange(c, args[0], ch)
		},
	}
	c.Flags().StringVar(&name, "name", "", "give it another `NAME`")
	c.Flags().BoolVar(&disabled, "disabled", false, "refuse its keys")
	c.Flags().StringVar(&groups, "groups", "", "hold its keys to channels of these `GROUPS`; none: any channel")
	rates.add(c)
	c.Flags().StringVar(&parent, "parent", "", "the `TENANT` above it, whose budgets count too, or none")
	c.Flags().StringVar(&zone, "time-zone", "", "the `ZONE` in which the periods of its budgets begin, as in Europe/Berlin")
	money.add(c)
	return c
}

// sendTenantChange changes a tenant and prints it as it is then.
func sendTenantChange(c *cobra.Command, ref string, ch admin.TenantChange) error {
	client, err := connect(c)
	if err != nil {
		return err
	}
	t, err := client.SetTenant(c.Context(), ref, ch)
	if err != nil {
		return err
	}
	return printTenant(c, t)
}

// errNothingToSet is for a set command without a flag.
var errNothingToSet = wrongUsage("nothing to change: give at least one flag")

func tenantDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete TENANT",
		Short: "Delete a tenant",
		Long: `Delete a tenant that has no channels, and no keys but revoked ones. Its usage stays.
To stop a tenant without deleting it: weir tenant set TENANT --disabled`,
		Args: arguments("TENANT"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			if err := client.DeleteTenant(c.Context(), args[0]); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]string{"deleted": args[0]})
			}
			remark(c, "Tenant %s is deleted.", args[0])
			return nil
		},
	}
}
