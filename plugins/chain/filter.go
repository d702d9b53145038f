// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"slices"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/prompt"
	"github.com/weir-proxy/weir/policy"
)

// filter asks a step that speaks proxy-wasm. It sees the request as the steps before it have left it, and what it leaves is read anew.
func (j *judge) filter(r *review, i int) *policy.Denial {
	q := *r.question
	q.Body, q.Model = r.body, r.model
	ruling, denial := j.filters[i].Request(&q)
	if denial != nil || ruling == nil {
		return denial
	}
	if ruling.Body != nil {
		if _, err := prompt.Read(q.Operation, ruling.Body); err != nil {
			return j.unreadable(i, err)
		}
		if denial := j.read(r, ruling.Body); denial != nil {
			return policy.Internal() // it has just been read
		}
		if model := r.prompt.Model(); model != r.model {
			r.model, r.ruling.Channels = model, nil
			r.channels = q.Channels(model)
		}
	}
	for _, h := range ruling.Set {
		r.set(h)
	}
	for _, name := range ruling.Remove {
		r.remove(name)
	}
	return nil
}

// unreadable goes on after a filter has made something of the body that is no request. Nothing of what it wanted is done.
func (j *judge) unreadable(i int, err error) *policy.Denial {
	s := j.steps[i]
	s.metrics.failed(host.BadAnswer)
	j.table.options.Logger.Warn("a plugin has made a body that cannot be read", "plugin", s.Name, "err", err)
	if s.Mode == host.Closed {
		return failed()
	}
	return nil
}

// pipeline shows a response to one watcher after the other. Each sees what the one before has left.
type pipeline struct {
	watchers []policy.Watcher
	over     []bool // of each: it has ended the response
}

func newPipeline(watchers []policy.Watcher) *pipeline {
	return &pipeline{watchers, make([]bool, len(watchers))}
}

// Head implements [policy.Watcher].
func (p *pipeline) Head(status int, headers []policy.Header) (ruling *policy.HeadRuling, whole bool) {
	headers = slices.Clone(headers)
	var r review // for what it knows of headers
	for _, w := range p.watchers {
		next, wants := w.Head(status, headers)
		whole = whole || wants
		if next == nil {
			continue
		}
		if next.Denial != nil {
			return next, whole
		}
		for _, h := range next.Set {
			r.set(h)
			headers = append(slices.DeleteFunc(headers, func(x policy.Header) bool { return x.Name == h.Name }), h)
		}
		for _, name := range next.Remove {
			r.remove(name)
			headers = slices.DeleteFunc(headers, func(x policy.Header) bool { return x.Name == name })
		}
	}
	return &policy.HeadRuling{Set: r.ruling.Set, Remove: r.ruling.Remove}, whole
}

// Body implements [policy.Watcher].
func (p *pipeline) Body(chunk []byte, last bool) (out []byte, over bool, denial *policy.Denial) {
	out = chunk
	for i, w := range p.watchers {
		if len(out) == 0 && !last {
			return nil, over, nil // held back
		}
		if p.over[i] {
			out, last = nil, true
			continue
		}
		if out, p.over[i], denial = w.Body(out, last); denial != nil {
			return nil, true, denial
		}
		over = over || p.over[i]
		last = last || p.over[i]
	}
	return out, over, nil
}

// Tags implements [policy.Watcher].
func (p *pipeline) Tags() []policy.Tag {
	var all []policy.Tag
	for _, w := range p.watchers {
		all = policy.MergeTags(all, w.Tags())
	}
	return all
}

// Close implements [policy.Watcher].
func (p *pipeline) Close() {
	for _, w := range p.watchers {
		w.Close()
	}
}
