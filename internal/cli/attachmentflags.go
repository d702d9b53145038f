// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// attachmentFlags are what both attach and set take.
type attachmentFlags struct {
	version, mode, config, grants, headers string
	place                                  int
	body, requestOnly                      bool
	upstreams, private                     []string
	fuel, memory                           int64
	time                                   time.Duration
}

// register takes what the mode is when the flag is not given.
func (f *attachmentFlags) register(c *cobra.Command, mode string) {
	c.Flags().StringVar(&f.version, "version", "", "the `VERSION`, by the first digits of its digest (default: the one that was pushed last)")
	c.Flags().IntVar(&f.place, "place", 0, "`N`: among those for the same tenant, key or all, lower goes first")
	c.Flags().StringVar(&f.mode, "mode", mode, "`MODE`: if it fails, closed denies and open goes on; shadow only counts")
	c.Flags().StringVar(&f.config, "config", "", "the `CONFIGURATION`, usually JSON, or @FILE")
	c.Flags().StringVar(&f.grants, "grant", "", "`CAPABILITIES` that it may use: log,clock,regexp,pii,json,counters,tokens")
	c.Flags().StringVar(&f.headers, "header", "", "`HEADERS` that it is shown, of those in plugins.headers of weir.yaml")
	c.Flags().BoolVar(&f.body, "body", false, "show it the body of requests, as it came")
	c.Flags().BoolVar(&f.requestOnly, "request-only", false, "do not show it responses, even if it has hooks for them")
	c.Flags().StringArrayVar(&f.upstreams, "upstream", nil, "`NAME=URL` of a server that it may call (proxy-wasm); may be given again")
	c.Flags().StringArrayVar(&f.private, "private-upstream", nil, "`NAME=URL`: the same, and it may be at a private or local address")
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

// servers reads the upstreams. One empty one stands for none.
func (f *attachmentFlags) servers() ([]admin.PluginUpstream, error) {
	out := []admin.PluginUpstream{}
	for _, flag := range []struct {
		name    string
		values  []string
		private bool
	}{{"upstream", f.upstreams, false}, {"private-upstream", f.private, true}} {
		for _, v := range flag.values {
			if v == "" {
				continue
			}
			i := strings.LastIndex(v, "=http") // a name may have = in it
			if i <= 0 {
				return nil, wrongUsage("--%s: %q is not NAME=URL, as in moderation=https://moderation.example.com", flag.name, v)
			}
			out = append(out, admin.PluginUpstream{Name: v[:i], URL: v[i+1:], Private: flag.private})
		}
	}
	return out, nil
}

func upstreamNames(list []admin.PluginUpstream) []string {
	var out []string
	for _, u := range list {
		text := u.Name + "=" + u.URL
		if u.Private {
			text += " (private)"
		}
		out = append(out, text)
	}
	return out
}

func (f *attachmentFlags) limits() (admin.PluginLimits, error) {
	if f.time%time.Millisecond != 0 {
		return admin.PluginLimits{}, wrongUsage("--time: %v is not in whole milliseconds", f.time)
	}
	return admin.PluginLimits{Fuel: f.fuel, MemoryBytes: f.memory, TimeMS: f.time.Milliseconds()}, nil
}

// change makes a change of the flags that were given.
func (f *attachmentFlags) change(c *cobra.Command) (admin.AttachmentChange, error) {
	var ch admin.AttachmentChange
	given := c.Flags().Changed
	if !anyChanged(c, "version", "place", "mode", "config", "grant", "header", "body", "upstream", "private-upstream", "request-only", "fuel", "memory", "time", "disabled") {
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
	if given("request-only") {
		ch.RequestOnly = &f.requestOnly
	}
	if given("upstream") || given("private-upstream") {
		list, err := f.servers()
		if err != nil {
			return ch, err
		}
		ch.Upstreams = &list
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
