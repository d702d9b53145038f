// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"errors"
	"slices"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/prompt"
	"github.com/weir-proxy/weir/policy"
)

// judge is the chain of one exchange.
type judge struct {
	table   *Table
	steps   []*step
	states  [][]byte       // of each step, from its verdict before
	filters []policy.Judge // of each step that has one
}

var _ policy.Judge = (*judge)(nil)

// Watches implements [policy.Judge].
func (j *judge) Watches() bool {
	return slices.ContainsFunc(j.steps, func(s *step) bool { return s.event })
}

// review is a request on its way along the chain.
type review struct {
	question *policy.Question
	id       string // of the exchange
	prompt   *prompt.Prompt
	body     []byte
	model    string
	channels []string // that may still be chosen
	count    int64    // tokens; negative: nobody has asked yet
	ruling   policy.Ruling
}

// Request implements [policy.Judge].
func (j *judge) Request(q *policy.Question) (*policy.Ruling, *policy.Denial) {
	if !slices.ContainsFunc(j.steps, func(s *step) bool { return s.request || s.Filter != nil }) {
		return nil, nil
	}
	r := &review{question: q, id: q.Exchange.String(), model: q.Model}
	if denial := j.read(r, q.Body); denial != nil {
		return nil, denial
	}
	r.channels = q.Channels(r.model)
	if denial := j.review(r); denial != nil {
		j.Abandon()
		return nil, denial
	}
	if &r.body[0] != &q.Body[0] {
		r.ruling.Body = r.body
	}
	return &r.ruling, nil
}

// loading is why a link without a plugin fails.
const loading host.Reason = "loading"

// review asks the steps.
func (j *judge) review(r *review) *policy.Denial {
	for i, s := range j.steps {
		var denial *policy.Denial
		switch {
		case s.Denial != nil:
			s.metrics.failed(loading)
			denial = s.Denial
		case s.Filter != nil: // also one without a hook for requests: its stream begins here
			denial = j.filter(r, i)
		case s.request:
			denial = j.ask(r, i)
		}
		if denial != nil {
			return denial
		}
	}
	return nil
}

// ask asks a step that speaks weir/1.
func (j *judge) ask(r *review, i int) *policy.Denial {
	s := j.steps[i]
	result := s.Plugin.Request(context.Background(), j.exchange(r, i), s.Mode)
	s.metrics.note(&result)
	j.table.report(r.id, result.Failure)
	return j.follow(r, i, result.Verdict)
}

// Abandon implements [policy.Judge].
func (j *judge) Abandon() {
	for _, f := range j.filters {
		if f != nil {
			f.Abandon()
		}
	}
}

// read takes a body in, the client's or one that a plugin has changed.
func (j *judge) read(r *review, body []byte) *policy.Denial {
	p, err := prompt.Read(r.question.Operation, body)
	if err != nil {
		if e, ok := errors.AsType[*prompt.Error](err); ok {
			return policy.BadRequest(e.Param, e.Reason)
		}
		return policy.Internal()
	}
	r.prompt, r.body, r.count = p, body, -1
	return nil
}

// tokens estimates the input. It is counted once for each body, and only if a plugin asks.
func (j *judge) tokens(r *review) int64 {
	if r.count < 0 {
		r.count = max(0, j.table.options.Count(r.question.Operation, r.model, r.body))
	}
	return r.count
}

// exchange is the request as a step sees it.
func (j *judge) exchange(r *review, i int) *abi.Exchange {
	q, s := r.question, j.steps[i]
	x := &abi.Exchange{
		ID:     r.id,
		Caller: caller(q),
		Asked: abi.Asked{
			Operation: string(q.Operation), Model: r.model, Stream: q.Stream, MaxOutput: r.prompt.MaxOutput, Choices: r.prompt.Choices,
		},
		Headers: shown(q.Headers, s.Headers), Messages: r.prompt.Messages, Tools: r.prompt.Tools, Channels: r.channels, State: j.states[i],
	}
	if s.Body {
		x.Body = r.body
	}
	if j.table.options.Count != nil {
		x.Tokens = func() int64 { return j.tokens(r) }
	}
	if j.table.options.Budget != nil {
		if left, ok := j.table.options.Budget(q.Tenant.ID, q.Key.ID); ok {
			x.Budget = &left
		}
	}
	return x
}

func caller(q *policy.Question) abi.Caller {
	return abi.Caller{
		Tenant: int64(q.Tenant.ID), TenantName: q.Tenant.Name, Key: int64(q.Key.ID), KeyName: q.Key.Name, Address: q.Address,
	}
}

// shown returns those headers that a plugin may see.
func shown(all []policy.Header, names []string) []abi.Header {
	var out []abi.Header
	for _, h := range all {
		if slices.Contains(names, h.Name) {
			out = append(out, abi.Header{Name: h.Name, Value: h.Value})
		}
	}
	return out
}

// follow does what a verdict says.
func (j *judge) follow(r *review, i int, v *abi.Verdict) *policy.Denial {
	if v.Action == abi.Deny {
		return policy.Denied(v.Denial.Status, v.Denial.Code, v.Denial.Message)
	}
	if v.Empty() {
		return nil
	}
	if v.State != nil {
		j.states[i] = v.State
	}
	body, err := r.prompt.Apply(v)
	if err != nil { // it inserts where nothing can be inserted: the ABI cannot know
		j.steps[i].metrics.failed(host.BadAnswer)
		if j.steps[i].Mode == host.Closed {
			return failed()
		}
		return nil
	}
	if v.Model != "" && v.Model != r.model {
		r.model, r.ruling.Channels = v.Model, nil
		r.channels = r.question.Channels(v.Model)
	}
	if len(v.Channels) > 0 {
		r.channels, r.ruling.Channels = v.Channels, v.Channels
	}
	for _, h := range v.Set {
		r.set(policy.Header{Name: h.Name, Value: h.Value})
	}
	for _, name := range v.Remove {
		r.remove(name)
	}
	r.ruling.Tags = tagged(r.ruling.Tags, v.Tags)
	if &body[0] == &r.body[0] {
		return nil
	}
	if denial := j.read(r, body); denial != nil { // nothing that it wrote makes a body that cannot be read
		return policy.Internal()
	}
	return nil
}

// failed is what a client is told when a plugin that must not fail has failed.
func failed() *policy.Denial {
	return policy.Denied(503, "plugin_failed", "A policy of this gateway could not be evaluated. Try again later.")
}

// set and remove keep what the last step wanted of a header.
func (r *review) set(h policy.Header) {
	r.ruling.Remove = slices.DeleteFunc(r.ruling.Remove, func(name string) bool { return name == h.Name })
	r.ruling.Set = append(slices.DeleteFunc(r.ruling.Set, func(x policy.Header) bool { return x.Name == h.Name }), h)
}

func (r *review) remove(name string) {
	r.ruling.Set = slices.DeleteFunc(r.ruling.Set, func(x policy.Header) bool { return x.Name == name })
	if !slices.Contains(r.ruling.Remove, name) {
		r.ruling.Remove = append(r.ruling.Remove, name)
	}
}

// tagged adds tags; the last value of a name counts.
func tagged(tags []policy.Tag, more []abi.Tag) []policy.Tag {
	for _, t := range more {
		tags = policy.MergeTags(tags, []policy.Tag{{Name: t.Name, Value: t.Value}})
	}
	return tags
}
