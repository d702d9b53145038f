// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/meter"
)

// Plugin is a module with its configuration, ready to be called by any number of goroutines.
type Plugin struct {
	host     *Host
	source   Source
	abi      *ABI
	limits   Limits
	module   *meter.Module
	compiled wazero.CompiledModule
	digest   string
	loaded   time.Time
	image    *image // nil if the module has state that no image holds
	pool     pool
	patterns patterns
	breaker  breaker
	closing  sync.Once
}

// Mode is what an attachment makes of a plugin's verdicts and failures.
type Mode uint8

// Modes.
const (
	Closed Mode = iota // a failure denies the exchange
	Open               // a failure is as if the plugin had gone on
	Shadow             // verdicts and failures are reported, and neither is used
)

// Result is what came of a call.
type Result struct {
	Verdict *abi.Verdict // what to do; never nil, and empty in [Shadow]
	Would   *abi.Verdict // in [Shadow]: what the plugin wanted; nil if it failed
	Failure *Failure     // nil if the call went well
	Fuel    int64        // that the call used
	Memory  uint32       // bytes that the instance had at its end
	Time    time.Duration
	Logs    []LogLine
}

// About is what is known of a plugin.
type About struct {
	Name     string
	Digest   string // SHA-256 of the module, in hexadecimal
	Request  bool   // it judges requests
	Event    bool   // it judges responses: only then need they be shown to it
	Schema   []byte // JSON Schema of its configuration; nil if it has none
	About    []byte // what it says of itself, JSON; nil if nothing
	Imports  []string
	Obstacle string // why each call needs a new instance; empty if none does
	Pristine int    // bytes of memory that each call begins with
}

// About returns what is known of the plugin.
func (p *Plugin) About() About {
	a := About{
		Name: p.source.Name, Digest: p.digest, Schema: p.module.Custom[sectionSchema], About: p.module.Custom[sectionAbout], Obstacle: p.module.Obstacle,
	}
	_, a.Request = p.module.Export(exportRequest)
	_, a.Event = p.module.Export(exportEvent)
	for _, f := range p.module.Imports {
		a.Imports = append(a.Imports, f.Module+"."+f.Name)
	}
	slices.Sort(a.Imports)
	if p.image != nil {
		a.Pristine = p.image.size
	}
	return a
}

// Request has the plugin judge a request. A plugin that does not judge requests goes on. The exchange is not kept.
func (p *Plugin) Request(ctx context.Context, x *abi.Exchange, m Mode) Result {
	if _, ok := p.module.Export(exportRequest); !ok {
		return Result{Verdict: &abi.Verdict{}}
	}
	input := buffers.Get().(*[]byte)
	defer putBuffer(input)
	*input = x.Append((*input)[:0])
	return p.run(ctx, m, &hookCall{hook: exportRequest, input: *input, tenant: x.Caller.Tenant, request: x, tokens: x.Tokens})
}

// Event has the plugin judge a part of a response. The state of the verdict before belongs into the event. The event is not kept.
func (p *Plugin) Event(ctx context.Context, e *abi.Event, m Mode) Result {
	if _, ok := p.module.Export(exportEvent); !ok {
		return Result{Verdict: &abi.Verdict{}}
	}
	input := buffers.Get().(*[]byte)
	defer putBuffer(input)
	*input = e.Append((*input)[:0])
	return p.run(ctx, m, &hookCall{hook: exportEvent, input: *input, tenant: e.Caller.Tenant, event: e})
}

// buffers are for messages to plugins.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func putBuffer(b *[]byte) {
	if cap(*b) <= 1<<20 { // a large one stays only with the exchange that needed it
		buffers.Put(b)
	}
}

// hookCall is a call of a hook, with either a request or an event.
type hookCall struct {
	hook    string
	input   []byte
	tenant  int64
	request *abi.Exchange
	event   *abi.Event
	tokens  func() int64
}

// check holds a verdict against what the plugin was asked.
func (c *hookCall) check(v *abi.Verdict) error {
	if c.request != nil {
		return v.CheckRequest(c.request)
	}
	return v.CheckEvent(c.event)
}

// run calls and applies the mode.
func (p *Plugin) run(ctx context.Context, m Mode, c *hookCall) Result {
	began := p.host.clock()
	var r Result
	var ended time.Time
	if why, quarantined := p.breaker.quarantined(c.tenant, began); quarantined {
		r.Failure = &Failure{Plugin: p.source.Name, Call: c.hook, Reason: Quarantined, Detail: why}
	} else {
		r = p.try(ctx, c, began)
		ended = p.host.clock()
		if f := r.Failure; f == nil || !f.Reason.ours() {
			if p.breaker.note(c.tenant, f, ended) {
				p.host.logger.Error("a plugin fails often and is left alone", "plugin", p.source.Name, "digest", p.digest, "tenant", c.tenant, "pause", quarantine, "err", f)
			}
		}
	}
	if !ended.IsZero() {
		r.Time = ended.Sub(began)
	}
	switch {
	case m == Shadow:
		r.Would, r.Verdict = r.Verdict, &abi.Verdict{}
	case r.Failure != nil && m == Closed:
		r.Verdict = deniedByFailure()
	case r.Failure != nil:
		r.Verdict = &abi.Verdict{}
	}
	return r
}

// deniedByFailure says no more than that: why is between the operator and the plugin.
func deniedByFailure() *abi.Verdict {
	return &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{
		Status: 503, Code: "plugin_failed", Message: "A policy of this gateway could not be evaluated. Try again later.",
	}}
}

// try makes one call in one instance.
func (p *Plugin) try(ctx context.Context, c *hookCall, began time.Time) (r Result) {
	until := began.Add(p.limits.Time)
	i, err := p.pool.take(ctx, p, c.tenant, p.limits.Time)
	if err != nil {
		r.Failure = failure(p.source.Name, c.hook, err)
		return r
	}
	l := &i.logs
	*l = logs{limits: &p.limits}
	budget := p.limits.Fuel + p.limits.FuelPerByte*int64(len(c.input))
	i.call = call{
		budget: budget, left: budget, until: until, done: ctx.Done(), now: began, tenant: c.tenant, log: l, input: len(c.input), tokens: c.tokens,
	}
	defer func() {
		if fault := recover(); fault != nil { // wazero itself: nothing of the instance can be trusted
			p.pool.drop(i)
			p.host.logger.Error("a plugin made its runtime panic", "plugin", p.source.Name, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			r = Result{Failure: &Failure{Plugin: p.source.Name, Call: c.hook, Reason: HostFault, Detail: fmt.Sprint("panic: ", fault)}}
		}
	}()
	answer, err := i.invoke(c.hook, c.input)
	if err == nil {
		r.Verdict, err = readAnswer(answer, c)
	}
	if err != nil {
		r.Failure = failure(p.source.Name, c.hook, err)
		r.Verdict = nil
	}
	r.Fuel, r.Memory, r.Logs = min(budget, budget-i.call.left), i.mod.Memory().Size(), l.lines
	p.host.report(p.source.Name, l)
	if r.Failure != nil && (r.Failure.Reason == OutOfStack || r.Failure.Reason == HostFault) || !i.reset() {
		p.pool.drop(i) // the stack of the engine grew, or the memory did
	} else {
		p.pool.put(i)
	}
	return r
}

func readAnswer(answer []byte, c *hookCall) (*abi.Verdict, error) {
	v, err := abi.ReadVerdict(answer)
	if err == nil {
		err = c.check(v)
	}
	if err != nil {
		return nil, &stop{BadAnswer, "its answer breaks weir/1: " + err.Error()}
	}
	return v, nil
}

// report passes on what a plugin logged.
func (h *Host) report(plugin string, l *logs) {
	for _, line := range l.lines {
		h.logger.Log(context.Background(), []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}[line.Level],
			"a plugin says", "plugin", plugin, "message", line.Message)
	}
	if l.dropped > 0 {
		h.logger.Warn("a plugin logged more than it may", "plugin", plugin, "dropped", l.dropped)
	}
}

// Close frees the plugin once the calls that are under way have ended. No call may begin after it.
func (p *Plugin) Close() error {
	var err error
	p.closing.Do(func() {
		p.pool.close()
		if p.image != nil {
			err = p.image.memory.close()
		}
		if p.compiled != nil {
			err = p.compiled.Close(context.Background())
		}
	})
	if err != nil {
		return fmt.Errorf("close the plugin %s: %w", p.source.Name, err)
	}
	return nil
}
