// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// shelf is modules without a database. A module can be held back, or be away.
type shelf struct {
	mu      sync.Mutex
	modules map[store.Digest][]byte
	down    error
	hold    chan struct{} // nil: nothing waits
	reads   int
	rolled  []store.RollBack
	done    bool // what RollBack says
}

func (s *shelf) Wasm(ctx context.Context, d store.Digest) ([]byte, error) {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.down != nil {
		return nil, s.down
	}
	return s.modules[d], nil
}

func (s *shelf) RollBack(_ context.Context, r store.RollBack) (store.Attachment, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rolled = append(s.rolled, r)
	return store.Attachment{}, s.done, nil
}

// put adds a module and returns its digest.
func (s *shelf) put(g wasmtest.Guest) store.Digest {
	wasm := g.Wasm()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.modules[store.DigestOf(wasm)] = wasm
	return store.DigestOf(wasm)
}

func (s *shelf) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// started returns a loader that runs until the test ends.
func started(t *testing.T) (*Loader, *shelf) {
	t.Helper()
	h, err := host.New(t.Context(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{modules: map[store.Digest][]byte{}}
	filters, err := proxywasm.New(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(filters.Close)
	l := New(Options{
		Host: h, Filters: filters, Modules: s, Headers: []string{"x-team"}, Registerer: prometheus.NewRegistry(),
		Limits: host.Limits{Time: time.Minute, TimeToStart: time.Minute, Concurrency: 4}, // the machine may be busy
	})
	ctx, cancel := context.WithCancel(t.Context())
	g := errgroup.Group{}
	g.Go(func() error { return l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l, s
}

// want puts attachments in force.
func want(t *testing.T, l *Loader, revision int64, attachments ...store.Attachment) {
	t.Helper()
	l.Want(revision, attachments)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Settled(ctx); err != nil {
		t.Fatal(err)
	}
}

func attached(id store.AttachmentID, d store.Digest, mode store.PluginMode) store.Attachment {
	return store.Attachment{ID: id, Plugin: "p" + strconv.FormatInt(int64(id), 10), Digest: d, PluginSettings: store.PluginSettings{Mode: mode}}
}

// engineOf is an engine whose exchanges are judged by the plugins of l.
func engineOf(t *testing.T, l *Loader) *policy.Engine {
	t.Helper()
	e := policy.New(policy.Options{Judge: l.Judge})
	s, err := policy.NewSnapshot(policy.SnapshotData{
		Tenants:  []policy.Tenant{{ID: 1, Name: "acme"}, {ID: 2, Name: "other"}},
		Keys:     []policy.Key{{ID: 1, Tenant: 1, Hash: policy.HashKey("sk-1")}, {ID: 2, Tenant: 2, Hash: policy.HashKey("sk-2")}},
		Channels: []policy.Channel{{ID: 1, Name: "c", Weight: 1, Models: []policy.Model{{Name: "m"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.SetSnapshot(s)
	return e
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

// gauge returns a metric of a loader, with this value of its only label if it has one.
func gauge(t *testing.T, l *Loader, name string, label ...string) float64 {
	t.Helper()
	families, err := l.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(label) == 0 || m.GetLabel()[0].GetValue() == label[0]) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, label)
	return 0
}

// ask sends a request and returns the code of its denial, or the value of the tag v.
func ask(t *testing.T, e *policy.Engine, key string) string {
	t.Helper()
	x, _, denial := e.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer " + key})
	if denial != nil {
		t.Fatal(denial)
	}
	a, denial := x.Admit([]byte(hello))
	if denial != nil {
		return denial.Code
	}
	if a.Watch != nil {
		a.Watch.Close()
	}
	return tagOf(t, a)
}

func tagOf(t *testing.T, a *policy.Admission) string {
	t.Helper()
	ticket, err := policy.ParseTicket(a.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range ticket.Tags {
		if tag.Name == "v" {
			return tag.Value
		}
	}
	return ""
}

func tagging(v string) wasmtest.Guest { return wasmtest.Guest{Request: wasmtest.TagVerdict("v", v)} }

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// onlyOpen waits until n plugins are in memory: the others are garbage.
func onlyOpen(t *testing.T, l *Loader, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d plugins in memory", n), func() bool {
		runtime.GC()
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.open == n
	})
}

func TestPluginsJudgeWhereTheyAreAttached(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	if got := ask(t, e, "sk-1"); got != "" {
		t.Errorf("without plugins: %q", got)
	}
	d := s.put(tagging("one"))
	a := attached(1, d, store.PluginClosed)
	a.Tenant = 1
	want(t, l, 2, a)
	if mine, theirs := ask(t, e, "sk-1"), ask(t, e, "sk-2"); mine != "one" || theirs != "" {
		t.Errorf("tags %q and %q", mine, theirs)
	}
	a.Mode = store.PluginShadow
	want(t, l, 3, a)
	if got := ask(t, e, "sk-1"); got != "" || s.reads != 1 {
		t.Errorf("shadow: %q; the module was read %d times", got, s.reads)
	}
	a.Mode, a.Disabled = store.PluginClosed, true
	want(t, l, 4, a)
	if got := ask(t, e, "sk-1"); got != "" {
		t.Errorf("disabled: %q", got)
	}
	onlyOpen(t, l, 0)
	if got := gauge(t, l, "weir_plugins_revision"); got != 4 {
		t.Errorf("revision %v", got)
	}
}

func TestOldVersionJudgesUntilTheNewOneIsLoaded(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	one, two, deny := s.put(tagging("one")), s.put(tagging("two")), s.put(wasmtest.Guest{Request: wasmtest.Denial(403, "no", "No.")})
	other := attached(2, deny, store.PluginClosed)
	other.Tenant = 2
	want(t, l, 1, attached(1, one, store.PluginClosed), other)

	hold := make(chan struct{})
	s.set(func() { s.hold = hold })
	l.Want(2, []store.Attachment{attached(1, two, store.PluginClosed)})
	if mine, theirs := ask(t, e, "sk-1"), ask(t, e, "sk-2"); mine != "one" || theirs != "one" {
		t.Errorf("while the new version loads: %q, and %q where the other was detached", mine, theirs)
	}
	if got := gauge(t, l, "weir_plugin_attachments", "stale"); got != 1 {
		t.Errorf("%v stale", got)
	}
	close(hold)
	s.set(func() { s.hold = nil })
	if err := l.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, e, "sk-1"); got != "two" {
		t.Errorf("after: %q", got)
	}
	onlyOpen(t, l, 1)
}

func TestWhatCannotBeLoadedDeniesOrIsLeftOut(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	bad := s.put(wasmtest.Guest{Request: []byte{}, Picky: true}) // and its configuration is empty
	for _, c := range []struct {
		mode   store.PluginMode
		want   string
		denies bool
	}{{store.PluginClosed, "plugin_failed", true}, {store.PluginOpen, "", false}, {store.PluginShadow, "", false}} {
		want(t, l, 1, attached(1, bad, c.mode))
		if got := ask(t, e, "sk-1"); got != c.want {
			t.Errorf("%s: got %q, want %q", c.mode, got, c.want)
		}
		p := l.Problems()
		if len(p) != 1 || p[0].Denies != c.denies || p[0].Attachment != 1 || !strings.Contains(p[0].Err.Error(), "an empty configuration") {
			t.Errorf("%s: problems %+v", c.mode, p)
		}
		want(t, l, 2)
	}
	good := attached(1, bad, store.PluginClosed)
	good.Config = "{}"
	want(t, l, 3, good)
	if got := ask(t, e, "sk-1"); got != "" || len(l.Problems()) != 0 {
		t.Errorf("configured: %q, %+v", got, l.Problems())
	}
}

func TestModulesThatCannotBeReadLeaveWhatIsInForce(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	one, two := s.put(tagging("one")), s.put(tagging("two"))
	want(t, l, 1, attached(1, one, store.PluginClosed))
	s.set(func() { s.down = errors.New("no database") })
	want(t, l, 2, attached(1, two, store.PluginClosed), attached(2, two, store.PluginOpen))
	if got := ask(t, e, "sk-1"); got != "one" {
		t.Errorf("got %q", got)
	}
	p := l.Problems()
	if len(p) != 2 || !p[0].Stale || p[0].Denies || p[1].Stale || p[1].Denies {
		t.Errorf("problems %+v", p)
	}
	s.set(func() { s.down = nil })
	eventually(t, "the modules are loaded after all", func() bool { return len(l.Problems()) == 0 })
	eventually(t, "the new version judges", func() bool { return ask(t, e, "sk-1") == "two" })
}

func TestOnePluginServesAttachmentsThatAreAlike(t *testing.T) {
	l, s := started(t)
	d := s.put(tagging("one"))
	a, b, c := attached(1, d, store.PluginClosed), attached(2, d, store.PluginOpen), attached(3, d, store.PluginOpen)
	a.Plugin, b.Plugin, c.Plugin = "same", "same", "same"
	c.Config = "other"
	want(t, l, 1, a, b, c)
	if s.reads != 2 || l.open != 2 {
		t.Errorf("%d reads, %d plugins for two different ones", s.reads, l.open)
	}
}

// Each version tags a request with its name, and denies its response with the same name as the code.
func TestHundredSwapsUnderLoadServeNobodyByHalves(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	version := func(v string) store.Attachment {
		return attached(1, s.put(wasmtest.Guest{Request: wasmtest.TagVerdict("v", v), Event: wasmtest.Denial(403, v, "No.")}), store.PluginClosed)
	}
	versions := []store.Attachment{version("one"), version("two")}
	want(t, l, 1, versions[0])
	var stop atomic.Bool
	var served [2]atomic.Int64
	var clients errgroup.Group
	for range 4 {
		clients.Go(func() error {
			for !stop.Load() {
				v, err := exchange(e)
				if err != nil {
					stop.Store(true)
					return err
				}
				served[strings.Index("onetwo", v)/3].Add(1)
			}
			return nil
		})
	}
	for n := range 100 {
		want(t, l, int64(n+2), versions[(n+1)%2])
		before := served[(n+1)%2].Load()
		eventually(t, "the new version judges", func() bool { return served[(n+1)%2].Load() > before+1 || stop.Load() })
	}
	stop.Store(true)
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d and %d exchanges", served[0].Load(), served[1].Load())
	onlyOpen(t, l, 1)
}

// exchange goes through a whole exchange and returns the version that judged it, which must be the same at its begin and its end.
func exchange(e *policy.Engine) (string, error) {
	x, _, denial := e.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer sk-1"})
	if denial != nil {
		return "", errors.New(denial.Message)
	}
	watched := x.Watched()
	runtime.Gosched() // a swap may come in between
	a, denial := x.Admit([]byte(hello))
	if denial != nil {
		return "", errors.New(denial.Message)
	}
	ticket, err := policy.ParseTicket(a.Ticket)
	if err != nil || !watched || a.Watch == nil || len(ticket.Tags) != 1 {
		return "", fmt.Errorf("watched %v, ticket %+v, %w", watched, ticket, err)
	}
	defer a.Watch.Close()
	runtime.Gosched()
	ruling, _ := a.Watch.Head(200, []policy.Header{{Name: "content-type", Value: "text/event-stream"}})
	if ruling == nil || ruling.Denial == nil || ruling.Denial.Code != ticket.Tags[0].Value {
		return "", fmt.Errorf("the request was judged by %s, the response: %+v", ticket.Tags[0].Value, ruling)
	}
	return ticket.Tags[0].Value, nil
}

func TestVersionThatFailsOftenIsRolledBack(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	good, bad := s.put(tagging("good")), s.put(wasmtest.Guest{Request: []byte{}, Traps: true})
	s.done = true
	a := attached(1, bad, store.PluginClosed)
	a.Previous, a.Swapped = good, time.Now()
	old := attached(2, bad, store.PluginOpen) // of another plugin, and in force for long
	old.Previous, old.Swapped = good, time.Now().Add(-Probation-time.Hour)
	want(t, l, 1, a, old)
	for range 10 {
		ask(t, e, "sk-1")
	}
	eventually(t, "the roll-back", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.rolled) > 0 })
	for range 20 { // it asks no more often than it must
		ask(t, e, "sk-1")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rolled) != 1 {
		t.Fatalf("asked %d times: %+v", len(s.rolled), s.rolled)
	}
	if r := s.rolled[0]; r.Attachment != 1 || r.From != bad || r.Within != Probation || !strings.Contains(r.Why, "unreachable") {
		t.Errorf("roll-back %+v", r)
	}
	if got := gauge(t, l, "weir_plugin_rollbacks_total"); got != 1 {
		t.Errorf("%v roll-backs counted", got)
	}
}

func TestModulesAreInspectedBeforeTheyAreStored(t *testing.T) {
	l, _ := started(t)
	about, schema, err := l.InspectPlugin(t.Context(), "p", wasmtest.Guest{Request: []byte{}, Picky: true, About: `{"name":"x"}`, Schema: `{}`, Imports: []string{"log"}}.Wasm())
	if err != nil || about != `{"name":"x"}` || schema != `{}` {
		t.Errorf("got %q, %q, %v", about, schema, err)
	}
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"no hooks":       {wasmtest.Guest{}.Wasm(), "there is nothing to call"},
		"unknown import": {wasmtest.Guest{Request: []byte{}, Imports: []string{"exec"}}.Wasm(), "weir.exec, which weir/1 does not have"},
		"no module":      {[]byte("\x00asm\x01\x00\x00\x00\xff"), "plugin p"},
	} {
		_, _, err := l.InspectPlugin(t.Context(), "p", c.wasm)
		if r, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(r.Reason, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAttachmentsAreTriedBeforeTheyAreStored(t *testing.T) {
	l, _ := started(t)
	wasm := wasmtest.Guest{Request: []byte{}, Picky: true, Imports: []string{"log"}}.Wasm()
	good := attached(1, store.Digest{}, store.PluginClosed)
	good.Config, good.Grants, good.Headers = "{}", []string{"log"}, []string{"x-team"}
	if err := l.TryPlugin(t.Context(), good, wasm); err != nil {
		t.Error(err)
	}
	missing := good
	missing.Grants = []string{"clock"}
	if r, ok := errors.AsType[*Refusal](l.TryPlugin(t.Context(), missing, wasm)); !ok || r.Hint() != "to grant what it needs: --grant clock,log" {
		t.Errorf("without a capability: %+v", r)
	}
	for want, change := range map[string]func(*store.Attachment){
		`needs the capability "log"`:     func(a *store.Attachment) { a.Grants = nil },
		`no capability "fly"`:            func(a *store.Attachment) { a.Grants = []string{"log", "fly"} },
		`header "x-other" does not come`: func(a *store.Attachment) { a.Headers = []string{"x-other"} },
		"an empty configuration":         func(a *store.Attachment) { a.Config = "" },
		"memory":                         func(a *store.Attachment) { a.Limits.MemoryBytes = 1 << 16 },
	} {
		bad := good
		change(&bad)
		err := l.TryPlugin(t.Context(), bad, wasm)
		if r, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(r.Reason, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestNothingGoesPastAPluginThatIsSlowToLoad(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	d, other := s.put(tagging("one")), s.put(tagging("two"))
	hold := make(chan struct{})
	s.set(func() { s.hold = hold })
	closed, open := attached(1, d, store.PluginClosed), attached(2, other, store.PluginOpen)
	closed.Tenant, open.Tenant = 1, 2
	l.Want(2, []store.Attachment{closed, open})
	if got := ask(t, e, "sk-1"); got != "" {
		t.Errorf("while it is waited for: %q", got)
	}
	l.Insist()
	x, _, _ := e.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer sk-1"})
	_, denial := x.Admit([]byte(hello))
	if denial == nil || denial.Status != 503 || denial.Code != "plugin_loading" || denial.RetryAfter <= 0 {
		t.Errorf("while it is loaded: %v", denial)
	}
	if got := ask(t, e, "sk-2"); got != "" {
		t.Errorf("the mode open: %q", got)
	}
	l.Want(3, []store.Attachment{closed, open, attached(3, d, store.PluginShadow)}) // something else changes
	if got := ask(t, e, "sk-1"); got != "plugin_loading" {
		t.Errorf("after a change: %q", got)
	}
	l.Want(4, []store.Attachment{open})
	if got := ask(t, e, "sk-1"); got != "" {
		t.Errorf("after it was detached: %q", got)
	}
	l.Want(5, []store.Attachment{closed, open})
	l.Insist()
	close(hold)
	s.set(func() { s.hold = nil })
	want(t, l, 6, closed, open)
	if got := ask(t, e, "sk-1"); got != "one" {
		t.Errorf("when it is loaded: %q", got)
	}
	// A new version of what is in force is waited for without a gap.
	hold = make(chan struct{})
	s.set(func() { s.hold = hold })
	closed.Digest = s.put(tagging("three"))
	l.Want(7, []store.Attachment{closed, open})
	l.Insist()
	if got := ask(t, e, "sk-1"); got != "one" {
		t.Errorf("while its next version is loaded: %q", got)
	}
	close(hold)
}
