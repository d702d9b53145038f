// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// scope says whose exchanges an attachment judges.
func scope(a admin.Attachment) string {
	switch {
	case a.Key != nil:
		return "key " + *a.Tenant + "/" + *a.Key
	case a.Tenant != nil:
		return "tenant " + *a.Tenant
	}
	return "all"
}

func attachmentState(a admin.Attachment) string {
	switch {
	case a.Disabled:
		return "disabled"
	case a.RolledBack != nil:
		return "rolled back"
	}
	return "enabled"
}

// orDefault shows a limit; zero is that of the processor.
func orDefault(n int64, unit string) string {
	if n == 0 {
		return "default"
	}
	return count(n) + unit
}

// shown prints the attachment that came of a call, unless that failed.
func shown(c *cobra.Command, a admin.Attachment, err error) error {
	if err != nil {
		return err
	}
	facts := []fact{
		{"id", count(a.ID)},
		{"plugin", a.Plugin},
		{"version", a.Digest},
		{"for", scope(a)},
		{"place", count(int64(a.Place))},
		{"mode", a.Mode},
		{"config", string(a.Config)},
		{"grants", listed(a.Grants, "none")},
		{"headers", listed(a.Headers, "none")},
		{"body", yesNo(a.Body)},
		{"upstreams", listed(upstreamNames(a.Upstreams), "none")},
		{"responses", yesNo(!a.RequestOnly)},
		{"fuel", orDefault(a.Limits.Fuel, "")},
		{"memory", orDefault(a.Limits.MemoryBytes, " bytes")},
		{"time", orDefault(a.Limits.TimeMS, " ms")},
		{"state", attachmentState(a)},
		{"since", timeAndAge(a.Swapped)},
	}
	if a.Previous != nil {
		facts = append(facts, fact{"before", *a.Previous})
	}
	if a.RolledBack != nil {
		facts = append(facts, fact{"rolled back", "from " + a.RolledBack.From + ": " + a.RolledBack.Why})
	}
	return printThing(c, a, facts)
}

func pluginAttach() *cobra.Command {
	var f attachmentFlags
	var tenant, key string
	var disabled bool
	c := &cobra.Command{
		Use:   "attach PLUGIN [--tenant TENANT | --key KEY] [--config JSON|@FILE] [--FLAG VALUE]...",
		Short: "Have a plugin judge exchanges",
		Long: `Have a plugin judge the exchanges of a tenant, of a key, or of all. Weir loads it with its configuration first, and attaches
nothing that does not work. It takes effect within a second; exchanges in flight end as they began. One plugin may be attached many times.`,
		Example: `  weir plugin attach guard --tenant acme --config '{"words":["secret"]}'
  weir plugin attach redactor --key acme/ci --grant pii --mode open --place 10
  weir plugin attach audit --mode shadow
  weir plugin attach moderator --tenant acme --grant log --upstream moderation.dns=https://moderation.example.com`,
		Args: arguments("PLUGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			n := admin.NewAttachment{
				Plugin: args[0], Version: f.version, Tenant: tenant, Key: key, Place: f.place, Mode: f.mode,
				Grants: splitNames(f.grants), Headers: splitNames(strings.ToLower(f.headers)), Body: f.body, Disabled: disabled,
				RequestOnly: f.requestOnly,
			}
			var err error
			if n.Upstreams, err = f.servers(); err != nil {
				return err
			}
			if n.Config, err = f.configuration(); err != nil {
				return err
			}
			if n.Limits, err = f.limits(); err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			a, err := client.Attach(c.Context(), n)
			return shown(c, a, err)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "judge the exchanges of this `TENANT`")
	c.Flags().StringVar(&key, "key", "", "judge the exchanges of this `KEY`, an id, a name or TENANT/NAME")
	f.register(c, "closed")
	c.Flags().BoolVar(&disabled, "disabled", false, "attach it, and leave it off until weir plugin set ID --disabled=false")
	return c
}

func pluginSet() *cobra.Command {
	var f attachmentFlags
	var disabled bool
	c := &cobra.Command{
		Use:   "set ID [--FLAG VALUE]...",
		Short: "Change how a plugin judges where it is attached",
		Long: `Change an attachment. Only what a flag names is changed; --version '' means the version that was pushed last. It takes effect within
a second, and exchanges in flight end as they began. A new version that fails often in its first ten minutes is rolled back. A limit of
0 is the default again, and --upstream '' takes all upstreams away.`,
		Example: `  weir plugin set 3 --version ''
  weir plugin set 3 --config @guard.json --mode open`,
		Args: arguments("ID"),
		RunE: withAttachment(func(c *cobra.Command, client *admin.Client, id int64) error {
			ch, err := f.change(c)
			if err != nil {
				return err
			}
			if c.Flags().Changed("disabled") {
				ch.Disabled = &disabled
			}
			if anyChanged(c, "fuel", "memory", "time") {
				now, err := client.Attachment(c.Context(), id)
				if err != nil {
					return err
				}
				ch.Limits = f.mergeLimits(c, now.Limits)
			}
			a, err := client.SetAttachment(c.Context(), id, ch)
			return shown(c, a, err)
		}),
	}
	f.register(c, "")
	c.Flags().BoolVar(&disabled, "disabled", false, "leave it off until --disabled=false")
	return c
}

// withAttachment is the frame of the commands about one attachment: it reads the id, which is the only argument, and connects.
func withAttachment(run func(c *cobra.Command, client *admin.Client, id int64) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		id, err := attachmentArgument(args[0])
		if err != nil {
			return err
		}
		client, err := connect(c)
		if err != nil {
			return err
		}
		return run(c, client, id)
	}
}

// attachmentArgument reads the id of an attachment.
func attachmentArgument(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id <= 0 {
		return 0, wrongUsage("%q is no id of an attachment, which is a number; weir plugin show NAME has them", arg)
	}
	return id, nil
}

func pluginDetach() *cobra.Command {
	return &cobra.Command{
		Use:   "detach ID",
		Short: "Have a plugin judge exchanges no more",
		Long:  "Delete an attachment. It takes effect within a second; exchanges in flight end as they began. The plugin stays.",
		Args:  arguments("ID"),
		RunE: withAttachment(func(c *cobra.Command, client *admin.Client, id int64) error {
			if err := client.Detach(c.Context(), id); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]int64{"detached": id})
			}
			remark(c, "Attachment %d is gone.", id)
			return nil
		}),
	}
}

func pluginRollBack() *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "rollback ID [--why TEXT]",
		Short: "Put the version before in force again",
		Long:  "Put the version before in force where a plugin is attached, with the configuration that it had. It takes effect within a second.",
		Args:  arguments("ID"),
		RunE: withAttachment(func(c *cobra.Command, client *admin.Client, id int64) error {
			a, err := client.RollBack(c.Context(), id, why)
			return shown(c, a, err)
		}),
	}
	c.Flags().StringVar(&why, "why", "by hand", "the reason as `TEXT`, for whoever asks later")
	return c
}
