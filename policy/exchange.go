// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"time"

	"github.com/google/uuid"
)

// Exchange is one request on its way through the engine. It is used by one goroutine.
type Exchange struct {
	// ID names the exchange everywhere: to the client, in the log, in weir.usage. It is a UUID of version 7.
	ID uuid.UUID

	engine    *Engine
	snapshot  *Snapshot
	grant     *grant // nil unless the head was accepted and the body is still awaited
	held      grant  // what grant points to
	operation Operation
	judge     Judge // nil if nobody judges it
	address   string
	path      string
	headers   []Header
	charges   Charges // as reserved
}

// Watched reports whether the response of the exchange is to be shown to [Admission].Watch. It is known as soon as the head was accepted.
func (x *Exchange) Watched() bool { return x.judge != nil && x.judge.Watches() }

// Admission is the decision to let an exchange through.
type Admission struct {
	Exchange   uuid.UUID
	Ticket     string   // of the exchange, encoded
	Choices    []Choice // channels to try, in this order; at least one, at most 16
	Model      string   // as the client asked for it
	ModelStart int      // the model's value in the body that is forwarded, with its quotes, is in the bytes
	ModelEnd   int      // from ModelStart up to, not including, ModelEnd
	Body       []byte   // to forward instead of the client's; nil when that goes through unchanged
	Stream     bool     // the client asked for server-sent events
	StripUsage bool     // Envoy takes out the chunk with the usage: the gateway asked for it, not the client, and no Watch does it
	Set        []Header // of the request, before it goes to a provider
	Remove     []string
	Inform     []Header // to the client, with the answer
	Estimate   Estimate // of what the exchange may use
	Watch      Watcher  // of the response; nil: it passes unseen. Whoever has the admission must close it
	// FirstByteTimeout is how long each attempt may take until the answer begins.
	FirstByteTimeout time.Duration
}

// Admit decides on an exchange by its body, which must be whole. It may be called once, and only when [Engine.Begin] neither
// replied nor refused; else it refuses. It does not keep body, but what it returns does not outlive it unchanged: body must not
// be altered as long as the admission is in use.
func (x *Exchange) Admit(body []byte) (*Admission, *Denial) {
	g := x.grant
	if g == nil {
		return nil, Internal()
	}
	x.grant = nil
	if denial := x.engine.gate(); denial != nil { // closed while the body came
		return nil, denial
	}
	if denial := x.engine.authenticateAgain(g); denial != nil { // revoked while it came
		return nil, denial
	}
	if int64(len(body)) > x.engine.maxBody {
		return nil, tooLarge(x.engine.maxBody)
	}
	req, denial := readRequest(body, x.operation)
	if denial != nil {
		return nil, denial
	}
	if x.judge != nil {
		return x.judged(g, req, body)
	}
	choices, denial := x.choose(g, req.model)
	if denial != nil {
		return nil, denial
	}
	return x.admission(g, &req, body, ruled{choices: choices})
}

// ruled is what has been decided of an exchange beyond its request.
type ruled struct {
	choices []Choice
	tags    []Tag
}

// admission puts together what was decided, if the accountants agree.
func (x *Exchange) admission(g *grant, req *request, body []byte, r ruled) (*Admission, *Denial) {
	estimate, inform, denial := x.reserve(g, req, body, r.choices)
	if denial != nil {
		return nil, denial
	}
	a := &Admission{
		Exchange: x.ID, Choices: r.choices, Inform: inform, Estimate: estimate, Model: req.model, Stream: req.stream,
		ModelStart: req.modelAt.Start, ModelEnd: req.modelAt.End,
		StripUsage: req.injected, FirstByteTimeout: x.engine.firstByte,
	}
	if req.stream {
		a.FirstByteTimeout = x.engine.firstByteStream
	}
	if req.injected {
		a.Body = req.edit.Apply(body)
		moved := req.edit.Move(req.modelAt)
		a.ModelStart, a.ModelEnd = moved.Start, moved.End
	}
	ticket := Ticket{
		Exchange: x.ID, Tenant: g.tenant.ID, Key: g.key.ID, Operation: x.operation,
		Stream: req.stream, Model: req.model, Choices: r.choices, Tags: withTags(g.key.Tags, r.tags),
		Price: estimate.Price, Service: req.service,
		Charges: x.charges,
	}
	a.Ticket = ticket.String()
	return a, nil
}

// choose finds the channels for a model.
func (x *Exchange) choose(g *grant, model string) ([]Choice, *Denial) {
	if !g.access.allow.allows(model) {
		return nil, modelNotAllowed(model)
	}
	o := x.snapshot.models[model]
	if o == nil {
		return nil, modelNotFound(model)
	}
	by := g.reach()
	choices := x.engine.pick(o, &by, x.engine.clock())
	if len(choices) > 0 {
		return choices, nil
	}
	if o.known(&by) {
		return nil, noChannel(model)
	}
	if g.pin != "" {
		return nil, notPinned(model)
	}
	return nil, modelNotFound(model)
}
