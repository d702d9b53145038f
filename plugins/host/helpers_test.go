// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// asking is a plugin that calls a helper with some texts in its memory (at 1, 2 and 3 times 256) and gives back, as its state, 8 bytes of result and what the helper
// wrote behind them.
func asking(name string, texts []string, args ...Code) []byte {
	h := helpers[name]
	m := builder(func(m *Builder) { m.Import(moduleHelpers, name, []byte(h.params), []byte(h.results)) })
	for i, text := range texts {
		m.Data((i+1)*256, []byte(text))
	}
	const room = 40
	m.Data(answerAt, abi.AppendBytes(nil, 9, make([]byte, room)))
	code := Seq(I32Const(answerAt+8), Seq(args...), Call(0))
	switch h.results {
	case typeI32:
		code = Seq(code, Op(0xac), Op(0x37, 3, 0)) // extend, store
	case typeI64:
		code = Seq(code, Op(0x37, 3, 0))
	default:
		code = Seq(code, Drop())
	}
	hook(m, exportRequest, nil, code, answering(8+room))
	return m.Bytes()
}

func ask(t *testing.T, h *Host, name string, texts []string, args ...Code) (int64, []uint32, Result) {
	t.Helper()
	r := load(t, h, asking(name, texts, args...), func(s *Source) { s.Grants = Capabilities() }).Request(t.Context(), request(), Closed)
	if r.Failure != nil {
		t.Fatal(r.Failure)
	}
	n := u32s(r.Verdict.State)
	return int64(n[0]) | int64(n[1])<<32, n[2:], r
}

// at pushes address and length of a text.
func at(i int, text string) Code { return Seq(I32Const(int32((i+1)*256)), I32Const(int32(len(text)))) }

func TestHelpersHelp(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_700_000_000, 5)}
	h := newHost(t, Options{Clock: c.Now})
	out := I32Const(answerAt + 16)

	if n, _, _ := ask(t, h, "now", nil); n != c.now.UnixNano() {
		t.Errorf("now is %d", n)
	}

	pattern, text := `\bb[a-z]+`, "bab xb bcd be"
	if n, out, _ := ask(t, h, "find", []string{pattern, text}, at(0, pattern), at(1, text), out, I32Const(3)); n != 3 || fmt.Sprint(out[:6]) != "[0 3 7 10 11 13]" {
		t.Errorf("find: %d %v", n, out)
	}
	if n, _, _ := ask(t, h, "find", []string{"(", text}, at(0, "("), at(1, text), out, I32Const(3)); n != -1 {
		t.Errorf("find of a wrong pattern: %d", n)
	}
	huge := "((a{100}){100}){100}"
	if n, _, _ := ask(t, h, "find", []string{huge, text}, at(0, huge), at(1, text), out, I32Const(3)); n != -1 {
		t.Errorf("find of a large pattern: %d", n)
	}

	text = "mail a@b.org or 10.0.0.1"
	if n, out, _ := ask(t, h, "scan", []string{text}, I32Const(1|16), at(0, text), out, I32Const(2)); n != 2 || fmt.Sprint(out[:6]) != "[5 12 1 16 24 16]" {
		t.Errorf("scan: %d %v", n, out)
	}
	if n, _, _ := ask(t, h, "scan", []string{text}, I32Const(1|16), at(0, text), out, I32Const(1)); n != 1 {
		t.Errorf("scan of one: %d", n)
	}

	text = `{"a":[1,{"b":"c"}]}`
	if n, _, _ := ask(t, h, "json", []string{text, "a.1.b"}, at(0, text), at(1, "a.1.b")); n != 13<<32|3 {
		t.Errorf("json: %#x", n)
	}
	if n, _, _ := ask(t, h, "json", []string{text, "a.2"}, at(0, text), at(1, "a.2")); n != -1 {
		t.Errorf("json of nothing: %d", n)
	}
	if n, _, _ := ask(t, h, "json", []string{"[", "1"}, at(0, "["), at(1, "1")); n != -2 {
		t.Errorf("json of no JSON: %d", n)
	}

	_, _, r := ask(t, h, "log", []string{"hello"}, I32Const(2), at(0, "hello"))
	if diff := cmp.Diff([]LogLine{{2, "hello"}}, r.Logs); diff != "" {
		t.Error(diff)
	}

	for _, tt := range []struct {
		after time.Duration
		want  int64
	}{{0, 5}, {0, 10}, {time.Minute, 5}, {time.Second, 10}} {
		c.Add(tt.after)
		if n, _, _ := ask(t, h, "count", []string{"hits"}, at(0, "hits"), I64Const(5), I64Const(60_000)); n != tt.want {
			t.Errorf("count: %d, want %d", n, tt.want)
		}
	}
}

func TestCountersAreOfOneTenantAndOnePluginAndFew(t *testing.T) {
	t.Parallel()
	c, now := NewCounters(), time.Unix(1000, 0)
	add := func(tenant int64, plugin, name string) int64 {
		n, ok := c.Add(Counter{tenant, plugin, name}, 1, 0, now)
		if !ok {
			return -1
		}
		return n
	}
	for range 3 {
		add(1, "p", "n")
	}
	if a, b, d, e := add(1, "p", "n"), add(2, "p", "n"), add(1, "q", "n"), add(1, "p", "m"); a != 4 || b != 1 || d != 1 || e != 1 {
		t.Errorf("%d %d %d %d", a, b, d, e)
	}
	for n := range maxCounters {
		c.Add(Counter{3, "p", fmt.Sprint(n)}, 1, time.Second, now)
	}
	if n := add(3, "p", "one more"); n != -1 {
		t.Errorf("one more than there is room for: %d", n)
	}
	now = now.Add(time.Minute)
	if n := add(3, "p", "one more"); n != 1 {
		t.Errorf("after the others have ended: %d", n)
	}
}

func TestLogsAreCut(t *testing.T) {
	t.Parallel()
	l := logs{limits: &Limits{LogBytes: 100, LogLines: 3}}
	for _, n := range []int{50, 60, 40, 5, 5, 5} {
		l.add(9, []byte(strings.Repeat("x", n)))
	}
	if len(l.lines) != 3 || l.bytes != 95 || l.dropped != 3 || l.lines[0].Level != 3 {
		t.Errorf("%d lines of %d bytes, %d dropped", len(l.lines), l.bytes, l.dropped)
	}
}

func TestJSONPathsFindWhatParsersFind(t *testing.T) {
	t.Parallel()
	text := ` { "a" : [ 1 , {"b.c":"x\"y", "d\\e":{}} , [] ] , "n":null,"esc\u0061pe":-1.5e3, "":{"":true} } `
	for path, want := range map[string]string{
		"a.0": "1", `a.1.b\.c`: `"x\"y"`, `a.1.d\\e`: "{}", "a.2": "[]", "n": "null", "escape": "-1.5e3", "a.3": "", "b": "", "a.x": "", "n.x": "", "a.-1": "",
	} {
		start, end, err := findJSON([]byte(text), path)
		got := ""
		if err == nil && start >= 0 {
			got = text[start:end]
		}
		if err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	for _, bad := range []string{"", "{", `{"a"`, `{"a":`, `{"a" 1}`, `{"b":1 "a":1}`, `{"b":}`, `["`, strings.Repeat("[", 500)} {
		if _, _, err := findJSON([]byte(bad), "a.0"); err == nil && strings.HasPrefix(bad, "{") {
			t.Errorf("%q is taken for JSON", bad)
		}
	}
}

// FuzzFindJSON looks for texts on which the search panics, or finds something else than encoding/json.
func FuzzFindJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"c"}],"d":null}`), "a.1.b")
	f.Add([]byte(`[[],{"":0}]`), "1.")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		start, end, err := findJSON(text, path)
		if !json.Valid(text) {
			return
		}
		if err != nil && !strings.Contains(string(text), strings.Repeat("[", 100)) && len(text) < 200 {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil && start >= 0 && !json.Valid(text[start:end]) {
			t.Fatalf("%q at %q is %q", text, path, text[start:end])
		}
	})
}

func TestTokensAreCountedWhenThePluginAsks(t *testing.T) {
	t.Parallel()
	asked := 0
	x := request()
	x.Tokens = func() int64 { asked++; return 42 }
	source := func(s *Source) { s.Grants = Capabilities() }
	h := newHost(t, Options{})
	asks := load(t, h, asking("tokens", nil), source)
	r := asks.Request(t.Context(), x, Closed)
	if r.Failure != nil || u32s(r.Verdict.State)[0] != 42 || asked != 1 {
		t.Errorf("counted %d times: %+v", asked, r)
	}
	if least := int64(costTokens + costTokensByte*len(x.Append(nil))); r.Fuel < least {
		t.Errorf("it used %d fuel, at least %d", r.Fuel, least)
	}
	x.Tokens = nil
	if r := asks.Request(t.Context(), x, Closed); r.Failure != nil || u32s(r.Verdict.State)[0] != 0 {
		t.Errorf("with nothing known: %+v", r)
	}
	if r := load(t, h, saying(nil).Bytes(), source).Request(t.Context(), request(), Closed); r.Failure != nil || asked != 1 {
		t.Errorf("counted %d times for a plugin that does not ask: %v", asked, r.Failure)
	}
	if _, err := h.Load(t.Context(), Source{Name: "p", Wasm: asking("tokens", nil)}); err == nil || !strings.Contains(err.Error(), `the capability "tokens"`) {
		t.Errorf("without the capability: %v", err)
	}
}
