// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/plugins/host"
	w "github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// out is where a guest of the tests has results written; what it allocates begins at heap.
const (
	out  = 16
	heap = 1 << 16
)

// guest is a plugin in the making. It imports every function, exports what each plugin must, and allocates without ever freeing.
type guest struct {
	*w.Builder
	imports map[string]int
	texts   int // where the next text goes
}

func newGuest() *guest {
	g := &guest{Builder: w.NewBuilder(), imports: map[string]int{}, texts: 1024}
	for name, f := range functions {
		g.imports[name] = g.Import(importModule, name, []byte(f.Params), []byte(f.Results))
	}
	g.Memory(4, 64)
	top := g.Global(w.I32, true, w.I32Const(heap))
	g.Func(versionPrefix+"0_2_1", nil, nil, nil)
	g.Func(exportAllocate, w.Types{w.I32}, w.Types{w.I32}, nil,
		w.GlobalGet(top), w.GlobalGet(top), w.Get(0), w.Add(), w.GlobalSet(top))
	return g
}

// text puts a text into memory and returns the instructions for its address and length.
func (g *guest) text(s string) w.Code {
	at := g.texts
	g.Data(at, []byte(s))
	g.texts += len(s) + 1
	return w.Seq(w.I32Const(int32(at)), w.I32Const(int32(len(s))))
}

// do calls a function and leaves its status.
func (g *guest) do(name string, args ...w.Code) w.Code {
	return w.Seq(w.Seq(args...), w.Call(g.imports[name]))
}

// try is do, and drops the status.
func (g *guest) try(name string, args ...w.Code) w.Code { return w.Seq(g.do(name, args...), w.Drop()) }

// tell sends a local response whose status is 200 and what code leaves.
func (g *guest) tell(code w.Code) w.Code {
	zero := w.I32Const(0)
	return g.try("proxy_send_local_response", w.Seq(w.I32Const(200), code, w.Add()), zero, zero, zero, zero, zero, zero, w.I32Const(-1))
}

// hook adds one of the four hooks of a stream; code leaves the action.
func (g *guest) hook(name string, code ...w.Code) {
	g.Func(name, w.Types{w.I32, w.I32, w.I32}, w.Types{w.I32}, w.Types{w.I32}, code...)
}

// answered adds the hook for answers to calls.
func (g *guest) answered(code ...w.Code) {
	g.Func(exportCallResponse, w.Types{w.I32, w.I32, w.I32, w.I32, w.I32}, nil, nil, code...)
}

var (
	goOn = w.I32Const(actionContinue)
	stop = w.I32Const(actionStopIteration)
)

// load makes a plugin ready.
func (g *guest) load(t testing.TB, s Source) *Plugin {
	t.Helper()
	s.Wasm = g.Bytes()
	p, err := tryLoad(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryLoad(t testing.TB, s Source) (*Plugin, error) {
	t.Helper()
	h, err := host.New(t.Context(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	mine, err := New(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mine.Close)
	if s.Name == "" {
		s.Name = "p"
	}
	p, err := mine.Load(t.Context(), s)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if len(p.busy) > 0 {
			t.Error("a guest still runs")
		}
		if err := p.Close(); err != nil { // waits for streams that were not ended
			t.Error(err)
		}
	})
	return p, nil
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

func question() *policy.Question {
	return &policy.Question{
		Exchange: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Tenant: &policy.Tenant{ID: 3, Name: "acme"}, Key: &policy.Key{ID: 7, Name: "k"},
		Address: "10.0.0.1", Path: "/v1/chat/completions?a=b", Operation: policy.OpChat, Model: "m", Body: []byte(hello),
		Headers: []policy.Header{{Name: ":authority", Value: "api.example.com"}, {Name: "x-team", Value: "red"}, {Name: "x-other", Value: "1"}},
	}
}

// asked is what came of a request.
type asked struct {
	ruling  *policy.Ruling
	denial  *policy.Denial
	reports []Report
}

// failure is that of the last report.
func (a *asked) failure() *host.Failure { return a.reports[len(a.reports)-1].Failure }

// ask judges a request, and no response.
func (p *Plugin) ask(t testing.TB, at Place, q *policy.Question) *asked {
	t.Helper()
	a := &asked{}
	at.Note = func(r Report) { a.reports = append(a.reports, r) }
	j := p.Judge(at)
	a.ruling, a.denial = j.Request(q)
	j.Abandon()
	return a
}

// told is the number that a plugin has told by [guest.tell].
func (a *asked) told(t testing.TB) int {
	t.Helper()
	if a.denial == nil || a.denial.Reply == nil {
		t.Fatalf("no local response: %+v, %v", a.denial, errors.Join(err(a.failure())))
	}
	return a.denial.Reply.Status - 200
}

func err(f *host.Failure) error {
	if f == nil {
		return nil
	}
	return f
}
