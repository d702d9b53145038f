// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"errors"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/answer"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/policy"
)

// clientClosed is why a response ends that nobody has read to its end. Envoy does not say whether the client left or the provider cut it off.
const clientClosed = "client_closed"

// Watch implements [policy.Judge]. Neighbours that speak weir/1 share one reading of the response.
func (j *judge) Watch(q *policy.Question) policy.Watcher {
	var all []policy.Watcher
	var judges []answer.Judge
	answered := func(strip bool) {
		if len(judges) > 0 || strip {
			all = append(all, j.answer(q, judges, strip))
			judges = nil
		}
	}
	for i, s := range j.steps {
		switch {
		case !s.event:
		case s.Filter != nil:
			answered(false)
			all = append(all, j.filters[i].Watch(q))
		default:
			judges = append(judges, j.event(i))
		}
	}
	answered(q.StripUsage) // last, so that every plugin sees the usage
	if len(all) == 1 {
		return all[0]
	}
	return newPipeline(all)
}

// answer shows a response to judges of events.
func (j *judge) answer(q *policy.Question, judges []answer.Judge, strip bool) policy.Watcher {
	o := answer.Options{
		Common: abi.Event{Exchange: q.Exchange.String(), Caller: caller(q), Operation: string(q.Operation), Model: q.Model},
		Judges: judges, StripUsage: strip, Limit: j.table.options.Hold,
	}
	return &watcher{answer: answer.New(o), table: j.table, exchange: o.Common.Exchange}
}

// event makes a judge of events of a step.
func (j *judge) event(i int) answer.Judge {
	s := j.steps[i]
	return answer.Judge{
		Name: s.Name, State: j.states[i], Open: s.Mode != host.Closed,
		Event: func(e *abi.Event) (*abi.Verdict, error) {
			shownTo := *e
			shownTo.Headers = allowed(e.Headers, s.Headers)
			r := s.Plugin.Event(context.Background(), &shownTo, s.Mode)
			s.metrics.note(&r)
			j.table.report(e.Exchange, r.Failure)
			if r.Failure != nil && s.Mode != host.Shadow {
				return nil, r.Failure
			}
			return r.Verdict, nil
		},
	}
}

// allowed returns those headers that a plugin may see.
func allowed(all []abi.Header, names []string) []abi.Header {
	var out []abi.Header
	for _, h := range all {
		for _, n := range names {
			if n == h.Name {
				out = append(out, h)
			}
		}
	}
	return out
}

// watcher makes a [policy.Watcher] of an answer.
type watcher struct {
	answer   *answer.Answer
	table    *Table
	exchange string
}

// Head implements [policy.Watcher].
func (w *watcher) Head(status int, headers []policy.Header) (ruling *policy.HeadRuling, whole bool) {
	list := make([]abi.Header, 0, len(headers))
	for _, h := range headers {
		list = append(list, abi.Header{Name: h.Name, Value: h.Value})
	}
	h, out, err := w.answer.Head(status, list)
	w.say(err)
	ruling = &policy.HeadRuling{Remove: h.Remove, Denial: denialOf(out)}
	for _, x := range h.Set {
		ruling.Set = append(ruling.Set, policy.Header{Name: x.Name, Value: x.Value})
	}
	return ruling, h.Held
}

// Body implements [policy.Watcher].
func (w *watcher) Body(chunk []byte, last bool) (out []byte, over bool, denial *policy.Denial) {
	o, err := w.answer.Write(chunk, last)
	w.say(err)
	if o.Denied != nil && o.Status == 0 {
		w.table.options.Metrics.cutResponse(o.Judge)
	}
	return o.Body, o.End, denialOf(o)
}

// Tags implements [policy.Watcher].
func (w *watcher) Tags() []policy.Tag { return tagged(nil, w.answer.Tags()) }

// Close implements [policy.Watcher].
func (w *watcher) Close() { w.say(w.answer.Abort(clientClosed)) }

// say logs what the plugins themselves are not to blame for.
func (w *watcher) say(err error) {
	if _, judged := errors.AsType[*answer.JudgeError](err); err != nil && !judged {
		w.table.options.Logger.Warn("a response cannot be judged", "exchange_id", w.exchange, "err", err)
	}
}

// denialOf returns what takes the place of a response of which nothing has gone out; nil if nothing does.
func denialOf(o answer.Output) *policy.Denial {
	if o.Status == 0 || o.Denied == nil {
		return nil
	}
	return policy.Denied(o.Denied.Status, o.Denied.Code, o.Denied.Message)
}
