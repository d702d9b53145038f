// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// Plugin is what a chain needs of a [host.Plugin].
type Plugin interface {
	Request(context.Context, *abi.Exchange, host.Mode) host.Result
	Event(context.Context, *abi.Event, host.Mode) host.Result
	About() host.About
}

// Filter is what a chain needs of a [proxywasm.Plugin].
type Filter interface {
	About() host.About
	Judge(proxywasm.Place) policy.Judge
}

var (
	_ Plugin = (*host.Plugin)(nil)
	_ Filter = (*proxywasm.Plugin)(nil)
)

// Link is a plugin in a place. It has either a Plugin, which speaks weir/1, or a Filter, which speaks proxy-wasm, or a Denial.
type Link struct {
	ID      int64  // of the attachment
	Name    string // of the plugin
	Plugin  Plugin
	Filter  Filter
	Mode    host.Mode
	Tenant  policy.TenantID // whose exchanges it judges; zero: everybody's
	Key     policy.KeyID    // the same; zero: of all keys
	Place   int             // among the links of one scope; equal ones go by ID
	Headers []string        // that it is shown
	Body    bool            // it is shown the body too; a Filter always is

	RequestOnly bool // it is not shown responses

	Denial *policy.Denial // if not nil, there is no plugin yet, and each exchange is refused so
}

// Options are what a [Table] needs from outside.
type Options struct {
	Metrics *Metrics                                                   // nil: nothing is counted
	Count   func(op policy.Operation, model string, body []byte) int64 // estimates the tokens of a request, when a plugin asks; nil: it is told 0
	Budget  func(policy.TenantID, policy.KeyID) (int64, bool)          // nano-dollars left to a key; nil: plugins are told nothing
	Hold    int                                                        // bytes of a response that are held for plugins at most; 0: [answer.DefaultLimit]
	Logger  *slog.Logger                                               // for responses that cannot be judged; nil: nothing is logged
}

// Table has the links of all. It is immutable.
type Table struct {
	options Options
	global  []*step
	tenants map[policy.TenantID][]*step
	keys    map[policy.KeyID][]*step
}

// step is a link with what is known of its plugin.
type step struct {
	Link
	request bool // it judges requests
	event   bool // it judges responses
	metrics linkMetrics
}

// NewTable returns a table of links.
func NewTable(links []Link, o Options) *Table {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Table{options: o, tenants: map[policy.TenantID][]*step{}, keys: map[policy.KeyID][]*step{}}
	links = slices.Clone(links)
	slices.SortFunc(links, func(a, b Link) int { return cmp.Or(cmp.Compare(a.Place, b.Place), cmp.Compare(a.ID, b.ID)) })
	for _, l := range links {
		var about host.About
		switch {
		case l.Denial != nil:
			about.Request = true
		case l.Filter != nil:
			about = l.Filter.About()
		default:
			about = l.Plugin.About()
		}
		s := &step{Link: l, request: about.Request, event: about.Event && !l.RequestOnly, metrics: o.Metrics.link(l.Name)}
		switch {
		case l.Key != 0:
			t.keys[l.Key] = append(t.keys[l.Key], s)
		case l.Tenant != 0:
			t.tenants[l.Tenant] = append(t.tenants[l.Tenant], s)
		default:
			t.global = append(t.global, s)
		}
	}
	return t
}

// Judge returns who judges an exchange of a key; nil if no plugin does. It is what [policy.Options].Judge asks for.
func (t *Table) Judge(tenant *policy.Tenant, key *policy.Key) policy.Judge {
	ofTenant, ofKey := t.tenants[tenant.ID], t.keys[key.ID]
	n := len(t.global) + len(ofTenant) + len(ofKey)
	if n == 0 {
		return nil
	}
	j := &judge{table: t, steps: make([]*step, 0, n)}
	j.steps = append(append(append(j.steps, t.global...), ofTenant...), ofKey...)
	j.states = make([][]byte, n)
	j.filters = make([]policy.Judge, n)
	for i, s := range j.steps {
		if s.Filter != nil {
			j.filters[i] = s.Filter.Judge(proxywasm.Place{Mode: s.Mode, Headers: s.Headers, Note: func(r proxywasm.Report) {
				s.metrics.noteFilter(&r)
				t.report(r.Exchange, r.Failure)
			}})
		}
	}
	return j
}

// report logs that a plugin failed. Calls that were not even made are told of when the plugin is left alone, and counted.
func (t *Table) report(exchange string, f *host.Failure) {
	if f != nil && f.Reason != host.Quarantined && f.Reason != host.Canceled {
		t.options.Logger.Warn("a plugin failed", "exchange_id", exchange, "plugin", f.Plugin, "call", f.Call, "reason", string(f.Reason), "err", f)
	}
}

// authority is shown to every filter.
const authority = ":authority"

// Headers returns the names of all headers that some plugin is shown, sorted.
func (t *Table) Headers() []string {
	var names []string
	add := func(steps []*step) {
		for _, s := range steps {
			names = append(names, s.Headers...)
			if s.Filter != nil {
				names = append(names, authority)
			}
		}
	}
	add(t.global)
	for _, s := range t.tenants {
		add(s)
	}
	for _, s := range t.keys {
		add(s)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
