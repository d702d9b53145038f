// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/policy"
)

// Place is where a plugin is attached.
type Place struct {
	Mode    host.Mode
	Headers []string     // that it is shown, besides those that every plugin is shown
	Note    func(Report) // is told of each step of an exchange; nil: nobody is

	// Properties is told at the end of an exchange which properties the plugin has set, if it has any; nil: nobody is.
	Properties func(map[string][]byte)
}

// Outcome is what a step came to.
type Outcome uint8

// Outcomes.
const (
	Continue Outcome = iota
	Change
	Deny // it has answered itself
)

// Report is one step of an exchange: the request, the head of the response, or a part of its body.
type Report struct {
	Exchange string
	Outcome  Outcome       // in shadow mode: what would have come; not for a failure
	Failure  *host.Failure // nil: it went well
	Fuel     int64
	Time     time.Duration // pauses not included
	Memory   uint32        // bytes, that the guest had at its end
	Cut      bool          // no step, but the news that the response ends after a part of it has gone out
}

// Judge returns the plugin as the judge of one exchange.
func (p *Plugin) Judge(at Place) policy.Judge { return &judge{plugin: p, place: at} }

// judge is one exchange. There is a stream from the request until the end of the exchange or a failure.
type judge struct {
	plugin *Plugin
	place  Place
	stream *stream

	exchange string
	before   headers // of the response, when it came or as they were sent
	whole    bool    // the body of the response comes in one piece
	events   bool    // the response is a stream of server-sent events
	raw      []byte  // of the response: what the plugin holds back
	gone     bool    // the client gets nothing more
}

var (
	_ policy.Judge   = (*judge)(nil)
	_ policy.Watcher = (*judge)(nil)
)

// Watches implements [policy.Judge].
func (j *judge) Watches() bool { return j.plugin.watches }

// Request implements [policy.Judge].
func (j *judge) Request(q *policy.Question) (*policy.Ruling, *policy.Denial) {
	j.exchange = q.Exchange.String()
	s, f := j.plugin.open(q)
	if f != nil {
		return nil, j.failed(f)
	}
	j.stream = s
	if f := j.ask(q); f != nil {
		return nil, j.failed(f)
	}
	s.request.open = false
	if s.reply != nil {
		j.note(Deny, nil)
		reply := s.reply
		j.finish()
		if j.place.Mode == host.Shadow {
			return nil, nil
		}
		return nil, policy.Replied(reply)
	}
	r := &policy.Ruling{}
	r.Set, r.Remove = s.request.headers.changes(requestHeaders(q, j.place.Headers))
	if !bytes.Equal(s.request.body, q.Body) {
		r.Body = append([]byte{}, s.request.body...) // not nil, even if it is empty
	}
	if len(r.Set)+len(r.Remove) > 0 || r.Body != nil {
		j.note(Change, nil)
	} else {
		j.note(Continue, nil)
	}
	if !j.plugin.watches {
		j.finish()
	}
	if j.place.Mode == host.Shadow {
		return nil, nil
	}
	return r, nil
}

// ask shows the request to the plugin, and waits for as long as it pauses.
func (j *judge) ask(q *policy.Question) *host.Failure {
	s := j.stream
	s.request = section{headers: requestHeaders(q, j.place.Headers), body: q.Body, known: true, open: true}
	action, f := s.run(exportRequestHeaders, 0, streamContext, uint64(len(s.request.headers)), 0)
	if f == nil && action != actionContinue {
		if f = s.wait(streamTypeRequest, exportRequestHeaders); f == nil && !s.resumed[streamTypeRequest] && action > actionEndStream {
			f = s.paused(exportRequestHeaders)
		}
	}
	if f != nil || s.reply != nil {
		return s.unless(f)
	}
	s.resumed[streamTypeRequest] = false
	action, f = s.run(exportRequestBody, len(q.Body), streamContext, uint64(len(s.request.body)), 1)
	if f == nil && action != actionContinue {
		if f = s.wait(streamTypeRequest, exportRequestBody); f == nil && !s.resumed[streamTypeRequest] {
			f = s.paused(exportRequestBody)
		}
	}
	return s.unless(f)
}

// unless returns a failure, unless the plugin has answered itself and need not go on.
func (s *stream) unless(f *host.Failure) *host.Failure {
	if s.reply != nil && f != nil && f.Reason == host.BadAnswer {
		return nil
	}
	return f
}

// requestHeaders are what a plugin is shown of the head of a request.
func requestHeaders(q *policy.Question, names []string) headers {
	h := headers{
		{Name: ":authority", Value: "localhost"}, // some plugins do nothing without one
		{Name: ":path", Value: q.Path},
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: "content-type", Value: "application/json"},
		{Name: "content-length", Value: strconv.Itoa(len(q.Body))},
	}
	for _, f := range q.Headers {
		switch {
		case f.Name == ":authority":
			h[0].Value = f.Value
		case slices.Contains(names, f.Name):
			h = append(h, f)
		}
	}
	return h
}

// failed ends the exchange for the plugin and says what the client is told; nil: nothing.
func (j *judge) failed(f *host.Failure) *policy.Denial {
	if j.stream != nil {
		_ = j.stream.end(f) // what it failed by is f
	}
	j.note(Continue, f) // now it is known whether the plugin is left alone from now on
	j.stream = nil
	if j.place.Mode != host.Closed {
		return nil
	}
	return policy.Denied(503, "plugin_failed", "A policy of this gateway could not be evaluated. Try again later.")
}

// finish ends an exchange that went well.
func (j *judge) finish() {
	if j.stream == nil {
		return
	}
	s := j.stream
	j.stream = nil
	if f := s.end(nil); f != nil {
		j.tell(Report{Exchange: j.exchange, Failure: f, Fuel: s.spent.fuel, Time: s.spent.time})
	}
	if j.place.Properties != nil && len(s.properties) > 0 {
		j.place.Properties(s.properties)
	}
}

// note reports a step.
func (j *judge) note(o Outcome, f *host.Failure) {
	r := Report{Exchange: j.exchange, Outcome: o, Failure: f}
	if s := j.stream; s != nil {
		r.Fuel, r.Time = s.spent.fuel, s.spent.time
		s.spent = spent{}
		if s.guest != nil {
			r.Memory = s.guest.Memory()
		}
	}
	j.tell(r)
}

func (j *judge) tell(r Report) {
	if j.place.Note != nil {
		j.place.Note(r)
	}
}

// Abandon implements [policy.Judge].
func (j *judge) Abandon() { j.finish() }
