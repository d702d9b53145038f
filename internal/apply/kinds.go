// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
)

// Kinds returns all kinds, in the order in which they are made. A new kind has a line here.
func Kinds() []Kind {
	return []Kind{
		{"tenants", "tenant", func() Thing { return &tenant{} }, listTenants},
		{"channels", "channel", func() Thing { return &channel{} }, listChannels},
		{"keys", "key", func() Thing { return &key{} }, listKeys},
		{"limits", "limit", func() Thing { return &limit{} }, listLimits},
		{"budgets", "budget", func() Thing { return &budget{} }, listBudgets},
		{"prices", "price", func() Thing { return &price{} }, listPrices},
		{"plugins", "plugin", func() Thing { return &plugin{} }, listPlugins},
		{"attachments", "attachment", func() Thing { return &attachment{} }, listAttachments},
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
	Parent   string   `yaml:"parent"` // declared before it, or there already
	TimeZone string   `yaml:"time_zone"`
}

func (t *tenant) Ident() string { return t.Name }

func (t *tenant) Resolve(Environment) error {
	t.TimeZone = cmp.Or(t.TimeZone, "UTC")
	return admin.CheckTenant(t.Name, t.Groups, t.TimeZone)
}

func (t *tenant) Fields() []Field {
	return []Field{{"disabled", truth(t.Disabled)}, {"groups", list(t.Groups)}, {"parent", t.Parent}, {"time_zone", t.TimeZone}}
}

func (t *tenant) wanted() admin.TenantChange {
	groups := append([]string{}, t.Groups...)
	parent := admin.Null[string]()
	if t.Parent != "" {
		parent = admin.To(t.Parent)
	}
	return admin.TenantChange{Disabled: &t.Disabled, Groups: &groups, Parent: parent, TimeZone: &t.TimeZone}
}

// Put implements [Thing].
func (t *tenant) Put(ctx context.Context, c *admin.Client, there *Existing) error {
	if there != nil {
		return t.change(ctx, c, there)
	}
	made, err := c.CreateTenant(ctx, admin.NewTenant{Name: t.Name})
	if err != nil {
		return err
	}
	_, err = c.SetTenant(ctx, strconv.FormatInt(made.ID, 10), t.wanted())
	return err
}

func (t *tenant) change(ctx context.Context, c *admin.Client, there *Existing) error {
	_, err := c.SetTenant(ctx, there.Ref, t.wanted())
	return err
}

func listTenants(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Tenants(ctx)
	var out []Existing
	for _, t := range all {
		ref := strconv.FormatInt(t.ID, 10)
		as := tenant{Name: t.Name, Disabled: t.Disabled, Groups: t.Groups, TimeZone: t.TimeZone}
		if t.Parent != nil {
			as.Parent = *t.Parent
		}
		out = append(out, Existing{
			Ident: t.Name, Ref: ref, Fields: as.Fields(), Keep: t.Name == defaultTenant,
			Delete: func(ctx context.Context) error { return c.DeleteTenant(ctx, ref) },
		})
	}
	return out, err
}
