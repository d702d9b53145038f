// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strconv"
	"strings"
	"time"

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

func printAttachment(c *cobra.Command, a admin.Attachment) error {
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

// attachmentFlags are what both attach and set take.
type attachmentFlags struct {
	version, mode, config, grants, headers string
	place                                  int
	body                                   bool
	fuel, memory                           int64
	time                                   time.Duration
}

// register takes what the mode is when the flag is not given.
func (f *attachmentFlags) register(c *cobra.Command, mode string) {
	c.Flags().StringVar(&f.version, "version", "", "the `VERSION`, by the first digits of its digest (default: the one that was pushed last)")
	c.Flags().IntVar(&f.place, "place", 0, "`N`: among those for the same tenant, key or all, lower goes first")
	c.Flags().StringVar(&f.mode, "mode", mode, "`MODE`: if it fails, closed denies and open goes on; shadow only counts")
	c.Flags().StringVar(&f.config, "config", "", "the `CONFIGURATION`, usually JSON, or @FILE")
	c.Flags().StringVar(&f.grants, "grant", "", "`CAPABILITIES` that it may use: log,clock,regexp,pii,json,counters")
	c.Flags().StringVar(&f.headers, "header", "", "`HEADERS` that it is shown, of those in plugins.headers of weir.yaml")
	c.Flags().BoolVar(&f.body, "body", false, "show it the body of requests, as it came")
	c.Flags().Int64Var(&f.fuel, "fuel", 0, "`N`: instructions, roughly, of a call (default: plugins.limits of weir.yaml, as for the next two)")
	c.Flags().Int64Var(&f.memory, "memory", 0, "`BYTES` of memory, a multiple of 65536")
	c.Flags().DurationVar(&f.time, "time", 0, "`TIME` of a call, as in 20ms")
}

// configuration resolves @FILE. Unlike a secret it keeps its last line break.
func (f *attachmentFlags) configuration() (admin.PluginConfig, error) {
	path, isFile := strings.CutPrefix(f.config, "@")
	if !isFile {
		return admin.PluginConfig(f.config), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", withHint(err, "--config takes a text, or @ and the name of a file")
	}
	return admin.PluginConfig(b), nil
}

func (f *attachmentFlags) limits() (admin.PluginLimits, error) {
	if f.time%time.Millisecond != 0 {
		return admin.PluginLimits{}, wrongUsage("--time: %v is not in whole milliseconds", f.time)
	}
	return admin.PluginLimits{Fuel: f.fuel, MemoryBytes: f.memory, TimeMS: f.time.Milliseconds()}, nil
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
  weir plugin attach audit --mode shadow`,
		Args: arguments("PLUGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			n := admin.NewAttachment{
				Plugin: args[0], Version: f.version, Tenant: tenant, Key: key, Place: f.place, Mode: f.mode,
				Grants: splitNames(f.grants), Headers: splitNames(strings.ToLower(f.headers)), Body: f.body, Disabled: disabled,
			}
			var err error
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
			if err != nil {
				return err
			}
			return printAttachment(c, a)
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
0 is the default again.`,
		Example: `  weir plugin set 3 --version ''
  weir plugin set 3 --config @guard.json --mode open`,
		Args: arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := attachmentArgument(args[0])
			if err != nil {
				return err
			}
			ch, err := f.change(c)
			if err != nil {
				return err
			}
			if c.Flags().Changed("disabled") {
				ch.Disabled = &disabled
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			if anyChanged(c, "fuel", "memory", "time") {
				now, err := client.Attachment(c.Context(), id)
				if err != nil {
					return err
				}
				ch.Limits = f.mergeLimits(c, now.Limits)
			}
			a, err := client.SetAttachment(c.Context(), id, ch)
			if err != nil {
				return err
			}
			return printAttachment(c, a)
		},
	}
	f.register(c, "")
	c.Flags().BoolVar(&disabled, "disabled", false, "leave it off until --disabled=false")
	return c
}

// change makes a change of the flags that were given.
func (f *attachmentFlags) change(c *cobra.Command) (admin.AttachmentChange, error) {
	var ch admin.AttachmentChange
	given := c.Flags().Changed
	if !anyChanged(c, "version", "place", "mode", "config", "grant", "header", "body", "fuel", "memory", "time", "disabled") {
		return ch, errNothingToSet
	}
	if given("version") {
		ch.Version = &f.version
	}
	if given("place") {
		ch.Place = &f.place
	}
	if given("mode") {
		ch.Mode = &f.mode
	}
	if given("config") {
		config, err := f.configuration()
		if err != nil {
			return ch, err
		}
		ch.Config = &config
	}
	if given("grant") {
		names := splitNames(f.grants)
		ch.Grants = &names
	}
	if given("header") {
		names := splitNames(strings.ToLower(f.headers))
		ch.Headers = &names
	}
	if given("body") {
		ch.Body = &f.body
	}
	_, err := f.limits() // they are merged with those that stay
	return ch, err
}

// mergeLimits changes those limits that were given; they are stored as a whole.
func (f *attachmentFlags) mergeLimits(c *cobra.Command, now admin.PluginLimits) *admin.PluginLimits {
	given := c.Flags().Changed
	if given("fuel") {
		now.Fuel = f.fuel
	}
	if given("memory") {
		now.MemoryBytes = f.memory
	}
	if given("time") {
		now.TimeMS = f.time.Milliseconds()
	}
	return &now
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
		RunE: func(c *cobra.Command, args []string) error {
			id, err := attachmentArgument(args[0])
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			if err := client.Detach(c.Context(), id); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]int64{"detached": id})
			}
			remark(c, "Attachment %d is gone.", id)
			return nil
		},
	}
}

func pluginRollBack() *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "rollback ID [--why TEXT]",
		Short: "Put the version before in force again",
		Long:  "Put the version before in force where a plugin is attached, with the configuration that it had. It takes effect within a second.",
		Args:  arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := attachmentArgument(args[0])
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			a, err := client.RollBack(c.Context(), id, why)
			if err != nil {
				return err
			}
			return printAttachment(c, a)
		},
	}
	c.Flags().StringVar(&why, "why", "by hand", "the reason as `TEXT`, for whoever asks later")
	return c
}
