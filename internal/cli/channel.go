// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
)

func channelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "channel COMMAND",
		Short: "Accounts with providers, to which requests go",
		Long: `A channel is an account with a provider, and the models that can be had from it. A request goes to the channels that serve its
model: those of the highest priority first, among equals by weight, and on to the next when one does not answer.
CHANNEL is an id or a name.`,
	}
	c.AddCommand(channelAdd(), channelList(), channelShow(), channelSet(), channelEnable(true), channelEnable(false), channelTest(),
		channelDelete())
	return c
}

func channelState(ch admin.Channel) string {
	if ch.Disabled {
		return "disabled"
	}
	return "enabled"
}

func channelTenant(ch admin.Channel) string {
	if ch.Tenant == nil {
		return "all"
	}
	return *ch.Tenant
}

// channelBills says what is billed of an answer that the provider did not count.
func channelBills(ch admin.Channel) string {
	switch ch.BillPartial {
	case "input":
		return "what is counted; else the input, as estimated"
	case "none":
		return "what is counted; else nothing"
	}
	return "what is counted; else the estimate"
}

func modelNames(models []admin.Model) []string {
	names := make([]string, len(models))
	for i, m := range models {
		if names[i] = m.Name; m.Upstream != "" && m.Upstream != m.Name {
			names[i] += "=" + m.Upstream
		}
	}
	return names
}

func printChannel(c *cobra.Command, ch admin.Channel) error {
	return printThing(c, ch, []fact{
		{"id", count(ch.ID)},
		{"name", ch.Name},
		{"provider", ch.Provider},
		{"base url", ch.BaseURL},
		{"api key", map[bool]string{true: "set", false: "none"}[ch.HasCredential]},
		{"models", listed(modelNames(ch.Models), "")},
		{"priority", count(int64(ch.Priority))},
		{"weight", count(int64(ch.Weight))},
		{"tenant", channelTenant(ch)},
		{"bills", channelBills(ch)},
		{"groups", strings.Join(ch.Groups, ",")},
		{"state", channelState(ch)},
		{"created", timeAndAge(ch.Created)},
	})
}

func channelAdd() *cobra.Command {
	var f channelFlags
	c := &cobra.Command{
		Use:   "add NAME --provider PROVIDER --models A,B[=UPSTREAM] [--base-url URL] [--api-key KEY|@FILE|env:NAME]",
		Short: "Add a channel",
		Long: `Add a channel. It takes requests within a second. Its API key is encrypted with WEIR_SECRET_KEY before it is stored, and not
shown again. --base-url may be left out for openai and anthropic.

When the client leaves, the provider breaks off, or an answer comes without usage, there is no count of its tokens, and they are estimated.
--bill-partial says what of that is billed: all, the input alone, or nothing. What the provider counted is billed as counted.`,
		Example: `  weir channel add openai --provider openai --api-key env:OPENAI_API_KEY --models gpt-4o,gpt-4o-mini
  weir channel add azure-eu --provider azure --base-url https://acme.openai.azure.com/openai/v1 \
      --api-key @azure.key --models gpt-4o=acme-gpt4o --priority 10
  weir channel add vllm --provider openai --base-url http://10.0.0.5:8000/v1 --models llama-3`,
		Args: arguments("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			n := admin.NewChannel{Name: args[0], Provider: f.provider, BaseURL: f.baseURL, Priority: f.priority, Weight: &f.weight, Tenant: f.tenant, BillPartial: f.partial, Groups: splitNames(f.groups)}
			if n.Provider == "" {
				return wrongUsage("--provider is needed: openai, azure, anthropic or fake")
			}
			if !slices.Contains(store.Providers(), n.Provider) {
				return wrongUsage("--provider %q is none of %s; what speaks OpenAI's API is openai, with a --base-url", n.Provider, strings.Join(store.Providers(), ", "))
			}
			if n.BaseURL == "" {
				n.BaseURL = admin.KnownBase(n.Provider)
			}
			if n.BaseURL == "" {
				return wrongUsage("--base-url is needed: %s has no address that is the same for all", n.Provider)
			}
			var err error
			if n.Models, err = parseModels(f.models); err != nil {
				return err
			}
			if n.Credential, err = fromFile("api-key", f.apiKey); err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			ch, err := client.CreateChannel(c.Context(), n)
			if err != nil {
				return err
			}
			if err := printChannel(c, ch); err != nil {
				return err
			}
			remark(c, "\nSee whether it works: weir channel test %s", ch.Name)
			return nil
		},
	}
	f.register(c, 1)
	return c
}

func channelList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the channels",
		Long:  "List the channels, oldest first.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Channels(c.Context())
			if err != nil {
				return err
			}
			return printList(c, all, "There is no channel yet. Add one: weir channel add NAME --provider openai --api-key @FILE --models gpt-4o",
				[]string{"ID", "NAME", "PROVIDER", "BASE URL", "MODELS", "PRIORITY", "WEIGHT", "TENANT", "STATE", "CREATED"},
				func(ch admin.Channel) []string {
					return []string{
						count(ch.ID), ch.Name, ch.Provider, ch.BaseURL, listed(few(modelNames(ch.Models)), ""), count(int64(ch.Priority)),
						count(int64(ch.Weight)), channelTenant(ch), channelState(ch), age(ch.Created),
					}
				})
		},
	}
}

func channelShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show CHANNEL",
		Short: "Show a channel, but not its API key",
		Long:  "Show a channel, but not its API key.",
		Args:  arguments("CHANNEL"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			ch, err := client.Channel(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printChannel(c, ch)
		},
	}
}

func channelSet() *cobra.Command {
	var f channelFlags
	var name string
	c := &cobra.Command{
		Use:   "set CHANNEL [--FLAG VALUE]...",
		Short: "Change a channel",
		Long: `Change a channel. Only what a flag names is changed; --models replaces all of them. It takes effect within a second, and streams
in flight go on undisturbed.`,
		Example: `  weir channel set openai --api-key @new.key
  weir channel set openai --tenant ''      # every tenant may use it`,
		Args: arguments("CHANNEL"),
		RunE: func(c *cobra.Command, args []string) error {
			ch, err := f.change(c)
			if err != nil {
				return err
			}
			if c.Flags().Changed("name") {
				ch.Name = &name
			}
			return setChannel(c, args[0], ch)
		},
	}
	c.Flags().StringVar(&name, "name", "", "give it another `NAME`")
	f.register(c, 0)
	return c
}

func setChannel(c *cobra.Command, ref string, change admin.ChannelChange) error {
	client, err := connect(c)
	if err != nil {
		return err
	}
	ch, err := client.SetChannel(c.Context(), ref, change)
	if err != nil {
		return err
	}
	return printChannel(c, ch)
}

func channelEnable(enable bool) *cobra.Command {
	c := &cobra.Command{
		Use:   "disable CHANNEL",
		Short: "Send no more requests to a channel",
		Long:  "Send no more requests to a channel, until it is enabled again. Streams in flight go on.",
		Args:  arguments("CHANNEL"),
	}
	if enable {
		c.Use = "enable CHANNEL"
		c.Short = "Send requests to a channel again"
		c.Long = "Send requests to a channel that was disabled."
	}
	disabled := !enable
	c.RunE = func(c *cobra.Command, args []string) error {
		return setChannel(c, args[0], admin.ChannelChange{Disabled: &disabled})
	}
	return c
}

func channelTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test CHANNEL",
		Short: "Ask a channel's provider whether it works",
		Long: `Have Weir ask the channel's provider for its list of models, with the channel's API key. This costs nothing. The exit status is 1
when the provider does not answer as it should.`,
		Args: arguments("CHANNEL"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			t, err := client.TestChannel(c.Context(), args[0])
			if err != nil {
				return err
			}
			facts := []fact{{"url", t.URL}}
			if t.Status != 0 {
				facts = append(facts, fact{"status", count(int64(t.Status))})
			}
			facts = append(facts, fact{"latency", count(t.LatencyMS) + " ms"}, fact{"result", t.Detail})
			if len(t.MissingModels) > 0 {
				facts = append(facts, fact{"not listed", strings.Join(t.MissingModels, ",")})
			}
			if err := printThing(c, t, facts); err != nil {
				return err
			}
			if t.Hint != "" {
				remark(c, "hint: %s", t.Hint)
			}
			if !t.OK {
				return errSilent
			}
			return nil
		},
	}
}

func channelDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete CHANNEL",
		Short: "Delete a channel",
		Long:  "Delete a channel and its API key. Streams in flight go on, and its usage stays. To stop it for a while: weir channel disable",
		Args:  arguments("CHANNEL"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			// Not looked up before: a channel whose credential cannot be read any more must still be deletable.
			if err := client.DeleteChannel(c.Context(), args[0]); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]string{"deleted": args[0]})
			}
			remark(c, "Channel %s is deleted.", args[0])
			return nil
		},
	}
}
