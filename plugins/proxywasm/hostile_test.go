// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-proxy/weir/plugins/host"
	w "github.com/weir-proxy/weir/plugins/wasmtest"
)

func TestHostileGuestsFailAlone(t *testing.T) {
	t.Parallel()
	loop := w.Loop(w.Br(0))
	for name, c := range map[string]struct {
		hook string
		code func(g *guest) w.Code
		want host.Reason
	}{
		"loop at the headers": {exportRequestHeaders, func(*guest) w.Code { return loop }, host.OutOfFuel},
		"loop at the body":    {exportRequestBody, func(*guest) w.Code { return loop }, host.OutOfFuel},
		"loop of host calls": {exportRequestBody, func(g *guest) w.Code {
			return w.Loop(g.try("proxy_get_current_time_nanoseconds", num(out)), w.Br(0))
		}, host.OutOfFuel},
		"flood of the log": {exportRequestBody, func(g *guest) w.Code {
			return w.Loop(g.try("proxy_log", num(2), g.text("all work and no play")), w.Br(0))
		}, host.OutOfFuel},
		"trap":           {exportRequestBody, func(*guest) w.Code { return w.Unreachable() }, host.Trap},
		"deep recursion": {exportRequestBody, func(g *guest) w.Code { return w.Call(len(g.imports) + 2) }, host.OutOfStack},
		"memory it has not": {exportRequestBody, func(g *guest) w.Code {
			return g.try("proxy_log", num(2), num(-16), num(8))
		}, host.BadPointer},
		"result where there is no memory": {exportRequestBody, func(g *guest) w.Code {
			return g.try("proxy_get_buffer_bytes", num(0), num(0), num(100), num(-4), num(out))
		}, host.BadPointer},
		"growing body": {exportRequestBody, func(g *guest) w.Code {
			return w.Loop(g.try("proxy_set_buffer_bytes", num(0), num(0), num(0), num(0), num(1<<16)), w.Br(0))
		}, host.OutOfFuel},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuest()
			code := c.code(g)
			g.Func("spare", nil, nil, nil, w.Call(len(g.imports)+2)) // calls itself: the third function of its own
			g.hook(c.hook, code, goOn)
			p := g.load(t, Source{Limits: Limits{Limits: host.Limits{Fuel: 3_000_000, FuelPerByte: 1, Time: time.Minute}}})
			a := p.ask(t, Place{}, question())
			if f := a.failure(); f == nil || f.Reason != c.want {
				t.Errorf("failure %v, want one of %s", f, c.want)
			}
			if a.denial == nil || a.denial.Status != 503 {
				t.Errorf("denial %v", a.denial)
			}
		})
	}
}

// TestEveryFunctionWithstandsWildArguments calls each function with arguments of all kinds. Nothing may come of it but a status, or a failure that is the plugin's.
func TestEveryFunctionWithstandsWildArguments(t *testing.T) {
	t.Parallel()
	for name, f := range functions {
		for _, wild := range []int32{0, 1, 7, out, -1, -16, 1 << 30, 64<<16 - 2} {
			g := newGuest()
			var args []w.Code
			for _, kind := range []byte(f.Params) {
				if kind == i64[0] {
					args = append(args, w.I64Const(int64(wild)<<20))
				} else {
					args = append(args, num(wild))
				}
			}
			g.hook(exportRequestBody, g.try(name, args...), goOn)
			a := g.load(t, Source{Limits: Limits{Limits: host.Limits{Fuel: 10_000_000}}}).ask(t, Place{}, question())
			if f := a.failure(); f != nil && !slices.Contains([]host.Reason{host.BadPointer, host.OutOfFuel, host.Trap}, f.Reason) {
				t.Errorf("%s(%d, …): %v", name, wild, f)
			}
		}
	}
}

func TestAllocatorsAreNotTrusted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code func(m *w.Builder, get int) []w.Code
		want host.Reason
	}{
		"that give nothing":             {func(*w.Builder, int) []w.Code { return []w.Code{num(0)} }, host.BadPointer},
		"that give what is not theirs":  {func(*w.Builder, int) []w.Code { return []w.Code{num(-8)} }, host.BadPointer},
		"that trap":                     {func(*w.Builder, int) []w.Code { return []w.Code{w.Unreachable()} }, host.Trap},
		"that loop":                     {func(*w.Builder, int) []w.Code { return []w.Code{w.Loop(w.Br(0)), num(0)} }, host.OutOfFuel},
		"that ask for more of the same": {func(_ *w.Builder, get int) []w.Code { return []w.Code{bodyInto(get), num(heap)} }, host.Trap},
	} {
		m := w.NewBuilder()
		get := m.Import(importModule, "proxy_get_buffer_bytes", []byte(five), []byte(i32))
		m.Memory(4, 64)
		m.Func(versionPrefix+"0_2_0", nil, nil, nil)
		m.Func(exportAllocate, w.Types{w.I32}, w.Types{w.I32}, nil, c.code(m, get)...)
		m.Func(exportRequestBody, w.Types{w.I32, w.I32, w.I32}, w.Types{w.I32}, nil, bodyInto(get), goOn)
		g := &guest{Builder: m}
		p := g.load(t, Source{Limits: Limits{Limits: host.Limits{Fuel: 3_000_000, FuelPerByte: 1, Time: time.Minute}}})
		if f := p.ask(t, Place{}, question()).failure(); f == nil || f.Reason != c.want {
			t.Errorf("%s: %v, want %s", name, f, c.want)
		}
	}
}

func bodyInto(get int) w.Code {
	return w.Seq(num(bufferRequestBody), num(0), num(100), num(out), num(out+4), w.Call(get), w.Drop())
}

func TestPluginThatFailsOftenIsLeftAlone(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportRequestBody, w.Unreachable())
	p := g.load(t, Source{})
	for range 10 {
		p.ask(t, Place{Mode: host.Open}, question())
	}
	if f := p.ask(t, Place{Mode: host.Open}, question()).failure(); f == nil || f.Reason != host.Quarantined {
		t.Errorf("the eleventh time: %v", f)
	}
	theirs := question()
	other := *theirs.Tenant
	other.ID++
	theirs.Tenant = &other
	if f := p.ask(t, Place{Mode: host.Open}, theirs).failure(); f == nil || f.Reason != host.Trap {
		t.Errorf("another tenant: %v", f)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseBody, goOn)
	p := g.load(t, Source{Limits: Limits{Streams: 2, Limits: host.Limits{Time: 10 * time.Millisecond}}})
	one, two := p.Judge(Place{}), p.Judge(Place{})
	for _, j := range []interface{ Abandon() }{one, two} {
		defer j.Abandon()
	}
	_, _ = one.Request(question())
	_, _ = two.Request(question())
	if f := p.ask(t, Place{}, question()).failure(); f == nil || f.Reason != host.Busy {
		t.Errorf("the third stream: %v", f)
	}
	one.Abandon()
	if f := p.ask(t, Place{}, question()).failure(); f != nil {
		t.Errorf("when there is room again: %v", f)
	}
}

func FuzzHeadersAreReadAsTheyAreWritten(f *testing.F) {
	f.Add(headers{{Name: "a", Value: "b"}, {Name: ":path", Value: ""}}.encode())
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := decodeHeaders(b)
		if !ok {
			return
		}
		again, ok := decodeHeaders(h.encode())
		if diff := cmp.Diff(again, h, cmpopts.EquateEmpty()); !ok || diff != "" {
			t.Error(diff)
		}
		if h.replace("x-new", "1"); !bytes.Contains(h.encode(), []byte("x-new")) {
			t.Error("it was not set")
		}
	})
}

func TestLogIsPassedOnOnlyIfItIsGranted(t *testing.T) {
	t.Parallel()
	for _, granted := range []bool{false, true} {
		var log bytes.Buffer
		h, err := host.New(t.Context(), host.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		mine, err := New(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		g := newGuest()
		g.hook(exportRequestBody, g.try("proxy_log", num(2), g.text("the prompt")), goOn)
		p, err := mine.Load(t.Context(), Source{Name: "p", Wasm: g.Bytes(), Log: granted})
		if err != nil {
			t.Fatal(err)
		}
		p.ask(t, Place{}, question())
		if got := strings.Contains(log.String(), "the prompt"); got != granted {
			t.Errorf("granted %v, logged %v", granted, got)
		}
		if err := errors.Join(p.Close(), h.Close(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// In Envoy, access logs and traces show what a plugin sets as properties; here its log does, and who plays a trial is told.
func TestPropertiesAreLoggedAtTheEndIfTheLogIsGranted(t *testing.T) {
	t.Parallel()
	for level, want := range map[slog.Level]uint64{slog.LevelDebug: 200 + levelDebug, slog.LevelInfo: 200 + levelInfo} {
		for _, granted := range []bool{false, true} {
			var log bytes.Buffer
			h, err := host.New(t.Context(), host.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))})
			if err != nil {
				t.Fatal(err)
			}
			mine, err := New(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			g := newGuest()
			g.hook(exportRequestHeaders, g.try("proxy_set_property", g.text("ai_log"), g.text(`{"model":"m"}`)), goOn)
			g.hook(exportRequestBody, g.try("proxy_get_log_level", num(out)), g.tell(w.Seq(num(out), w.I32Load())), goOn)
			p, err := mine.Load(t.Context(), Source{Name: "p", Wasm: g.Bytes(), Log: granted})
			if err != nil {
				t.Fatal(err)
			}
			var told map[string][]byte
			_, denial := p.Judge(Place{Properties: func(set map[string][]byte) { told = set }}).Request(question())
			if string(told["ai_log"]) != `{"model":"m"}` {
				t.Errorf("told of %q", told)
			}
			if got := strings.Contains(log.String(), `ai_log`) && strings.Contains(log.String(), question().Exchange.String()); got != granted {
				t.Errorf("granted %v, logged %s", granted, log.String())
			}
			status := want
			if !granted {
				status = 200 + levelInfo // nobody would read more
			}
			if denial == nil || denial.Reply == nil || denial.Reply.Status != int(status) {
				t.Errorf("at %v, granted %v, the level is told as %+v", level, granted, denial)
			}
			if err := errors.Join(p.Close(), h.Close(t.Context())); err != nil {
				t.Error(err)
			}
		}
	}
}
