// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// channelFlags are what both add and set take.
type channelFlags struct {
	provider, baseURL, apiKey, models, tenant, partial, groups string
	priority, weight                                           int
}

// register takes what weight is when the flag is not given; zero stands for nothing.
func (f *channelFlags) register(c *cobra.Command, weight int) {
	c.Flags().StringVar(&f.provider, "provider", "", "the `DIALECT` that it speaks: openai, azure, anthropic or fake")
	c.Flags().StringVar(&f.baseURL, "base-url", "", "the `URL` as SDKs take it, with the version: https://api.openai.com/v1")
	c.Flags().StringVar(&f.apiKey, "api-key", "", "the `CREDENTIAL`: KEY, @FILE, or env:NAME; only the last two are hidden from ps")
	c.Flags().StringVar(&f.models, "models", "", "`MODELS` that it serves, with the provider's name where that differs: a,b=upstream")
	c.Flags().IntVar(&f.priority, "priority", 0, "`N`: higher goes first")
	c.Flags().IntVar(&f.weight, "weight", weight, "`N`: share of the first attempts among channels of one priority")
	c.Flags().StringVar(&f.tenant, "tenant", "", "only this `TENANT` may use it (default: every tenant)")
	c.Flags().StringVar(&f.partial, "bill-partial", "", "bill `WHAT` of an answer without the provider's count: estimate (default), input or none")
	c.Flags().StringVar(&f.groups, "groups", "", "`GROUPS` that it belongs to: keys and tenants may be held to some")
}

// parseModels takes a,b=upstream apart.
func parseModels(s string) ([]admin.Model, error) {
	models := []admin.Model{}
	for _, item := range splitNames(s) {
		name, upstream, renamed := strings.Cut(item, "=")
		if name == "" || renamed && upstream == "" {
			return nil, wrongUsage("--models: %q is not MODEL or MODEL=UPSTREAM", item)
		}
		models = append(models, admin.Model{Name: name, Upstream: upstream})
	}
	if len(models) == 0 {
		return nil, wrongUsage("--models is needed: what the channel serves, as in gpt-4o,small=gpt-4o-mini")
	}
	return models, nil
}

// change makes a change of the flags that were given.
func (f *channelFlags) change(c *cobra.Command) (admin.ChannelChange, error) {
	var ch admin.ChannelChange
	if !anyChanged(c, "name", "provider", "base-url", "api-key", "models", "priority", "weight", "tenant", "bill-partial", "groups") {
		return ch, errNothingToSet
	}
	given := c.Flags().Changed
	if given("provider") {
		ch.Provider = &f.provider
	}
	if given("base-url") {
		ch.BaseURL = &f.baseURL
	}
	if given("api-key") {
		key, err := fromFile("api-key", f.apiKey)
		if err != nil {
			return ch, err
		}
		ch.Credential = &key
	}
	if given("models") {
		models, err := parseModels(f.models)
		if err != nil {
			return ch, err
		}
		ch.Models = &models
	}
	if given("priority") {
		ch.Priority = &f.priority
	}
	if given("weight") {
		ch.Weight = &f.weight
	}
	if given("bill-partial") {
		ch.BillPartial = &f.partial
	}
	if given("groups") {
		groups := splitNames(f.groups)
		ch.Groups = &groups
	}
	if given("tenant") {
		ch.Tenant = admin.Null[string]()
		if f.tenant != "" {
			ch.Tenant = admin.To(f.tenant)
		}
	}
	return ch, nil
}
