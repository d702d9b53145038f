// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// clock is one that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func denial() []byte {
	return abi.AppendMessage(abi.AppendNumber(nil, 1, 1), 2, func(b []byte) []byte {
		return abi.AppendBytes(abi.AppendBytes(abi.AppendNumber(b, 1, 418), 2, "teapot"), 3, "No coffee.")
	})
}

func TestModesSayWhatAFailureMeans(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	denies := load(t, h, saying(denial()).Bytes())
	m := builder(nil)
	hook(m, exportRequest, nil, Unreachable())
	fails := load(t, h, m.Bytes())
	deny := &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 418, Code: "teapot", Message: "No coffee."}}
	for _, tt := range []struct {
		name          string
		p             *Plugin
		mode          Mode
		verdict       *abi.Verdict
		would         *abi.Verdict
		failed, event bool
	}{
		{"closed", denies, Closed, deny, nil, false, false},
		{"open", denies, Open, deny, nil, false, false},
		{"shadow", denies, Shadow, &abi.Verdict{}, deny, false, false},
		{"closed, failing", fails, Closed, deniedByFailure(), nil, true, false},
		{"open, failing", fails, Open, &abi.Verdict{}, nil, true, false},
		{"shadow, failing", fails, Shadow, &abi.Verdict{}, nil, true, false},
		{"event", denies, Closed, deny, nil, false, true},
		{"event without a hook", fails, Closed, &abi.Verdict{}, nil, false, true},
	} {
		r := Result{}
		if tt.event {
			r = tt.p.Event(t.Context(), event(), tt.mode)
		} else {
			r = tt.p.Request(t.Context(), request(), tt.mode)
		}
		if (r.Failure != nil) != tt.failed {
			t.Errorf("%s: failure %v", tt.name, r.Failure)
		}
		if diff := cmp.Diff([]*abi.Verdict{tt.verdict, tt.would}, []*abi.Verdict{r.Verdict, r.Would}); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestPluginsThatFailOftenAreLeftAlone(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &clock{now: time.Unix(1_000_000, 0)}
	h := newHost(t, Options{Clock: c.Now, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	// Requests of tenant 7 with a message trap, others go on: the length of the input tells.
	m := builder(nil)
	hook(m, exportRequest, nil, Get(1), I32Const(100), Op(0x4b), If(Unreachable()), goOn())
	p := load(t, h, m.Bytes())
	bad, good := request(), &abi.Exchange{Caller: abi.Caller{Tenant: 7}}
	for n := range tooManyFailures {
		if r := p.Request(t.Context(), bad, Closed); r.Failure == nil || r.Failure.Reason != Trap {
			t.Fatalf("call %d: %v", n, r.Failure)
		}
	}
	r := p.Request(t.Context(), good, Closed)
	if r.Failure == nil || r.Failure.Reason != Quarantined || !strings.Contains(r.Failure.Detail, "unreachable") || r.Verdict.Action != abi.Deny {
		t.Fatalf("after %d failures: %+v", tooManyFailures, r.Failure)
	}
	if until, why := p.Quarantine(7); until.IsZero() || why == "" {
		t.Error("nobody can see it")
	}
	if n := strings.Count(out.String(), "left alone"); n != 1 {
		t.Errorf("it was logged %d times: %s", n, out.String())
	}
	other := &abi.Exchange{Caller: abi.Caller{Tenant: 8}}
	if r := p.Request(t.Context(), other, Closed); r.Failure != nil {
		t.Errorf("another tenant: %v", r.Failure)
	}
	c.Add(quarantine)
	if r := p.Request(t.Context(), bad, Closed); r.Failure == nil || r.Failure.Reason != Trap {
		t.Fatalf("the trial: %v", r.Failure)
	}
	if r := p.Request(t.Context(), good, Closed); r.Failure == nil || r.Failure.Reason != Quarantined {
		t.Fatalf("after a trial that failed: %v", r.Failure)
	}
	c.Add(quarantine)
	for range 3 {
		if r := p.Request(t.Context(), good, Closed); r.Failure != nil {
			t.Fatalf("after a trial that went well: %v", r.Failure)
		}
	}
}

func TestBreakerForgetsWhatItHasNoRoomFor(t *testing.T) {
	t.Parallel()
	var b breaker
	now := time.Unix(1_000_000, 0)
	for tenant := range int64(3 * maxTenants) {
		b.note(tenant, &Failure{}, now)
		if len(b.tenants) > maxTenants {
			t.Fatalf("%d tenants are remembered", len(b.tenants))
		}
	}
}

func TestCallsWaitTheirTurnAndNoLonger(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	p := load(t, h, saying(nil).Bytes(), func(s *Source) { s.Limits.Concurrency = 1; s.Limits.Time = time.Millisecond })
	i, err := p.pool.take(t.Context(), p, 1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Request(t.Context(), request(), Closed); r.Failure == nil || r.Failure.Reason != Busy {
		t.Errorf("with one call under way: %v", r.Failure)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	p.limits.Time = time.Minute
	if r := p.Request(gone, request(), Closed); r.Failure == nil || r.Failure.Reason != Canceled {
		t.Errorf("without a caller: %v", r.Failure)
	}
	if until, _ := p.Quarantine(7); !until.IsZero() {
		t.Error("the plugin is blamed for it")
	}
	p.pool.drop(i)
	if r := p.Request(t.Context(), request(), Closed); r.Failure != nil {
		t.Errorf("after it: %v", r.Failure)
	}
}

func TestCallsEndWithTheirTimeAndTheirCaller(t *testing.T) {
	t.Parallel()
	m := builder(nil)
	hook(m, exportRequest, nil, Loop(Br(0)), goOn())
	for want, change := range map[Reason]func(s *Source){
		OutOfTime: func(s *Source) { s.Limits.Fuel = 1 << 50; s.Limits.Time = time.Millisecond },
		Canceled:  func(s *Source) { s.Limits.Fuel = 1 << 50 },
	} {
		p := load(t, newHost(t, Options{}), m.Bytes(), change)
		ctx, cancel := context.WithCancel(t.Context())
		if want == Canceled {
			cancel()
		}
		if r := p.Request(ctx, request(), Closed); r.Failure == nil || r.Failure.Reason != want {
			t.Errorf("%v; want %s", r.Failure, want)
		}
		cancel()
	}
}

func TestEachCallBeginsPristine(t *testing.T) {
	t.Parallel()
	// Every call checks that no word of two pages is what the call before left there, then writes all over them, globals too.
	m := builder(nil)
	g := m.Global(I64, true, I64Const(41))
	m.Func(exportInitialize, nil, nil, nil, I64Const(42), GlobalSet(g), I32Const(64), I32Const(77), I32Store())
	hook(m, exportRequest, Types{I32},
		GlobalGet(g), I64Const(42), Op(0x52), If(Unreachable()),
		I32Const(64), I32Load(), I32Const(77), Op(0x47), If(Unreachable()),
		I32Const(20_000), Set(2),
		Loop(Get(2), I32Load(), If(Unreachable()), Get(2), I32Const(-1), I32Store(), Get(2), I32Const(4), Add(), Tee(2), I32Const(2<<16), Op(0x49), BrIf(0)),
		I64Const(0), GlobalSet(g), I32Const(64), I32Const(0), I32Store(), goOn())
	p := load(t, newHost(t, Options{}), m.Bytes())
	for n := range 5 * learnFrom {
		if r := p.Request(t.Context(), request(), Closed); r.Failure != nil {
			t.Fatalf("call %d: %v", n, r.Failure)
		}
	}
	if len(p.image.hot.ranges()) == 0 {
		t.Log("no hot pages were learned") // other systems than Linux copy everything
	}
}

func TestModulesWithOtherStateGetNewInstances(t *testing.T) {
	t.Parallel()
	m := builder(nil)
	m.Table(FuncRef, 2, 2)
	f := hook(m, exportRequest, nil, I32Const(1), Op(0x25, 0), Op(0xd1, 0x45), If(Unreachable()), I32Const(1), U32([]byte{0xd2}, 2), Op(0x26, 0), goOn())
	m.Elem(0, f)
	p := load(t, newHost(t, Options{}), m.Bytes())
	if p.About().Obstacle == "" {
		t.Fatal("nothing is said of the table")
	}
	for n := range 20 {
		if r := p.Request(t.Context(), request(), Closed); r.Failure != nil {
			t.Fatalf("call %d: %v", n, r.Failure)
		}
	}
}

func TestStartingForACallHasTheTimeOfACall(t *testing.T) {
	t.Parallel()
	// It has state that no image holds, so each call starts it anew; starting takes all the fuel that there is.
	m := builder(nil)
	m.Table(FuncRef, 1, 1)
	m.Func(exportInitialize, nil, nil, Types{I32}, I32Const(300_000), Set(0), Loop(Get(0), I32Const(1), Sub(), Tee(0), BrIf(0)),
		I32Const(0), Op(0xd0, FuncRef), Op(0x26, 0))
	hook(m, exportRequest, nil, goOn())
	p := load(t, newHost(t, Options{}), m.Bytes(), func(s *Source) { s.Limits.Time = time.Nanosecond })
	r := p.Request(t.Context(), request(), Closed)
	if r.Failure == nil || r.Failure.Reason != OutOfTime || r.Failure.Call != exportInitialize {
		t.Errorf("%v", r.Failure)
	}
}

func TestClosingWaitsForCalls(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{CacheDir: t.TempDir()})
	for range 20 {
		p, err := h.Load(t.Context(), Source{Name: "it", Wasm: rustGuard(t), Limits: patient()})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		began := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				i, err := p.pool.take(t.Context(), p, 1, time.Minute)
				began <- struct{}{}
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := i.invoke(exportRequest, nil); err == nil || !strings.Contains(err.Error(), "fuel") {
					t.Errorf("without fuel: %v", err) // and not a fault: its memory is still there
				}
				p.pool.drop(i)
			})
		}
		for range 4 {
			<-began
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("the second time: %v", err)
		}
		wg.Wait()
	}
}

func TestModulesThatAreNoPluginsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	plain := func(change func(m *Builder)) []byte {
		m := NewBuilder()
		change(m)
		return m.Bytes()
	}
	for name, tt := range map[string]struct {
		wasm []byte
		want string
	}{
		"text":      {[]byte("(module)"), "not a core WebAssembly module"},
		"other":     {plain(func(m *Builder) { m.Memory(1, 1) }), "does not export weir_abi_1"},
		"no hook":   {builder(nil).Bytes(), "nothing to call"},
		"no memory": {plain(func(m *Builder) { m.Func(exportVersion, nil, nil, nil) }), "does not export its memory"},
		"wrong type": {plain(func(m *Builder) {
			m.Func(exportVersion, nil, nil, nil)
			m.Func(exportRequest, Types{F32, V128}, nil, nil)
		}), "weir_request should be (i32, i32) -> (i64)"},
		"import":      {builder(func(m *Builder) { m.Import("env", "abort", nil, nil) }).Bytes(), "imports env.abort, which weir/1 does not have"},
		"import type": {builder(func(m *Builder) { m.Import("weir", "now", nil, Types{I32}) }).Bytes(), "another type than () -> (i64)"},
		"capability":  {builder(func(m *Builder) { m.Import("weir", "now", nil, Types{I64}) }).Bytes(), `needs the capability "clock"`},
		"invalid": {plain(func(m *Builder) {
			m.Memory(1, 1)
			m.Func(exportVersion, nil, nil, nil)
			m.Func(exportAlloc, Types{I32}, Types{I32}, nil)
			hook(m, exportRequest, nil, goOn())
		}), "compile: invalid function"},
	} {
		_, err := h.Load(t.Context(), Source{Name: "it", Wasm: tt.wasm})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "plugin it: ") {
			t.Errorf("%s: %v; want something of %q", name, err, tt.want)
		}
	}
}

func TestConfigurationIsTakenOrRefusedWithAReason(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	m := builder(nil)
	m.Data(answerAt, []byte("no colour is set"))
	hook(m, exportConfigure, nil, Get(1), I32Const(2), Op(0x46), If(answering(16), Return()), goOn())
	hook(m, exportRequest, nil, goOn())
	m.Custom(sectionSchema, []byte(`{"type":"object"}`))
	_, err := h.Load(t.Context(), Source{Name: "it", Wasm: m.Bytes(), Config: []byte("{}")})
	if f, ok := errors.AsType[*Failure](err); !ok || f.Reason != Refused || !strings.Contains(f.Detail, "no colour is set") {
		t.Errorf("error %v", err)
	}
	p := load(t, h, m.Bytes(), func(s *Source) { s.Config = []byte("{ }") })
	if got := string(p.About().Schema); got != `{"type":"object"}` {
		t.Errorf("schema %q", got)
	}
}

func TestManyGoroutinesUseAPlugin(t *testing.T) {
	t.Parallel()
	p := load(t, newHost(t, Options{}), rustGuard(t), func(s *Source) { s.Config = []byte("dragon") })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 50 {
				x := prompt(fmt.Sprintf("goroutine %d call %d", g, n))
				x.Caller.Tenant = int64(g % 3)
				r := p.Request(t.Context(), x, Closed)
				want := fmt.Sprint(len("You are terse.") + len(x.Messages[1].Texts[0].Text))
				if r.Failure != nil || len(r.Verdict.Tags) != 1 || r.Verdict.Tags[0].Value != want {
					t.Errorf("%d, %d: %+v", g, n, r)
				}
			}
		})
	}
	wg.Wait()
}

// u32s reads numbers that a helper wrote.
func u32s(b []byte) (n []uint32) {
	for ; len(b) >= 4; b = b[4:] {
		n = append(n, binary.LittleEndian.Uint32(b))
	}
	return n
}
