// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
	"github.com/weir-proxy/weir/plugins/proxywasm"
)

// Options say how a module is tried.
type Options struct {
	Name     string // of the plugin, in errors
	CacheDir string // of compiled code; empty: none is kept
	Limits   host.Limits
	MaxFuel  int64 // a call above it fails its case; 0: no call does
	Update   bool  // what comes of a case is written into it as what is wanted
	Quick    bool  // a stream is played whole and byte by byte, and not with every cut in two
}

// Bench holds a module, ready to be tried out. The caller closes it.
type Bench struct {
	wasm    []byte
	options Options
	host    *host.Host
	count   *freshCounters
	at      time.Time // the plugin's clock; zero: the system's
	needs   []host.Capability
	counts  bool // it has counters, so its verdicts are not those of its input alone

	filters *proxywasm.Host // if the module speaks proxy-wasm
	said    *lines          // by it
}

// freshCounters are counters that can begin anew.
type freshCounters struct{ atomic.Pointer[host.Counters] }

func (f *freshCounters) reset() {
	c := host.NewCounters()
	f.Store(&c)
}

// Add implements [host.Counters].
func (f *freshCounters) Add(c host.Counter, delta int64, window time.Duration, now time.Time) (int64, bool) {
	return (*f.Load()).Add(c, delta, window, now)
}

// NewBench returns a bench for a module.
func NewBench(ctx context.Context, wasm []byte, o Options) (*Bench, error) {
	b := &Bench{wasm: wasm, options: o, count: &freshCounters{}, said: &lines{}}
	b.count.reset()
	h, err := host.New(ctx, host.Options{CacheDir: o.CacheDir, Counters: b.count, Clock: b.clock, Logger: slog.New(b.said)})
	if err != nil {
		return nil, err
	}
	b.host = h
	if m, err := meter.Instrument(wasm, meterLimits(o.Limits)); err == nil && proxywasm.Speaks(m) {
		if b.filters, err = proxywasm.New(ctx, h); err != nil {
			return nil, errors.Join(err, h.Close(ctx))
		}
	}
	b.needs = needs(wasm, o.Limits)
	b.counts = slices.Contains(b.needs, host.Counting)
	return b, nil
}

// Close frees what the bench holds.
func (b *Bench) Close(ctx context.Context) error {
	if b.filters != nil {
		b.filters.Close()
	}
	return b.host.Close(ctx)
}

func (b *Bench) clock() time.Time {
	if b.at.IsZero() {
		return time.Now()
	}
	return b.at
}

// Result is what came of a case.
type Result struct {
	Name    string   `json:"name"`
	About   string   `json:"about,omitempty"`
	Passed  bool     `json:"passed"`
	Plays   int      `json:"plays"` // the exchange was played so often, each with its response cut differently
	Cost    Cost     `json:"cost"`  // of the first of them
	Faults  []string `json:"faults,omitempty"`
	Hint    string   `json:"hint,omitempty"` // what to try
	Logs    []string `json:"logs,omitempty"`
	Updated bool     `json:"updated,omitempty"` // the case was rewritten
}

// Run tries a case. Its error is of the machine; what is wrong with the plugin stands in the result.
func (b *Bench) Run(ctx context.Context, c *Case) (*Result, error) {
	r := &Result{Name: c.Name, About: c.About}
	t := &trialRun{bench: b, c: c, result: r}
	free, err := t.load(ctx)
	if err != nil {
		if err := b.unloaded(c, r, err); err != nil {
			return nil, err
		}
		r.Passed = len(r.Faults) == 0
		return r, nil
	}
	if !b.counts {
		t.known = map[string]host.Result{}
	}
	err = t.all(ctx)
	r.Passed = len(r.Faults) == 0
	return r, errors.Join(err, free())
}

func (b *Bench) load(ctx context.Context, c *Case) (*host.Plugin, error) {
	grants := c.grants
	if grants == nil {
		grants = b.needs
	}
	b.at = c.at
	b.count.reset()
	return b.host.Load(ctx, host.Source{Name: b.options.Name, Wasm: b.wasm, Config: c.config, Limits: b.options.Limits, Grants: grants})
}

// unloaded is for cases that show how a configuration is refused.
func (b *Bench) unloaded(c *Case, r *Result, err error) error {
	f, ok := errors.AsType[*host.Failure](err)
	if !ok || f.Reason != host.Refused {
		r.fault("", err.Error())
		if ok {
			r.Hint = f.Hint()
		}
		return nil
	}
	t := &trialRun{bench: b, c: c, result: r}
	r.Plays = 1
	return t.compare(map[string]string{wantOutcome: strings.ReplaceAll(f.Detail, "\n", `\n`) + "\n"}, false)
}

func (r *Result) fault(what, detail string) {
	if what != "" {
		detail = what + ":\n" + detail
	}
	r.Faults = append(r.Faults, strings.TrimRight(detail, "\n"))
}

// trialRun is a case under way.
type trialRun struct {
	bench  *Bench
	c      *Case
	plugin asker
	filter *filter // instead
	known  map[string]host.Result
	result *Result
}

// once plays the exchange with its response cut.
func (t *trialRun) once(body []byte, cuts []int, fresh bool) (*outcome, *recorder) {
	t.bench.count.reset()
	r := &recorder{asker: t.plugin, filter: t.filter, known: t.known}
	if fresh {
		r.known = nil
	}
	if t.filter != nil {
		t.filter.begin()
	}
	s := begin(t.c, r)
	s.watch(body, cuts)
	t.result.Plays++
	return s.end(), r
}

func (t *trialRun) all(ctx context.Context) error {
	body := t.c.reply.body
	if t.c.reply.text != "" {
		body = tell(t.c.reply.text)
	}
	first, r := t.once(body, nil, true)
	t.result.Cost = r.cost
	for _, l := range r.logs {
		t.result.Logs = append(t.result.Logs, l.Message)
	}
	if t.filter != nil {
		t.result.Logs = t.filter.said.all()
	}
	if len(r.failures) > 0 {
		f := r.failures[0]
		t.result.fault("", fmt.Sprintf("plugin %s: %s: %s: %s", f.Plugin, f.Call, f.Reason, f.Detail))
		t.result.Hint = f.Hint()
		return nil
	}
	if most := t.bench.options.MaxFuel; most > 0 && r.cost.Most > most {
		t.result.fault("", fmt.Sprintf("a call used %d fuel, and --max-fuel is %d", r.cost.Most, most))
		t.result.Hint = "look at what it does for each byte of its input, or raise --max-fuel"
	}
	want := first.sections(t.c)
	if err := t.compare(want, first.local); err != nil {
		return err
	}
	switch {
	case !first.replied || t.c.cuts == cutNone:
	case t.c.cuts == cutEvents && !first.whole:
		o, _ := t.once(body, eventEnds(body), true)
		t.same(o, want, "event by event")
	case t.c.cuts == cutAll:
		if !first.whole {
			t.cutBytes(ctx, body, want)
		}
		if t.c.reply.text != "" {
			t.cutText(ctx, want)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("try the case %s: %w", t.c.Name, err)
	}
	return nil
}

// compare holds what came against what is wanted.
func (t *trialRun) compare(got map[string]string, local bool) error {
	c := t.c
	if _, ok := c.archive.get(wantCalls); !ok {
		delete(got, wantCalls)
	}
	if _, ok := c.archive.get(wantResponse); !ok && !local {
		delete(got, wantResponse)
	} else if _, ok := c.archive.get(wantText); !ok {
		delete(got, wantText)
	}
	if t.bench.options.Update {
		return t.update(got)
	}
	if _, ok := c.archive.get(wantOutcome); !ok {
		t.result.fault("", "the case does not say what is wanted")
		t.result.Hint = "run it with --update, and review what that writes"
		return nil
	}
	for _, name := range []string{wantOutcome, wantRequest, wantText, wantResponse, wantCalls} {
		want, _ := c.archive.get(name)
		have := got[name]
		if name == wantRequest || name == wantResponse && (c.reply.media == mediaJSON || local) {
			want = pretty(want)
		}
		if name == wantOutcome {
			want, have = strings.TrimSpace(want)+"\n", strings.TrimSpace(have)+"\n"
		}
		if d := diff(strings.TrimRight(want, "\n")+"\n", strings.TrimRight(have, "\n")+"\n"); d != "" {
			t.result.fault(name+" (- wanted, + came)", d)
		}
	}
	return nil
}

func (t *trialRun) update(got map[string]string) error {
	a := &t.c.archive
	before := a.String()
	a.sections = slices.DeleteFunc(a.sections, func(s section) bool {
		_, still := got[s.name]
		return strings.HasPrefix(s.name, wantOutcome) && !still
	})
	for _, name := range slices.Sorted(maps.Keys(got)) {
		a.put(name, got[name])
	}
	if a.String() == before || t.c.path == "" {
		return nil
	}
	t.result.Updated = true
	if err := os.WriteFile(t.c.path, []byte(a.String()), 0o644); err != nil {
		return fmt.Errorf("update a case: %w", err)
	}
	return nil
}

// cutBytes plays a stream byte by byte, and with every cut in two.
func (t *trialRun) cutBytes(ctx context.Context, body []byte, want map[string]string) {
	if o, _ := t.once(body, everywhere(len(body)), true); !t.same(o, want, "byte by byte") || t.bench.options.Quick {
		return
	}
	for at := 1; at < len(body) && ctx.Err() == nil; at++ {
		if o, _ := t.once(body, []int{at}, false); !t.same(o, want, fmt.Sprintf("cut after byte %d of %d", at, len(body))) {
			return
		}
	}
}

// cutText plays a text character by character, and with every cut in two.
func (t *trialRun) cutText(ctx context.Context, want map[string]string) {
	letters := runes(t.c.reply.text)
	want = maps.Clone(want)
	delete(want, wantResponse) // its events are others
	body := tell(letters...)
	if o, _ := t.once(body, nil, true); !t.same(o, want, "the text character by character") {
		return
	}
	if o, _ := t.once(body, everywhere(len(body)), false); !t.same(o, want, "the text character by character, its bytes one by one") || t.bench.options.Quick {
		return
	}
	for n := 1; n < len(letters) && ctx.Err() == nil; n++ {
		a, b := strings.Join(letters[:n], ""), strings.Join(letters[n:], "")
		if o, _ := t.once(tell(a, b), nil, false); !t.same(o, want, fmt.Sprintf("the text cut after %q", lastFew(a))) {
			return
		}
	}
}

func lastFew(s string) string {
	const few = 12
	if r := []rune(s); len(r) > few {
		return "…" + string(r[len(r)-few:])
	}
	return s
}

// same reports whether a response came out as it did in one piece.
func (t *trialRun) same(o *outcome, want map[string]string, how string) bool {
	got := o.sections(t.c)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if d := diff(want[name], got[name]); d != "" {
			t.result.fault(fmt.Sprintf("%s differs when it comes otherwise: %s (- in one piece, + so)", name, how), d)
			return false
		}
	}
	return true
}
