// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"strconv"

	"github.com/weir-proxy/weir/internal/admin"
)

// limit is known by what it is for: there is one at most for each.
type limit struct {
	Tenant   string `yaml:"tenant"` // with neither this nor a key: of all
	Key      string `yaml:"key"`    // of the tenant, or of "default"
	EachKey  bool   `yaml:"each_key"`
	Model    string `yaml:"model"` // "*" when empty
	Requests int64  `yaml:"requests_per_minute"`
	Input    int64  `yaml:"input_tokens_per_minute"`
	Output   int64  `yaml:"output_tokens_per_minute"`
	Total    int64  `yaml:"tokens_per_minute"`

	Concurrency  int64   `yaml:"concurrency"`
	BurstSeconds float64 `yaml:"burst_seconds"`
}

// defaultBurst is what the API says of a limit without a burst of its own.
const defaultBurst = 10

// keyRef returns the key as the API takes it, if there is one.
func (l *limit) keyRef() string {
	if l.Key == "" {
		return ""
	}
	return cmp.Or(l.Tenant, defaultTenant) + "/" + l.Key
}

// Ident implements [Thing].
func (l *limit) Ident() string {
	scope := "of all"
	switch {
	case l.Key != "":
		scope = "of the key " + l.keyRef()
	case l.Tenant != "":
		scope = "of the tenant " + l.Tenant
	}
	if l.EachKey {
		scope += ", for each key"
	}
	return scope + ", for " + cmp.Or(l.Model, "*")
}

// rates are those that a file has; zero stands for none.
func (l *limit) rates() []int64 {
	return []int64{l.Requests, l.Input, l.Output, l.Total, l.Concurrency}
}

// Resolve implements [Thing].
func (l *limit) Resolve(Environment) error {
	var sum int64
	for _, n := range l.rates() {
		if n < 0 {
			return errors.New("a limit is not below zero; leave it out for none")
		}
		sum |= n
	}
	if sum == 0 {
		return errors.New("it limits nothing: it needs requests_per_minute, tokens_per_minute, concurrency or the like")
	}
	l.Model, l.BurstSeconds = cmp.Or(l.Model, "*"), cmp.Or(l.BurstSeconds, defaultBurst)
	set := l.wanted()
	return set.Check()
}

// wanted is the limit as it is set.
func (l *limit) wanted() admin.SetLimit {
	set := admin.SetLimit{Tenant: l.Tenant, Key: l.keyRef(), EachKey: l.EachKey, Model: l.Model}
	if l.Key != "" {
		set.Tenant = ""
	}
	for i, to := range []*admin.Nullable[int64]{&set.Requests, &set.Input, &set.Output, &set.Total, &set.Concurrency} {
		if *to = admin.Null[int64](); l.rates()[i] != 0 {
			*to = admin.To(l.rates()[i])
		}
	}
	set.BurstSeconds = admin.To(l.BurstSeconds)
	return set
}

// Fields implements [Thing].
func (l *limit) Fields() []Field {
	names := []string{"requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute", "concurrency"}
	var all []Field
	for i, n := range l.rates() {
		f := Field{Name: names[i]}
		if n != 0 {
			f.Value = strconv.FormatInt(n, 10)
		}
		all = append(all, f)
	}
	return append(all, Field{"burst_seconds", strconv.FormatFloat(l.BurstSeconds, 'f', -1, 64)})
}

// Put implements [Thing].
func (l *limit) Put(ctx context.Context, c *admin.Client, _ *Existing) error {
	_, err := c.SetLimit(ctx, l.wanted())
	return err
}

func listLimits(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Limits(ctx, "", "")
	var out []Existing
	for _, is := range all {
		as := limit{EachKey: is.EachKey, Model: is.Model, BurstSeconds: is.BurstSeconds}
		if is.Tenant != nil {
			as.Tenant = *is.Tenant
		}
		if is.Key != nil {
			as.Key = *is.Key
		}
		for i, to := range []*int64{&as.Requests, &as.Input, &as.Output, &as.Total, &as.Concurrency} {
			if n := []*int64{is.Requests, is.Input, is.Output, is.Total, is.Concurrency}[i]; n != nil {
				*to = *n
			}
		}
		out = append(out, Existing{
			Ident: as.Ident(), Ref: strconv.FormatInt(is.ID, 10), Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return c.DeleteLimit(ctx, is.ID) },
		})
	}
	return out, err
}
