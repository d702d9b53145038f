// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/host"
	w "github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// num is a constant.
func num(n int32) w.Code { return w.I32Const(n) }

func TestPluginChangesTheRequestButNotWhatIsTheGateways(t *testing.T) {
	t.Parallel()
	g := newGuest()
	headers := num(mapRequestHeaders)
	g.hook(exportRequestHeaders,
		g.try("proxy_replace_header_map_value", headers, g.text("X-Team"), g.text("blue")),
		g.try("proxy_add_header_map_value", headers, g.text("x-new"), g.text("1")),
		g.try("proxy_add_header_map_value", headers, g.text("x-new"), g.text("2")),
		g.try("proxy_add_header_map_value", headers, g.text("authorization"), g.text("Bearer stolen")),
		g.try("proxy_add_header_map_value", headers, g.text("x-weir-exchange-id"), g.text("1")),
		g.try("proxy_add_header_map_value", headers, g.text("x-split"), g.text("a\r\nb: c")),
		g.try("proxy_remove_header_map_value", headers, g.text("x-second")),
		g.try("proxy_remove_header_map_value", headers, g.text("content-length")),
		g.try("proxy_replace_header_map_value", headers, g.text(":path"), g.text("/elsewhere")), goOn)
	g.hook(exportRequestBody, g.try("proxy_set_buffer_bytes", num(bufferRequestBody), num(0), w.Get(1), g.text(`{"model":"n"}`)), goOn)
	p := g.load(t, Source{})
	q := question()
	q.Headers = append(q.Headers, policy.Header{Name: "x-second", Value: "2"})
	a := p.ask(t, Place{Headers: []string{"x-team", "x-second"}}, q)
	if a.denial != nil || a.failure() != nil {
		t.Fatal(a.denial, a.failure())
	}
	want := &policy.Ruling{
		Body: []byte(`{"model":"n"}`), Set: []policy.Header{{Name: "x-team", Value: "blue"}, {Name: "x-new", Value: "1,2"}}, Remove: []string{"x-second"},
	}
	if diff := cmp.Diff(a.ruling, want); diff != "" {
		t.Error(diff)
	}
	if string(q.Body) != hello {
		t.Errorf("the question was changed: %s", q.Body)
	}
	if a := p.ask(t, Place{Mode: host.Shadow}, q); a.ruling != nil || a.denial != nil || a.reports[0].Outcome != Change {
		t.Errorf("in shadow mode: %+v", a)
	}
}

// TestPluginSees has plugins answer with what they are given for a header or a property.
func TestPluginSeesWhatItMaySee(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ function, key, want string }{
		"path":            {"header", ":path", "/v1/chat/completions?a=b"},
		"authority":       {"header", ":authority", "api.example.com"},
		"granted header":  {"header", "x-team", "red"},
		"another header":  {"header", "x-other", ""},
		"key":             {"header", "authorization", ""},
		"length":          {"header", "content-length", "60"},
		"url path":        {"property", "request\x00url_path", "/v1/chat/completions"},
		"query":           {"property", "request\x00query", "a=b"},
		"header property": {"property", "request\x00headers\x00x-team", "red"},
		"address":         {"property", "source\x00address", "10.0.0.1"},
		"plugin":          {"property", "plugin_name", "p"},
		"route":           {"property", "route_name", "chat"},
		"size":            {"property", "request\x00size", "<\x00\x00\x00\x00\x00\x00\x00"},
		"tenant":          {"property", "weir\x00tenant", "3"},
		"response":        {"property", "response\x00code", ""},
		"its own":         {"property", "mine", "yes"},
		"unknown":         {"property", "node\x00id", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuest()
			get := g.try("proxy_get_property", g.text(c.key), num(out), num(out+4))
			if c.function == "header" {
				get = g.try("proxy_get_header_map_value", num(mapRequestHeaders), g.text(c.key), num(out), num(out+4))
			}
			zero := num(0)
			g.hook(exportRequestBody,
				g.try("proxy_set_property", g.text("mine"), g.text("yes")), get,
				g.try("proxy_send_local_response", num(200), zero, zero,
					w.Seq(num(out), w.I32Load()), w.Seq(num(out+4), w.I32Load()), zero, zero, num(-1)), goOn)
			a := g.load(t, Source{}).ask(t, Place{Headers: []string{"x-team"}}, question())
			if got := string(a.denial.Reply.Body); got != c.want {
				t.Errorf("it sees %q, want %q", got, c.want)
			}
		})
	}
}

func TestFirstLocalResponseCounts(t *testing.T) {
	t.Parallel()
	g := newGuest()
	fields := string(headers{{Name: "content-type", Value: "application/json"}, {Name: "x-reason", Value: "no"}, {Name: "set-cookie", Value: "a=b"}}.encode())
	local := func(status int32, body string) w.Code {
		return g.try("proxy_send_local_response", num(status), g.text("details"), g.text(body), g.text(fields), num(-1))
	}
	g.hook(exportRequestHeaders, local(451, `{"no":1}`), local(200, "second"), stop)
	g.hook(exportRequestBody, w.Unreachable()) // it is not asked any more
	a := g.load(t, Source{}).ask(t, Place{}, question())
	want := policy.Replied(&policy.Reply{Status: 451, Body: []byte(`{"no":1}`), Headers: []policy.Header{
		{Name: "content-type", Value: "text/plain"}, {Name: "content-type", Value: "application/json"}, {Name: "x-reason", Value: "no"},
	}})
	if diff := cmp.Diff(a.denial, want); diff != "" {
		t.Error(diff)
	}
	if len(a.reports) != 1 || a.reports[0].Outcome != Deny || a.failure() != nil {
		t.Errorf("reports %+v", a.reports)
	}
}

func TestWhatAFailureMeansIsUpToTheMode(t *testing.T) {
	t.Parallel()
	trap := newGuest()
	trap.hook(exportRequestBody, w.Unreachable())
	pause := newGuest()
	pause.hook(exportRequestBody, stop)
	for name, c := range map[string]struct {
		guest *guest
		want  host.Reason
	}{"a trap": {trap, host.Trap}, "a pause without end": {pause, host.BadAnswer}} {
		p := c.guest.load(t, Source{})
		for _, mode := range []host.Mode{host.Closed, host.Open, host.Shadow} {
			a := p.ask(t, Place{Mode: mode}, question())
			if denied := a.denial != nil && a.denial.Status == 503; denied != (mode == host.Closed) || a.ruling != nil {
				t.Errorf("%s in mode %d: %v, %+v", name, mode, a.denial, a.ruling)
			}
			if f := a.failure(); f == nil || f.Reason != c.want || f.Call != exportRequestBody {
				t.Errorf("%s in mode %d: failure %v", name, mode, f)
			}
		}
	}
}

func TestEachStreamBeginsInThePristineState(t *testing.T) {
	t.Parallel()
	g := newGuest()
	count := w.Seq(num(out), w.Seq(num(out), w.I32Load(), num(1), w.Add()), w.I32Store())
	g.Func(exportConfigure, w.Types{w.I32, w.I32}, w.Types{w.I32}, nil, count, count, count, num(1))
	g.hook(exportRequestBody, count, g.tell(w.Seq(num(out), w.I32Load())), goOn)
	p := g.load(t, Source{})
	fuel := int64(0)
	for range 20 {
		a := p.ask(t, Place{}, question())
		if n := a.told(t); n != 4 {
			t.Fatalf("it has counted to %d", n)
		}
		if used := a.reports[0].Fuel; fuel != 0 && used != fuel {
			t.Fatalf("it has used %d fuel, before it was %d", used, fuel)
		} else {
			fuel = used
		}
	}
}

func TestSharedDataStaysWithItsTenant(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.Func(exportConfigure, w.Types{w.I32, w.I32}, w.Types{w.I32}, nil,
		g.try("proxy_set_shared_data", g.text("k"), g.text("abcde"), num(0)), num(1))
	// Answers with the length that the value had, and makes it longer by its cas.
	g.hook(exportRequestBody,
		g.try("proxy_get_shared_data", g.text("k"), num(out), num(out+4), num(out+8)),
		g.try("proxy_set_shared_data", g.text("k"), num(1024), num(7), w.Seq(num(out+8), w.I32Load())),
		g.tell(w.Seq(num(out+4), w.I32Load())), goOn)
	p := g.load(t, Source{})
	mine, theirs := question(), question()
	theirs.Tenant = &policy.Tenant{ID: 4}
	for i, c := range []struct {
		q    *policy.Question
		want int
	}{{mine, 5}, {mine, 7}, {theirs, 5}, {theirs, 7}} {
		if n := p.ask(t, Place{}, c.q).told(t); n != c.want {
			t.Errorf("step %d: the value has %d bytes, want %d", i, n, c.want)
		}
	}
}

func TestSharedDataIsChangedByWhoHasSeenItOnly(t *testing.T) {
	t.Parallel()
	var s stores
	if got := s.set(1, "k", []byte("a"), 9); got != statusCASMismatch {
		t.Errorf("a value that is not there: %d", got)
	}
	if got := s.set(1, "k", []byte("a"), 0); got != statusOK {
		t.Errorf("the first: %d", got)
	}
	v, _ := s.get(1, "k")
	if got := s.set(1, "k", []byte("b"), v.cas); got != statusOK {
		t.Errorf("the second: %d", got)
	}
	if got := s.set(1, "k", []byte("c"), v.cas); got != statusCASMismatch {
		t.Errorf("who has seen the first only: %d", got)
	}
	if got := s.set(1, "large", make([]byte, maxSharedBytes), 0); got != statusInternalFailure {
		t.Errorf("too much: %d", got)
	}
}

func TestMetricsAreKeptForEachTenant(t *testing.T) {
	t.Parallel()
	g := newGuest()
	define := func(kind int32, name string) w.Code {
		return g.try("proxy_define_metric", num(kind), g.text(name), num(out+4*kind))
	}
	id := func(kind int32) w.Code { return w.Seq(num(out+4*kind), w.I32Load()) }
	g.Func(exportConfigure, w.Types{w.I32, w.I32}, w.Types{w.I32}, nil, define(0, "requests"), define(2, "sizes"), num(1))
	g.hook(exportRequestBody, define(0, "requests"), define(1, "level"),
		g.try("proxy_increment_metric", id(0), w.I64Const(2)),
		g.try("proxy_record_metric", id(1), w.I64Const(-5)),
		g.try("proxy_record_metric", id(2), w.I64Const(10)), goOn)
	p := g.load(t, Source{})
	p.ask(t, Place{}, question())
	p.ask(t, Place{}, question())
	want := []Metric{{Name: "level", Kind: Gauge, Value: -5}, {Name: "requests", Value: 4}, {Name: "sizes", Kind: Histogram, Value: 20, Count: 2}}
	if diff := cmp.Diff(p.Metrics(3), want); diff != "" {
		t.Error(diff)
	}
	if m := p.Metrics(4); m != nil {
		t.Errorf("another tenant has %+v", m)
	}
}

func TestModulesThatCannotWorkAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	old := w.NewBuilder()
	old.Memory(1, 1)
	old.Func(versionPrefix+"0_1_0", nil, nil, nil)
	none := w.NewBuilder()
	none.Memory(1, 1)
	stranger := w.NewBuilder()
	stranger.Import(importModule, "proxy_launch_missiles", nil, nil)
	stranger.Memory(1, 1)
	stranger.Func(versionPrefix+"0_2_0", nil, nil, nil)
	refuses := newGuest()
	refuses.Func(exportConfigure, w.Types{w.I32, w.I32}, w.Types{w.I32}, nil,
		refuses.try("proxy_log", num(4), refuses.text("no rules in the configuration")), num(0))
	odd := newGuest()
	odd.Func(exportRequestBody, nil, nil, nil)
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"another version":  {old.Bytes(), "speaks version 0_1_0"},
		"another ABI":      {none.Bytes(), "no plugin of proxy-wasm"},
		"unknown function": {stranger.Bytes(), "env.proxy_launch_missiles, which does not exist here"},
		"configuration":    {refuses.Bytes(), "no rules in the configuration"},
		"type of a hook":   {odd.Bytes(), exportRequestBody + " has 0 parameters"},
	} {
		_, err := tryLoad(t, Source{Wasm: c.wasm})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

func TestTimersQueuesAndGRPCAreRefused(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]int{"proxy_grpc_call": 12, "proxy_register_shared_queue": 3, "proxy_redis_call": 5, "proxy_set_tick_period_milliseconds": 1} {
		g := newGuest()
		var all []w.Code
		for range args {
			all = append(all, num(100))
		}
		g.hook(exportRequestBody, g.tell(g.do(name, all...)), goOn)
		if got := g.load(t, Source{}).ask(t, Place{}, question()).told(t); got != statusUnimplemented {
			t.Errorf("%s answers %d", name, got)
		}
	}
}

// BenchmarkStream is an exchange with a plugin that looks at a header and at the body, which costs next to nothing by itself.
func BenchmarkStream(b *testing.B) {
	g := newGuest()
	g.hook(exportRequestHeaders, g.try("proxy_get_header_map_value", num(mapRequestHeaders), g.text(":path"), num(out), num(out+4)), goOn)
	g.hook(exportRequestBody, g.try("proxy_get_buffer_bytes", num(bufferRequestBody), num(0), w.Get(1), num(out), num(out+4)), goOn)
	p := g.load(b, Source{})
	q := question()
	q.Body = []byte(strings.Repeat(" ", 4<<10) + hello)
	b.ReportAllocs()
	for b.Loop() {
		j := p.Judge(Place{})
		if _, denial := j.Request(q); denial != nil {
			b.Fatal(denial)
		}
	}
}
