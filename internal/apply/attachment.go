// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
)

// attachment is known by its plugin and by whose exchanges it judges: in files, a plugin is attached to one tenant, key or all once.
type attachment struct {
	Plugin  string `yaml:"plugin"`
	Tenant  string `yaml:"tenant"`  // with neither this nor a key: all exchanges
	Key     string `yaml:"key"`     // of the tenant, or of "default"
	Version string `yaml:"version"` // its digest; none: that of the plugin in the files, else the one that is there, or the latest
	Place   int    `yaml:"place"`
	Mode    string `yaml:"mode"`   // closed, open or shadow
	Config  any    `yaml:"config"` // a mapping or a list, which becomes JSON; a text as it is, or @FILE

	Rights   `yaml:",inline"`
	Bounds   `yaml:",inline"`
	Disabled bool `yaml:"disabled"`

	config  string
	time    time.Duration
	digests digests
}

// Rights are what a plugin may see and use where it is attached.
type Rights struct {
	Grants      []string   `yaml:"grants"`
	Headers     []string   `yaml:"headers"`
	Body        bool       `yaml:"body"`
	RequestOnly bool       `yaml:"request_only"`
	Upstreams   []Upstream `yaml:"upstreams"`
}

// Upstream is a server that a plugin may call.
type Upstream struct {
	Name    string `yaml:"name"`
	URL     string `yaml:"url"`
	Private bool   `yaml:"private"` // it may be at a private or local address
}

// Bounds are what a plugin may use of the machine in each call; zero: the default.
type Bounds struct {
	Fuel        int64  `yaml:"fuel"`
	MemoryBytes int64  `yaml:"memory_bytes"`
	Time        string `yaml:"time"` // 20ms
}

// keyRef returns the key as the API takes it, if there is one.
func (a *attachment) keyRef() string {
	if a.Key == "" {
		return ""
	}
	return cmp.Or(a.Tenant, defaultTenant) + "/" + a.Key
}

// Ident implements [Thing].
func (a *attachment) Ident() string {
	switch {
	case a.Plugin == "":
		return "of nothing"
	case a.Key != "":
		return a.Plugin + ", for the key " + a.keyRef()
	case a.Tenant != "":
		return a.Plugin + ", for the tenant " + a.Tenant
	}
	return a.Plugin + ", for all"
}

// Resolve implements [Thing].
func (a *attachment) Resolve(env Environment) (err error) {
	if a.Plugin == "" {
		return errors.New("it needs a plugin, by its name")
	}
	a.Mode, a.digests = cmp.Or(a.Mode, "closed"), env.digests
	if a.Version != "" && !isDigest(a.Version) {
		return errors.New("version: it is the whole digest that weir plugin show --json has, 64 hexadecimal digits")
	}
	if a.Time != "" {
		if a.time, err = time.ParseDuration(a.Time); err != nil || a.time%time.Millisecond != 0 || a.time < 0 {
			return fmt.Errorf("time: %q is not a time in whole milliseconds, as in 20ms", a.Time)
		}
	}
	for i, h := range a.Headers {
		a.Headers[i] = strings.ToLower(h)
	}
	for _, u := range a.Upstreams {
		if u.Name == "" || u.URL == "" {
			return errors.New("upstreams: each needs a name and a url")
		}
	}
	a.config, err = configText(a.Config, env)
	return err
}

// configText is a configuration as the plugin gets it.
func configText(v any, env Environment) (string, error) {
	text, isText := v.(string)
	switch {
	case v == nil:
		return "", nil
	case !isText:
		b, err := json.Marshal(v)
		if err != nil {
			return "", fmt.Errorf("config: it cannot be written as JSON: %w", err)
		}
		return string(b), nil
	}
	path, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		return text, nil
	}
	b, err := env.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("config: %w", err)
	}
	return string(b), nil
}

// canonical writes a JSON object or list in one way; any other text stays as it is.
func canonical(config string) string {
	t := strings.TrimSpace(config)
	if !strings.HasPrefix(t, "{") && !strings.HasPrefix(t, "[") {
		return config
	}
	d := json.NewDecoder(strings.NewReader(t))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return config
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return config
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// version is the one that is meant; empty: whichever.
func (a *attachment) version() string { return cmp.Or(a.Version, a.digests[a.Plugin]) }

// Fields implements [Thing].
func (a *attachment) Fields() []Field {
	var upstreams []string
	for _, u := range a.Upstreams {
		text := u.Name + "=" + u.URL
		if u.Private {
			text += " (private)"
		}
		upstreams = append(upstreams, text)
	}
	limit := ""
	if a.time != 0 {
		limit = a.time.String()
	}
	fields := []Field{
		{"place", strconv.Itoa(a.Place)},
		{"mode", a.Mode},
		{"config", canonical(a.config)},
		{"grants", list(sorted(a.Grants))},
		{"headers", list(sorted(a.Headers))},
		{"body", truth(a.Body)},
		{"request_only", truth(a.RequestOnly)},
		{"upstreams", list(sorted(upstreams))},
		{"fuel", orNone(a.Fuel)},
		{"memory_bytes", orNone(a.MemoryBytes)},
		{"time", limit},
		{"disabled", truth(a.Disabled)},
	}
	if v := a.version(); v != "" { // else what is there may stay
		fields = slices.Insert(fields, 0, Field{"version", v})
	}
	return fields
}

func sorted(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

// orNone shows a bound; zero is the default.
func orNone(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// Put implements [Thing].
func (a *attachment) Put(ctx context.Context, c *admin.Client, there *Existing) error {
	upstreams := []admin.PluginUpstream{}
	for _, u := range a.Upstreams {
		upstreams = append(upstreams, admin.PluginUpstream(u))
	}
	limits := admin.PluginLimits{Fuel: a.Fuel, MemoryBytes: a.MemoryBytes, TimeMS: a.time.Milliseconds()}
	grants, headers, config := sorted(a.Grants), sorted(a.Headers), admin.PluginConfig(a.config)
	if there == nil {
		n := admin.NewAttachment{
			Plugin: a.Plugin, Version: a.version(), Tenant: a.Tenant, Key: a.keyRef(), Place: a.Place, Mode: a.Mode, Config: config, Grants: grants,
			Headers: headers, Body: a.Body, Limits: limits, Disabled: a.Disabled, Upstreams: upstreams, RequestOnly: a.RequestOnly,
		}
		if a.Key != "" {
			n.Tenant = ""
		}
		_, err := c.Attach(ctx, n)
		return err
	}
	id, err := strconv.ParseInt(there.Ref, 10, 64)
	if err != nil {
		return fmt.Errorf("attachment %s: %w", there.Ref, err)
	}
	grants, headers = append([]string{}, grants...), append([]string{}, headers...) // none of them is not the same as nothing said
	change := admin.AttachmentChange{
		Place: &a.Place, Mode: &a.Mode, Config: &config, Grants: &grants, Headers: &headers, Body: &a.Body, Limits: &limits, Disabled: &a.Disabled,
		Upstreams: &upstreams, RequestOnly: &a.RequestOnly,
	}
	if v := a.version(); v != "" {
		change.Version = &v
	}
	_, err = c.SetAttachment(ctx, id, change)
	return err
}

// listAttachments returns what is attached. Of several for the same exchanges the first is known by them, and the others also by their number.
func listAttachments(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Attachments(ctx, "")
	seen := map[string]bool{}
	var out []Existing
	for _, is := range all {
		as := existingAttachment(&is)
		ref, ident := strconv.FormatInt(is.ID, 10), as.Ident()
		if seen[ident] {
			ident += " (" + ref + ")"
		}
		seen[ident] = true
		out = append(out, Existing{
			Ident: ident, Ref: ref, Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return c.Detach(ctx, is.ID) },
		})
	}
	return out, err
}

func existingAttachment(is *admin.Attachment) *attachment {
	as := &attachment{
		Plugin: is.Plugin, Version: is.Digest, Place: is.Place, Mode: is.Mode, Disabled: is.Disabled, config: string(is.Config),
		Rights: Rights{Grants: is.Grants, Headers: is.Headers, Body: is.Body, RequestOnly: is.RequestOnly},
		Bounds: Bounds{Fuel: is.Limits.Fuel, MemoryBytes: is.Limits.MemoryBytes}, time: time.Duration(is.Limits.TimeMS) * time.Millisecond,
	}
	for _, u := range is.Upstreams {
		as.Upstreams = append(as.Upstreams, Upstream(u))
	}
	if is.Tenant != nil {
		as.Tenant = *is.Tenant
	}
	if is.Key != nil {
		as.Key = *is.Key
	}
	return as
}
