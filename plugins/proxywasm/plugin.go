// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
)

// Host loads plugins. It is safe for concurrent use.
type Host struct {
	host  *host.Host
	calls *clients
}

// New makes the functions of proxy-wasm importable in a host. It is called once for each.
func New(ctx context.Context, h *host.Host) (*Host, error) {
	if err := h.Offer(ctx, importModule, functions); err != nil {
		return nil, err
	}
	return &Host{host: h, calls: newClients()}, nil
}

// Close lets idle connections go. Plugins are closed by themselves, before.
func (h *Host) Close() { h.calls.close() }

// Limits bound what a plugin may use. A zero means the default that stands beside it; those of [host.Limits] differ here where plugins of this ABI, most
// of which are in Go and parse everything themselves, need more: they are in withDefaults.
type Limits struct {
	host.Limits               // Concurrency is not used
	Streams     int           // exchanges at a time, each with an instance; 256
	Pause       time.Duration // that an exchange waits at one point for a paused plugin; 4 s, less than Envoy waits for the answer to a message
	Calls       int           // of proxy_http_call in one exchange; 16, half of them at a time
	CallBytes   int           // of the body of such a call, and of its answer; 1 MiB
	HeldBytes   int           // of a response that a plugin holds back; 4 MiB
}

func (l Limits) withDefaults() Limits {
	set(&l.MemoryBytes, 64<<20)
	set(&l.Fuel, 200_000_000)
	set(&l.FuelPerByte, 20_000)
	set(&l.FuelToStart, 5_000_000_000)
	set(&l.Time, 250*time.Millisecond)
	set(&l.Streams, 256)
	set(&l.Pause, 4*time.Second)
	set(&l.Calls, 16)
	set(&l.CallBytes, 1<<20)
	set(&l.HeldBytes, 4<<20)
	l.Concurrency = l.Streams
	return l
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Upstream is a server that a plugin may call.
type Upstream struct {
	Name    string // the cluster, as the plugin calls it
	URL     string // such as https://moderation.example.com; a path is put before that of each call
	Private bool   // it may be at a private or local address
}

// Source is a plugin to load.
type Source struct {
	Name        string // in logs, errors, and as the property plugin_name
	RootID      string // the property plugin_root_id
	Wasm        []byte
	Config      []byte // for proxy_on_configure
	VMConfig    []byte // for proxy_on_vm_start
	Limits      Limits
	Upstreams   []Upstream
	Log         bool // what it logs is passed on, and the properties that it sets. Many plugins log whole prompts, and headers with the keys of their upstreams
	RequestOnly bool // it is not shown responses, even if it has hooks for them, as all plugins of most SDKs have

	// Transport makes the calls to upstreams in the place of the network, for trials: it is called while the guest waits, so that answers come in the order of the
	// calls. The request's URL begins with that of the upstream.
	Transport http.RoundTripper
}

// Plugin is a module with its configuration, ready for any number of exchanges at a time.
type Plugin struct {
	host      *Host
	source    Source
	limits    Limits
	module    *host.Module
	allocate  string // its export by which it gives memory
	watches   bool   // it is shown responses
	upstreams map[string]*upstream
	busy      chan struct{} // holds one for each call of a guest that is under way: a core is left for the rest of the process
	stores    stores
	metrics   metrics
}

// Load makes a plugin ready: what [host.Host.Load] says of time and errors holds here too. Besides, an upstream may be wrong.
func (h *Host) Load(ctx context.Context, s Source) (*Plugin, error) {
	p := &Plugin{host: h, source: s, limits: s.Limits.withDefaults(), busy: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
	p.source.Wasm = nil
	var err error
	if p.upstreams, err = h.calls.upstreams(s.Upstreams); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Name, err)
	}
	if s.Transport != nil {
		for _, u := range p.upstreams {
			u.client = &http.Client{CheckRedirect: stay, Transport: s.Transport}
		}
	}
	checked := func(m *meter.Module) error {
		p.allocate = allocator(m)
		return check(m)
	}
	by := &host.ABI{Check: checked, Start: p.start, Owner: &stream{plugin: p, context: rootContext}}
	grants := []host.Capability{host.Clock}
	if s.Log {
		grants = append(grants, host.Log)
	}
	p.module, err = h.host.LoadModule(ctx, host.Source{Name: s.Name, Wasm: s.Wasm, Limits: p.limits.Limits, Grants: grants}, by)
	if err != nil {
		return nil, err
	}
	p.watches = p.About().Event
	return p, nil
}

// start brings an instance to where its streams begin: the root context is there and configured.
func (p *Plugin) start(g *host.Instance) error {
	root := g.Owner().(*stream)
	steps := []struct {
		name string
		args []uint64
		bool bool
	}{
		{exportStart, nil, false},
		{exportContextCreate, []uint64{rootContext, 0}, false},
		{exportVMStart, []uint64{rootContext, uint64(len(p.source.VMConfig))}, true},
		{exportConfigure, []uint64{rootContext, uint64(len(p.source.Config))}, true},
	}
	for _, s := range steps {
		if !g.Exports(s.name) || s.name == exportStart && g.Exports("_initialize") {
			continue
		}
		answer, err := g.Invoke(s.name, s.args...)
		if err != nil {
			return g.Failed(s.name, err)
		}
		if s.bool && uint32(answer) == 0 {
			return g.Failed(s.name, &host.Failure{
				Plugin: p.source.Name, Call: s.name, Reason: host.Refused,
				Detail: fmt.Sprintf("it does not take its configuration: %s", last(root.said)),
			})
		}
	}
	return nil
}

// last is what a plugin said last; most say what they do not like before they refuse.
func last(said string) string {
	if said == "" {
		return "it does not say why"
	}
	return said
}

// About returns what is known of the plugin.
func (p *Plugin) About() host.About {
	a := host.About{Name: p.source.Name, Digest: p.module.Digest()}
	m := p.module.Meter()
	for _, e := range m.Exports {
		switch e.Name {
		case exportRequestHeaders, exportRequestBody:
			a.Request = true
		case exportResponseHeader, exportResponseBody:
			a.Event = !p.source.RequestOnly
		}
	}
	for _, f := range m.Imports {
		a.Imports = append(a.Imports, f.Module+"."+f.Name)
	}
	slices.Sort(a.Imports)
	a.Pristine, a.Obstacle = p.module.Pristine()
	return a
}

// exports reports whether the plugin has a hook.
func (p *Plugin) exports(name string) bool {
	_, ok := p.module.Meter().Export(name)
	return ok
}

// Quarantine says until when the plugin is left alone by a tenant's exchanges, and its last failure; the zero time if it is not.
func (p *Plugin) Quarantine(tenant int64) (until time.Time, why string) {
	return p.module.Quarantine(tenant)
}

// Forget drops the shared data and the metrics that the plugin keeps for tenants, so that a trial can begin anew. Exchanges must not be under way.
func (p *Plugin) Forget() {
	p.stores.forget()
	p.metrics.forget()
}

// Close frees the plugin once the exchanges that it judges have ended. None may begin after it.
func (p *Plugin) Close() error { return p.module.Close() }

// errPaused is a pause without end.
var errPaused = errors.New("it paused, and nothing that is under way can resume it")
