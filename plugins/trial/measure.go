// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
)

// Measurement is what the calls of a case cost. Times are of the processor, which a busy machine changes less than those of the clock.
type Measurement struct {
	Name    string  `json:"name"`
	Call    string  `json:"call"`  // weir_request or weir_event; of a filter: request, or exchange, which is the request with its response
	Calls   int     `json:"calls"` // that were timed
	Micros  float64 `json:"cpu_us"`
	Fuel    int64   `json:"fuel"` // of a call; the mean, for events
	Bytes   int     `json:"input_bytes"`
	Failure string  `json:"failure,omitempty"`
}

// Measure has the plugin judge what a case gives it again and again, for about as long as it is told, for each hook.
func (b *Bench) Measure(ctx context.Context, c *Case, each time.Duration) ([]Measurement, error) {
	if b.filters != nil {
		return b.measureFilter(ctx, c, each)
	}
	p, err := b.load(ctx, c)
	if err != nil {
		return nil, err
	}
	r := &recorder{asker: p, keep: true}
	s := begin(c, r)
	body := c.reply.body
	if c.reply.text != "" {
		body = tell(runes(c.reply.text)...)
	}
	s.watch(body, nil)
	b.at = time.Time{}
	var requests, events []call
	for _, k := range r.calls {
		if k.request != nil {
			requests = append(requests, k)
		} else {
			events = append(events, k)
		}
	}
	var out []Measurement
	for name, calls := range map[string][]call{hookOfRequests: requests, hookOfEvents: events} {
		if len(calls) == 0 {
			continue
		}
		m := Measurement{Name: c.Name, Call: name}
		if err := m.time(ctx, p, calls, each); err != nil {
			return nil, errors.Join(err, p.Close())
		}
		if name == hookOfRequests {
			out = append([]Measurement{m}, out...)
		} else {
			out = append(out, m)
		}
	}
	return out, p.Close()
}

// time makes calls for a while.
func (m *Measurement) time(ctx context.Context, p *host.Plugin, calls []call, each time.Duration) error {
	fuel := int64(0)
	round := func() {
		for _, k := range calls {
			var r host.Result
			if k.request != nil {
				r = p.Request(ctx, k.request, host.Closed)
			} else {
				r = p.Event(ctx, k.event, host.Closed)
			}
			if r.Failure != nil && m.Failure == "" {
				m.Failure = r.Failure.Error()
			}
			fuel += r.Fuel
		}
	}
	round() // the first needs an instance
	for _, k := range calls {
		if k.request != nil {
			m.Bytes += len(k.request.Append(nil))
		} else {
			m.Bytes += len(k.event.Append(nil))
		}
	}
	m.Fuel, m.Bytes = fuel/int64(len(calls)), m.Bytes/len(calls)
	return m.repeat(ctx, each, func() int {
		round()
		return len(calls)
	})
}

// repeat does a round of calls for a while, and notes what one of them cost.
func (m *Measurement) repeat(ctx context.Context, each time.Duration, round func() (calls int)) error {
	until := time.Now().Add(each)
	before, err := cpuTime()
	if err != nil {
		return fmt.Errorf("measure a plugin: %w", err)
	}
	for time.Now().Before(until) && ctx.Err() == nil && m.Failure == "" {
		m.Calls += round()
	}
	after, err := cpuTime()
	if err != nil {
		return fmt.Errorf("measure a plugin: %w", err)
	}
	if m.Calls > 0 {
		m.Micros = float64(after-before) / float64(m.Calls) / 1e3
	}
	return nil
}

// measureFilter plays the request of a case again and again, and then the whole exchange if the plugin is shown responses. The calls that it makes are answered at once.
func (b *Bench) measureFilter(ctx context.Context, c *Case, each time.Duration) ([]Measurement, error) {
	f, err := b.loadFilter(ctx, c)
	if err != nil {
		return nil, err
	}
	b.at = time.Time{}
	body := c.reply.body
	if c.reply.text != "" {
		body = tell(runes(c.reply.text)...)
	}
	play := func(m *Measurement, response bool) (fuel int64, watched bool) {
		f.begin()
		r := &recorder{filter: f}
		s := begin(c, r)
		watched = s.out.response && c.reply.media != "" && s.judge.Watches()
		if response {
			s.watch(body, eventEnds(body))
		} else {
			s.judge.Abandon()
		}
		if len(r.failures) > 0 && m.Failure == "" {
			m.Failure = r.failures[0].Error()
		}
		return r.cost.Fuel, watched
	}
	var out []Measurement
	for _, m := range []Measurement{{Name: c.Name, Call: "request", Bytes: len(c.asked.body)}, {Name: c.Name, Call: "exchange", Bytes: len(c.asked.body) + len(body)}} {
		response := m.Call == "exchange"
		var watched bool
		if m.Fuel, watched = play(&m, response); response && !watched {
			break
		}
		err := m.repeat(ctx, each, func() int {
			play(&m, response)
			return 1
		})
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		out = append(out, m)
	}
	return out, f.Close()
}
