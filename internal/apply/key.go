// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
)

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
		if a, err := netip.ParseAddr(n); err == nil && a.Zone() == "" {
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
	n := k.wanted()
	return n.Check(time.Now())
}

// wanted is the key as it is made.
func (k *key) wanted() admin.NewKey {
	return admin.NewKey{
		Tenant: k.Tenant, Name: k.Name, Models: k.Models, Groups: k.Groups, Networks: k.AllowIP, Tags: k.Tags, Metadata: k.Metadata,
		Pinnable: k.Pinnable, Expires: k.expires, Hash: k.Hash, Hint: k.hint,
	}
}

func (k *key) Fields() []Field {
	expires := ""
	if k.expires != nil {
		expires = k.expires.Format(time.RFC3339)
	}
	return []Field{
		{"secret", admin.FingerprintOf(k.Hash)},
		{"models", list(k.Models)},
		{"groups", list(k.Groups)},
		{"allow_ip", list(k.AllowIP)},
		{"tags", texts(k.Tags)},
		{"metadata", texts(k.Metadata)},
		{"pinnable", truth(k.Pinnable)},
		{"disabled", truth(k.Disabled)},
		{"expires", expires},
	}
}

// Put implements [Thing].
func (k *key) Put(ctx context.Context, c *admin.Client, there *Existing) error {
	if there != nil {
		return k.change(ctx, c, there)
	}
	made, err := c.CreateKey(ctx, k.wanted())
	if err != nil || !k.Disabled {
		return err
	}
	_, err = c.SetKey(ctx, strconv.FormatInt(made.ID, 10), admin.KeyChange{Disabled: &k.Disabled})
	return err
}

func (k *key) change(ctx context.Context, c *admin.Client, there *Existing) error {
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
