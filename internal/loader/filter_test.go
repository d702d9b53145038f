// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// add puts a module that speaks proxy-wasm on the shelf.
func (s *shelf) add(f wasmtest.Filter) store.Digest {
	wasm := f.Wasm()
	s.set(func() { s.modules[store.DigestOf(wasm)] = wasm })
	return store.DigestOf(wasm)
}

// admit has an engine decide on a request.
func admit(t *testing.T, e *policy.Engine, key string) (*policy.Admission, *policy.Denial) {
	t.Helper()
	x, _, denial := e.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer " + key})
	if denial != nil {
		t.Fatal(denial)
	}
	return x.Admit([]byte(hello))
}

func TestFiltersJudgeBesidePlugins(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	f := attached(2, s.add(wasmtest.Filter{Header: "red", Tail: ": tail\n\n"}), store.PluginClosed)
	f.Tenant = 1
	want(t, l, 2, attached(1, s.put(tagging("one")), store.PluginClosed), f)
	a, denial := admit(t, e, "sk-1")
	if denial != nil || !slices.Contains(a.Set, policy.Header{Name: "x-filter", Value: "red"}) || tagOf(t, a) != "one" || a.Watch == nil {
		t.Fatalf("got %+v, %v", a, denial)
	}
	if _, whole := a.Watch.Head(200, []policy.Header{{Name: "content-type", Value: "text/event-stream"}}); whole {
		t.Error("a stream is asked for in one piece")
	}
	if out, _, _ := a.Watch.Body([]byte("data: 1\n\n"), true); string(out) != "data: 1\n\n: tail\n\n" {
		t.Errorf("the client gets %q", out)
	}
	a.Watch.Close()
	if a, denial := admit(t, e, "sk-2"); denial != nil || len(a.Set) != 0 || a.Watch != nil {
		t.Errorf("another tenant's exchange: %+v, %v", a, denial)
	}
	f.RequestOnly = true
	want(t, l, 3, f)
	if a, denial := admit(t, e, "sk-1"); denial != nil || len(a.Set) != 1 || a.Watch != nil {
		t.Errorf("for requests only: %+v, %v", a, denial)
	}
	want(t, l, 4)
	onlyOpen(t, l, 0)
}

func TestFilterIsNotClosedUnderItsExchange(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	want(t, l, 2, attached(1, s.add(wasmtest.Filter{Tail: "!"}), store.PluginClosed))
	a, denial := admit(t, e, "sk-1")
	if denial != nil {
		t.Fatal(denial)
	}
	want(t, l, 3)
	onlyOpen(t, l, 1)
	a.Watch.Head(200, nil)
	if out, _, _ := a.Watch.Body([]byte("x"), true); string(out) != "x!" {
		t.Errorf("after it was detached the client gets %q", out)
	}
	a.Watch.Close()
	a = nil
	onlyOpen(t, l, 0)
	_ = a
}

func TestFiltersCallTheUpstreamsOfTheirAttachment(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	status := http.StatusOK
	var asked string
	judge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path
		w.WriteHeader(status)
	}))
	t.Cleanup(judge.Close)
	a := attached(1, s.add(wasmtest.Filter{Upstream: "judge"}), store.PluginClosed)
	a.Upstreams = []store.PluginUpstream{{Name: "judge", URL: judge.URL + "/v1", Private: true}}
	want(t, l, 2, a)
	if _, denial := admit(t, e, "sk-1"); denial != nil || asked != "GET /v1/judge" {
		t.Errorf("it was asked %q: %v", asked, denial)
	}
	status = http.StatusTeapot
	if _, denial := admit(t, e, "sk-1"); denial == nil || denial.Reply == nil || denial.Reply.Status != 403 {
		t.Errorf("refused by the upstream: %v", denial)
	}
	a.Upstreams[0].Private = false // and so its address is refused
	status, asked = http.StatusOK, ""
	want(t, l, 3, a)
	if _, denial := admit(t, e, "sk-1"); denial == nil || asked != "" {
		t.Errorf("a private address was asked %q: %v", asked, denial)
	}
}

func TestFilterThatFailsGoesBack(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	a := attached(1, s.add(wasmtest.Filter{Traps: true}), store.PluginClosed)
	a.Previous, a.Swapped = store.Digest{1}, time.Now()
	want(t, l, 2, a)
	for range 10 {
		if _, denial := admit(t, e, "sk-1"); denial == nil || denial.Code != "plugin_failed" {
			t.Fatalf("a trap: %v", denial)
		}
	}
	eventually(t, "the version is taken back", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.rolled) == 1 && s.rolled[0].From == a.Digest && strings.Contains(s.rolled[0].Why, "unreachable")
	})
}

func TestFilterIsTriedAsItIsAttached(t *testing.T) {
	l, _ := started(t)
	picky := wasmtest.Filter{Picky: true, Schema: `{"type":"object"}`}.Wasm()
	if _, schema, err := l.InspectPlugin(t.Context(), "p", picky); err != nil || schema != `{"type":"object"}` {
		t.Errorf("inspect: %q, %v", schema, err)
	}
	base := store.Attachment{Plugin: "p", PluginSettings: store.PluginSettings{Mode: store.PluginClosed, Config: "{}"}}
	if err := l.TryPlugin(t.Context(), base, picky); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*store.Attachment)
		wasm   []byte
		want   string
	}{
		"no configuration": {func(a *store.Attachment) { a.Config = "" }, picky, "an empty configuration"},
		"a grant":          {func(a *store.Attachment) { a.Grants = []string{"pii"} }, picky, `there is no capability "pii" to grant; there are: log`},
		"an upstream of weir/1": {
			func(a *store.Attachment) { a.Upstreams = []store.PluginUpstream{{Name: "a", URL: "https://a"}} }, tagging("x").Wasm(), "speaks weir/1",
		},
		"a header": {func(a *store.Attachment) { a.Headers = []string{"x-none"} }, picky, "does not come to the processor"},
	} {
		a := base
		c.change(&a)
		err := l.TryPlugin(t.Context(), a, c.wasm)
		r, ok := errors.AsType[*Refusal](err)
		if !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprint(r.Reason, "; ", r.Hint()); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
