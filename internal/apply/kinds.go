// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
)

// Kinds returns all kinds, in the order in which they are made. A new kind has a line here.
func Kinds() []Kind {
	return []Kind{
		{"tenants", "tenant", func() Thing { return &tenant{} }, listTenants},
		{"channels", "channel", func() Thing { return &channel{} }, listChannels},
		{"keys", "key", func() Thing { return &key{} }, listKeys},
	}
}

// defaultTenant owns keys that name none.
const defaultTenant = "default"

func list(names []string) string { return strings.Join(names, ", ") }

func truth(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func texts(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+"="+m[name])
	}
	return list(all)
}

// secret reads what a file refers to: "env:NAME" or "@FILE".
func (e Environment) secret(ref string) (string, error) {
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		v, set := e.Lookup(name)
		if !set || v == "" {
			return "", fmt.Errorf("the environment variable %q is not set", name)
		}
		return v, nil
	}
	path, ok := strings.CutPrefix(ref, "@")
	if !ok {
		return "", errors.New("a secret does not stand in the file itself: write env:NAME or @FILE")
	}
	b, err := e.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", fmt.Errorf("the file %s is empty", path)
	}
	return v, nil
}

type tenant struct {
	Name     string   `yaml:"name"`
	Disabled bool     `yaml:"disabled"`
	Groups   []string `yaml:"groups"`
}

func (t *tenant) Ident() string             { return t.Name }
func (t *tenant) Resolve(Environment) error { return nil }

func (t *tenant) Fields() []Field {
	return []Field{{"disabled", truth(t.Disabled)}, {"groups", list(t.Groups)}}
}

func (t *tenant) change() admin.TenantChange {
	groups := append([]string{}, t.Groups...)
	return admin.TenantChange{Disabled: &t.Disabled, Groups: &groups}
}

func (t *tenant) Create(ctx context.Context, c *admin.Client) error {
	made, err := c.CreateTenant(ctx, admin.NewTenant{Name: t.Name})
	if err != nil || !t.Disabled && len(t.Groups) == 0 {
		return err
	}
	_, err = c.SetTenant(ctx, strconv.FormatInt(made.ID, 10), t.change())
	return err
}

func (t *tenant) Change(ctx context.Context, c *admin.Client, there Existing) error {
	_, err := c.SetTenant(ctx, there.Ref, t.change())
	return err
}

func listTenants(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Tenants(ctx)
	var out []Existing
	for _, t := range all {
		ref := strconv.FormatInt(t.ID, 10)
		as := tenant{Name: t.Name, Disabled: t.Disabled, Groups: t.Groups}
		out = append(out, Existing{
			Ident: t.Name, Ref: ref, Fields: as.Fields(), Keep: t.Name == defaultTenant,
			Delete: func(ctx context.Context) error { return c.DeleteTenant(ctx, ref) },
		})
	}
	return out, err
}

type key struct {
	Name     string            `yaml:"name"`
	Tenant   string            `yaml:"tenant"`
	Hash     string            `yaml:"hash"`   // sha256:…
	Secret   string            `yaml:"secret"` // env:NAME or @FILE
	Models   []string          `yaml:"models"`
	Groups   []string          `yaml:"groups"`
	AllowIP  []string          `yaml:"allow_ip"`
	Tags     map[string]string `yaml:"tags"`
	Metadata map[string]string `yaml:"metadata"`
	Pinnable bool              `yaml:"pinnable"`
	Disabled bool              `yaml:"disabled"`
	Expires  string            `yaml:"expires"`

	hint    string
	expires *time.Time
}

func (k *key) Ident() string {
	if k.Name == "" {
		return ""
	}
	return cmp.Or(k.Tenant, defaultTenant) + "/" + k.Name
}

func (k *key) Resolve(env Environment) error {
	k.Tenant = cmp.Or(k.Tenant, defaultTenant)
	switch {
	case (k.Hash == "") == (k.Secret == ""):
		return errors.New("it needs a hash (sha256:…) or a secret (env:NAME or @FILE), and not both")
	case k.Secret != "":
		secret, err := env.secret(k.Secret)
		if err != nil {
			return err
		}
		const shortest = 8
		if len(secret) < shortest {
			return fmt.Errorf("its secret has fewer than %d characters", shortest)
		}
		k.Hash = admin.HashOf(secret)
	}
	for i, n := range k.AllowIP { // as the API writes them
		if a, err := netip.ParseAddr(n); err == nil {
			k.AllowIP[i] = netip.PrefixFrom(a, a.BitLen()).String()
		} else if _, err := netip.ParsePrefix(n); err != nil {
			return fmt.Errorf("allow_ip: %q is not as in 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", n)
		}
	}
	k.Hash = strings.ToLower(k.Hash)
	k.hint = "sha256:" + admin.FingerprintOf(k.Hash)
	if k.Expires != "" {
		t, err := time.Parse(time.RFC3339, k.Expires)
		if err != nil {
			return fmt.Errorf("expires: %q is not a time as in 2027-01-01T00:00:00Z", k.Expires)
		}
		t = t.UTC()
		k.expires = &t
	}
	return nil
}

func (k *key) Fields() []Field {
	expires := ""
	if k.expires != nil {
		expires = k.expires.Format(time.RFC3339)
	}
	return []Field{
		{"secret", admin.FingerprintOf(k.Hash)}, {"models", list(k.Models)}, {"groups", list(k.Groups)}, {"allow_ip", list(k.AllowIP)},
		{"tags", texts(k.Tags)}, {"metadata", texts(k.Metadata)}, {"pinnable", truth(k.Pinnable)}, {"disabled", truth(k.Disabled)}, {"expires", expires},
	}
}

func (k *key) Create(ctx context.Context, c *admin.Client) error {
	made, err := c.CreateKey(ctx, admin.NewKey{
		Tenant: k.Tenant, Name: k.Name, Models: k.Models, Groups: k.Groups, Networks: k.AllowIP, Tags: k.Tags, Metadata: k.Metadata,
		Pinnable: k.Pinnable, Expires: k.expires, Hash: k.Hash, Hint: k.hint,
	})
	if err != nil || !k.Disabled {
		return err
	}
	_, err = c.SetKey(ctx, strconv.FormatInt(made.ID, 10), admin.KeyChange{Disabled: &k.Disabled})
	return err
}

func (k *key) Change(ctx context.Context, c *admin.Client, there Existing) error {
	models, groups, networks := append([]string{}, k.Models...), append([]string{}, k.Groups...), append([]string{}, k.AllowIP...)
	tags, metadata := maps.Clone(k.Tags), maps.Clone(k.Metadata)
	for _, m := range []*map[string]string{&tags, &metadata} {
		if *m == nil {
			*m = map[string]string{}
		}
	}
	ch := admin.KeyChange{Models: &models, Groups: &groups, Networks: &networks, Tags: &tags, Metadata: &metadata, Pinnable: &k.Pinnable, Disabled: &k.Disabled}
	for _, f := range there.Fields {
		if f.Name == "secret" && f.Value != admin.FingerprintOf(k.Hash) {
			ch.Hash, ch.Hint = &k.Hash, &k.hint
		}
		if f.Name == "expires" && (k.expires == nil || f.Value != k.expires.Format(time.RFC3339)) {
			ch.Expires = admin.Nullable[time.Time]{Present: true, Value: k.expires}
		}
	}
	_, err := c.SetKey(ctx, there.Ref, ch)
	return err
}

func listKeys(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Keys(ctx, "")
	var out []Existing
	for _, k := range all {
		if k.Revoked {
			continue // its name is free again
		}
		ref := strconv.FormatInt(k.ID, 10)
		as := key{
			Name: k.Name, Tenant: k.Tenant, Hash: k.Fingerprint, Models: k.Models, Groups: k.Groups, AllowIP: k.Networks, Tags: k.Tags, Metadata: k.Metadata,
			Pinnable: k.Pinnable, Disabled: k.Disabled,
		}
		if k.Expires != nil {
			t := k.Expires.UTC()
			as.expires = &t
		}
		out = append(out, Existing{
			Ident: as.Ident(), Ref: ref, Fields: as.Fields(),
			Delete: func(ctx context.Context) error { _, err := c.RevokeKey(ctx, ref); return err },
		})
	}
	return out, err
}

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
		{"provider", ch.Provider}, {"base_url", ch.BaseURL}, {"api_key", ch.fingerprint}, {"models", list(models)}, {"priority", strconv.Itoa(ch.Priority)},
		{"weight", strconv.Itoa(ch.Weight)}, {"tenant", ch.Tenant}, {"groups", list(ch.Groups)}, {"disabled", truth(ch.Disabled)}, {"bill_partial", ch.BillPartial},
	}
}

func (ch *channel) Create(ctx context.Context, c *admin.Client) error {
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

func (ch *channel) Change(ctx context.Context, c *admin.Client, there Existing) error {
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
