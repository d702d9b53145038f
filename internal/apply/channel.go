// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
)

type channel struct {
	Name        string   `yaml:"name"`
	Provider    string   `yaml:"provider"`
	BaseURL     string   `yaml:"base_url"`
	APIKey      string   `yaml:"api_key"` // env:NAME or @FILE; empty: none
	Models      []string `yaml:"models"`  // a, or a=upstream
	Priority    int      `yaml:"priority"`
	Weight      int      `yaml:"weight"`
	Tenant      string   `yaml:"tenant"`
	Groups      []string `yaml:"groups"`
	Disabled    bool     `yaml:"disabled"`
	BillPartial string   `yaml:"bill_partial"`

	credential  string
	fingerprint string
	models      []admin.Model
}

func (ch *channel) Ident() string { return ch.Name }

func (ch *channel) Resolve(env Environment) (err error) {
	if ch.Provider == "" {
		return errors.New("it needs a provider, such as openai")
	}
	if ch.BaseURL = cmp.Or(ch.BaseURL, admin.KnownBase(ch.Provider)); ch.BaseURL == "" {
		return errors.New("it needs a base_url, as SDKs take it, with the version")
	}
	ch.BaseURL = strings.TrimRight(ch.BaseURL, "/")
	ch.Weight, ch.BillPartial = cmp.Or(ch.Weight, 1), cmp.Or(ch.BillPartial, "estimate")
	for _, m := range ch.Models {
		name, upstream, renamed := strings.Cut(m, "=")
		if name == "" || renamed && upstream == "" {
			return fmt.Errorf("models: %q is not MODEL or MODEL=UPSTREAM", m)
		}
		ch.models = append(ch.models, admin.Model{Name: name, Upstream: upstream})
	}
	if len(ch.models) == 0 {
		return errors.New("it needs models")
	}
	if ch.APIKey != "" {
		if ch.credential, err = env.secret(ch.APIKey); err != nil {
			return fmt.Errorf("api_key: %w", err)
		}
		ch.fingerprint = admin.CredentialFingerprint(ch.credential)
	}
	return nil
}

func (ch *channel) Fields() []Field {
	var models []string
	for _, m := range ch.models {
		if m.Upstream != "" {
			m.Name += "=" + m.Upstream
		}
		models = append(models, m.Name)
	}
	return []Field{
		{"provider", ch.Provider},
		{"base_url", ch.BaseURL},
		{"api_key", ch.fingerprint},
		{"models", list(models)},
		{"priority", strconv.Itoa(ch.Priority)},
		{"weight", strconv.Itoa(ch.Weight)},
		{"tenant", ch.Tenant},
		{"groups", list(ch.Groups)},
		{"disabled", truth(ch.Disabled)},
		{"bill_partial", ch.BillPartial},
	}
}

// Put implements [Thing].
func (ch *channel) Put(ctx context.Context, c *admin.Client, there *Existing) error {
	if there != nil {
		return ch.change(ctx, c, there)
	}
	made, err := c.CreateChannel(ctx, admin.NewChannel{
		Name: ch.Name, Provider: ch.Provider, BaseURL: ch.BaseURL, Credential: ch.credential, Models: ch.models, Priority: ch.Priority, Weight: &ch.Weight,
		Tenant: ch.Tenant, BillPartial: ch.BillPartial, Groups: ch.Groups,
	})
	if err != nil || !ch.Disabled {
		return err
	}
	_, err = c.SetChannel(ctx, strconv.FormatInt(made.ID, 10), admin.ChannelChange{Disabled: &ch.Disabled})
	return err
}

func (ch *channel) change(ctx context.Context, c *admin.Client, there *Existing) error {
	groups := append([]string{}, ch.Groups...)
	change := admin.ChannelChange{
		Provider: &ch.Provider, BaseURL: &ch.BaseURL, Models: &ch.models, Priority: &ch.Priority, Weight: &ch.Weight, Disabled: &ch.Disabled,
		BillPartial: &ch.BillPartial, Groups: &groups, Tenant: admin.Null[string](),
	}
	if ch.Tenant != "" {
		change.Tenant = admin.To(ch.Tenant)
	}
	for _, f := range there.Fields {
		if f.Name == "api_key" && f.Value != ch.fingerprint {
			change.Credential = &ch.credential
		}
	}
	_, err := c.SetChannel(ctx, there.Ref, change)
	return err
}

func listChannels(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Channels(ctx)
	var out []Existing
	for _, is := range all {
		ref := strconv.FormatInt(is.ID, 10)
		as := channel{
			Name: is.Name, Provider: is.Provider, BaseURL: is.BaseURL, Priority: is.Priority, Weight: is.Weight, Groups: is.Groups, Disabled: is.Disabled,
			BillPartial: is.BillPartial, fingerprint: is.CredentialFingerprint, models: is.Models,
		}
		if is.Tenant != nil {
			as.Tenant = *is.Tenant
		}
		out = append(out, Existing{
			Ident: is.Name, Ref: ref, Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return c.DeleteChannel(ctx, ref) },
		})
	}
	return out, err
}
