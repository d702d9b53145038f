// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"slices"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/chain"
	"github.com/weir-proxy/weir/plugins/host"
)

// asker is a plugin, or what stands in for one.
type asker = chain.Plugin

// recorder passes calls on to a plugin and keeps what they cost and what was said.
type recorder struct {
	asker
	filter *filter                // instead
	known  map[string]host.Result // results of events by their input, where the plugin counts nothing; nil: each call is made
	keep   bool                   // the calls themselves are kept

	calls    []call
	cost     Cost
	tags     []abi.Tag
	denial   *abi.Denial // of an event
	failures []*host.Failure
	logs     []host.LogLine

	properties map[string][]byte // that a filter set
	cut        bool              // a filter has ended the response after a part of it had gone out
}

// call is what a plugin was asked; one of the two is nil.
type call struct {
	request *abi.Exchange
	event   *abi.Event
}

var _ chain.Plugin = (*recorder)(nil)

// Request implements [chain.Plugin].
func (r *recorder) Request(ctx context.Context, x *abi.Exchange, m host.Mode) host.Result {
	if r.keep {
		kept := *x
		r.calls = append(r.calls, call{request: &kept})
	}
	return r.note(r.asker.Request(ctx, x, m))
}

// Event implements [chain.Plugin]. An event that a plugin has judged before is not judged again: it begins each call in the same state, so its verdict is
// the same, and so is its fuel. Byte by byte each call is made all the same.
func (r *recorder) Event(ctx context.Context, e *abi.Event, m host.Mode) host.Result {
	if r.keep {
		kept := *e
		kept.Headers, kept.State = slices.Clone(e.Headers), slices.Clone(e.State)
		r.calls = append(r.calls, call{event: &kept})
	}
	var input string
	if r.known != nil {
		input = string(e.Append(nil))
		if result, ok := r.known[input]; ok {
			return r.heed(result)
		}
	}
	result := r.note(r.asker.Event(ctx, e, m))
	if r.known != nil {
		r.known[input] = result
	}
	return r.heed(result)
}

func (r *recorder) note(result host.Result) host.Result {
	r.cost.add(&result)
	r.logs = append(r.logs, result.Logs...)
	if f := result.Failure; f != nil {
		r.failures = append(r.failures, f)
	}
	for _, t := range result.Verdict.Tags {
		r.tag(t)
	}
	return result
}

// heed keeps what a verdict on an event says that the client does not see.
func (r *recorder) heed(result host.Result) host.Result {
	if v := result.Verdict; v.Action == abi.Deny && r.denial == nil {
		r.denial = &v.Denial
	}
	for _, t := range result.Verdict.Tags {
		r.tag(t)
	}
	return result
}

func (r *recorder) tag(t abi.Tag) {
	if i := slices.IndexFunc(r.tags, func(o abi.Tag) bool { return o.Name == t.Name }); i >= 0 {
		r.tags[i] = t
	} else {
		r.tags = append(r.tags, t)
	}
}

// Cost is what calls used.
type Cost struct {
	Calls  int    `json:"calls"`
	Fuel   int64  `json:"fuel"`         // of all calls
	Most   int64  `json:"most_fuel"`    // of one call
	Memory uint32 `json:"memory_bytes"` // at the end of the call that had most
}

func (c *Cost) add(r *host.Result) {
	c.Calls++
	c.Fuel += r.Fuel
	c.Most = max(c.Most, r.Fuel)
	c.Memory = max(c.Memory, r.Memory)
}
