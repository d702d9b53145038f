// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/weir-proxy/weir/plugins/chain"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// filter is a plugin that speaks proxy-wasm, with what stands in for the servers that it calls.
type filter struct {
	*proxywasm.Plugin
	fixtures *fixtures
	said     *lines
}

// load loads the plugin by the ABI that it speaks.
func (t *trialRun) load(ctx context.Context) (free func() error, err error) {
	if t.bench.filters != nil {
		if t.filter, err = t.bench.loadFilter(ctx, t.c); err != nil {
			return nil, err
		}
		return t.filter.Close, nil
	}
	p, err := t.bench.load(ctx, t.c)
	if err != nil {
		return nil, err
	}
	t.plugin = p
	return p.Close, nil
}

// loadFilter makes a plugin that speaks proxy-wasm ready for a case.
func (b *Bench) loadFilter(ctx context.Context, c *Case) (*filter, error) {
	f := &fixtures{answers: c.answers, hosts: map[string]string{}}
	s := proxywasm.Source{
		Name: b.options.Name, Wasm: b.wasm, Config: c.config, Limits: proxywasm.Limits{Limits: b.options.Limits}, Transport: f,
		Log: c.grants == nil || slices.Contains(c.grants, host.Log),
	}
	for n, name := range slices.Sorted(maps.Keys(c.answers)) {
		host := "upstream-" + strconv.Itoa(n) + ".invalid"
		f.hosts[host] = name
		s.Upstreams = append(s.Upstreams, proxywasm.Upstream{Name: name, URL: "http://" + host})
	}
	b.at = c.at
	b.said.reset()
	p, err := b.filters.Load(ctx, s)
	if err != nil {
		return nil, err
	}
	return &filter{p, f, b.said}, nil
}

// begin forgets the exchange before.
func (f *filter) begin() {
	f.Forget()
	f.fixtures.reset()
	f.said.reset()
}

// link is the filter as a chain has it, whose steps a recorder notes.
func (f *filter) link(r *recorder) chain.Filter { return &noted{f, r} }

// noted is a filter whose steps are noted.
type noted struct {
	*filter
	recorder *recorder
}

// Judge implements [chain.Filter].
func (n *noted) Judge(at proxywasm.Place) policy.Judge {
	at.Note = func(s proxywasm.Report) { n.recorder.step(&s) }
	at.Properties = func(set map[string][]byte) { n.recorder.properties = maps.Clone(set) }
	return n.filter.Judge(at)
}

// step notes a step of a filter: the request, the head of the response, or a part of it.
func (r *recorder) step(s *proxywasm.Report) {
	if s.Cut {
		r.cut = true
		return
	}
	r.cost.add(&host.Result{Fuel: s.Fuel, Memory: s.Memory})
	if s.Failure != nil {
		r.failures = append(r.failures, s.Failure)
	}
}

// facts says what a filter has done besides: the calls that it made, the properties that it set, and its metrics.
func (s *stage) facts(f *filter) {
	for _, c := range f.fixtures.asked {
		s.fact("calls %s: %s %s", c.upstream, c.method, c.path)
	}
	for _, name := range slices.Sorted(maps.Keys(s.recorder.properties)) {
		s.fact("property %s=%s", name, s.recorder.properties[name])
	}
	for _, m := range f.Metrics(int64(s.question.Tenant.ID)) {
		s.fact("metric %s=%d", m.Name, m.Value)
	}
	s.out.calls = f.fixtures.String()
}

// fixtures answer the calls of a plugin as a case says, in the order in which they are made, and keep what was asked. The last answer of an upstream stands for all that follow.
type fixtures struct {
	answers map[string][]*fixture // by upstream
	hosts   map[string]string     // upstreams by the host of their URL
	given   map[string]int        // answers, by upstream
	asked   []asking
}

// fixture is a recorded answer.
type fixture struct {
	status int // 0: there is no answer
	header http.Header
	body   string
}

// asking is a call.
type asking struct {
	upstream, method, path string
	header                 []string // lines
	body                   string
}

func (f *fixtures) reset() { f.given, f.asked = map[string]int{}, nil }

var errNoAnswer = errors.New("there is no answer")

// RoundTrip implements [http.RoundTripper].
func (f *fixtures) RoundTrip(r *http.Request) (*http.Response, error) {
	name := f.hosts[r.URL.Host]
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a := asking{upstream: name, method: r.Method, path: r.URL.RequestURI(), body: string(body)}
	if r.Host != "" && r.Host != r.URL.Host {
		a.header = append(a.header, "host: "+r.Host)
	}
	for _, n := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[n] {
			a.header = append(a.header, strings.ToLower(n)+": "+v)
		}
	}
	f.asked = append(f.asked, a)
	list := f.answers[name]
	one := list[min(f.given[name], len(list)-1)]
	f.given[name]++
	if one.status == 0 {
		return nil, errNoAnswer
	}
	return &http.Response{
		StatusCode: one.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: one.header.Clone(), Request: r,
		ContentLength: int64(len(one.body)), Body: io.NopCloser(strings.NewReader(one.body)),
	}, nil
}

// String writes the calls as want.calls has them.
func (f *fixtures) String() string {
	var b strings.Builder
	for _, a := range f.asked {
		fmt.Fprintf(&b, "> %s %s %s\n", a.upstream, a.method, a.path)
		for _, h := range a.header {
			b.WriteString(h + "\n")
		}
		b.WriteString("\n")
		if a.body != "" {
			b.WriteString(strings.TrimSuffix(a.body, "\n") + "\n\n")
		}
	}
	return b.String()
}

const noAnswer = "no answer"

// readFixture reads an answer: a status, headers, an empty line, and a body; or "no answer".
func readFixture(text string) (*fixture, error) {
	if strings.TrimSpace(text) == noAnswer {
		return &fixture{}, nil
	}
	first, rest, _ := strings.Cut(text, "\n")
	status, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || status < 200 || status > 599 {
		return nil, fmt.Errorf("it does not begin with a status from 200 to 599, or %q", noAnswer)
	}
	head, body, _ := strings.Cut("\n"+rest, "\n\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(strings.TrimPrefix(head, "\n") + "\r\n\r\n"))).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("its headers are not lines of the form name: value: %w", err)
	}
	return &fixture{status: status, header: http.Header(h), body: strings.TrimSuffix(body, "\n")}, nil
}

// lines are what a plugin logs.
type lines struct {
	mu    sync.Mutex
	lines []string
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// Enabled implements [slog.Handler].
func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler]. What a plugin says stands in the attribute message; the rest is the host's.
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "message" {
			text = a.Value.String()
		}
		return a.Key != "message"
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, text)
	return nil
}

// WithAttrs implements [slog.Handler].
func (l *lines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements [slog.Handler].
func (l *lines) WithGroup(string) slog.Handler { return l }

// answered notes that the plugin has answered in the place of the provider.
func (s *stage) answered(what string, r *policy.Reply) {
	s.fact("%s answered %d", what, r.Status)
	for _, h := range r.Headers {
		s.fact("answer header %s: %s", h.Name, h.Value)
	}
	s.out.client, s.out.local = string(r.Body), true
}

// eventEnds returns the offsets behind the events of a stream.
func eventEnds(body []byte) []int {
	var cuts []int
	for at := 0; ; {
		n := bytes.Index(body[at:], []byte("\n\n"))
		if n < 0 {
			return cuts
		}
		if at += n + 2; at < len(body) {
			cuts = append(cuts, at)
		}
	}
}

// cutting says how the responses of a case are cut.
type cutting string

const (
	cutAll    cutting = "all"    // everywhere
	cutEvents cutting = "events" // behind each event alone
	cutNone   cutting = "none"
)

func (c *Case) readCuts(value string) error {
	c.cuts = cutting(cmp.Or(value, string(cutAll)))
	if !slices.Contains([]cutting{cutAll, cutEvents, cutNone}, c.cuts) {
		return fmt.Errorf("cuts is %s, %s or %s", cutAll, cutEvents, cutNone)
	}
	return nil
}
