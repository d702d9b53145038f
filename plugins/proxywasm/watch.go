// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/policy"
)

// Watch implements [policy.Judge].
func (j *judge) Watch(*policy.Question) policy.Watcher { return j }

// alwaysShown are headers of responses that every plugin is shown.
var alwaysShown = []string{"content-type", "content-length", "content-encoding", "transfer-encoding"}

// Head implements [policy.Watcher].
func (j *judge) Head(status int, all []policy.Header) (ruling *policy.HeadRuling, whole bool) {
	s := j.stream
	if s == nil { // it has failed, and its mode lets the exchange go on
		return &policy.HeadRuling{}, false
	}
	h := headers{{Name: ":status", Value: strconv.Itoa(status)}}
	for _, f := range all {
		if slices.Contains(alwaysShown, f.Name) || slices.Contains(j.place.Headers, f.Name) {
			h = append(h, f)
		}
	}
	s.response = section{headers: h, known: true, open: true}
	j.before = slices.Clone(h)
	mediaType, _ := h.get("content-type")
	j.events = strings.HasPrefix(mediaType, "text/event-stream")
	if f := j.head(); f != nil {
		return &policy.HeadRuling{Denial: j.failed(f)}, false
	}
	if j.whole && j.place.Mode == host.Shadow {
		j.whole = false // what it does is not used, so that nobody need wait
	}
	if s.reply != nil {
		return &policy.HeadRuling{Denial: j.replied()}, false
	}
	set, remove := s.response.headers.changes(j.before)
	if len(set)+len(remove) > 0 {
		j.note(Change, nil)
	} else {
		j.note(Continue, nil)
	}
	if j.place.Mode == host.Shadow {
		return &policy.HeadRuling{}, false
	}
	j.before = slices.Clone(s.response.headers)
	return &policy.HeadRuling{Set: set, Remove: remove}, j.whole
}

// head shows the head of the response to the plugin.
func (j *judge) head() *host.Failure {
	s := j.stream
	if f := s.catchUp(); f != nil || s.reply != nil {
		return f
	}
	s.resumed[streamTypeResponse] = false
	action, f := s.run(exportResponseHeader, 0, streamContext, uint64(len(s.response.headers)), 0)
	if f != nil || action == actionContinue || action == actionEndStream || s.reply != nil {
		return f
	}
	if f := s.wait(streamTypeResponse, exportResponseHeader); f != nil {
		return f
	}
	if !s.resumed[streamTypeResponse] && s.reply == nil {
		if action > actionEndStream {
			return s.paused(exportResponseHeader)
		}
		j.whole = true
	}
	return nil
}

// replied ends the exchange for a plugin that has answered itself.
func (j *judge) replied() *policy.Denial {
	j.note(Deny, nil)
	reply := j.stream.reply
	j.finish()
	if j.place.Mode == host.Shadow {
		return nil
	}
	return policy.Replied(reply)
}

// Body implements [policy.Watcher].
func (j *judge) Body(chunk []byte, end bool) (out []byte, over bool, denial *policy.Denial) {
	if j.gone {
		return nil, true, nil
	}
	s := j.stream
	if s == nil {
		return chunk, false, nil
	}
	shadow := j.place.Mode == host.Shadow
	if len(j.raw) == 0 {
		j.raw, s.response.body = chunk, chunk
	} else {
		j.raw = slices.Concat(j.raw, chunk)
		s.response.body = slices.Concat(s.response.body, chunk)
	}
	came := s.response.body
	held, f := j.part(end)
	switch {
	case f != nil:
		return j.broken(f, chunk)
	case s.reply != nil:
		return j.cut(chunk)
	case held:
		j.note(Continue, nil)
		if shadow {
			return chunk, false, nil
		}
		return nil, false, nil
	}
	out = s.response.body
	if len(s.injected) > 0 {
		out = slices.Concat(s.injected, out)
	}
	changed := !same(out, came)
	if !changed && len(j.raw) == len(chunk) {
		out = chunk // itself: nothing has to be sent back
	}
	j.raw, s.response.body, s.injected = nil, nil, nil
	if changed {
		j.note(Change, nil)
	} else {
		j.note(Continue, nil)
	}
	if shadow {
		return chunk, false, nil
	}
	if j.whole && end {
		if r := j.rewritten(out); r != nil {
			j.finish()
			return nil, true, policy.Replied(r)
		}
	}
	return out, false, nil
}

func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

// part shows what has come of the body to the plugin. Held says that it wants more before anything goes out.
func (j *judge) part(end bool) (held bool, f *host.Failure) {
	s := j.stream
	if f := s.catchUp(); f != nil || s.reply != nil {
		return false, f
	}
	s.resumed[streamTypeResponse] = false
	last := uint64(0)
	if end {
		last = 1
	}
	n := len(s.response.body)
	action, f := s.run(exportResponseBody, n, streamContext, uint64(n), last)
	if f != nil || action == actionContinue || s.reply != nil {
		return false, f
	}
	if action == actionDropChunk {
		s.response.body, j.raw = nil, nil
	}
	if f := s.wait(streamTypeResponse, exportResponseBody); f != nil {
		return false, f
	}
	switch {
	case s.resumed[streamTypeResponse] || s.reply != nil:
		return false, nil
	case action == actionDropChunk && (len(s.injected) > 0 || !end): // what it has instead goes out
		return false, nil
	case end:
		return false, s.paused(exportResponseBody)
	case len(j.raw) > s.plugin.limits.HeldBytes:
		return false, &host.Failure{
			Plugin: s.plugin.source.Name, Call: exportResponseBody, Reason: host.BadAnswer,
			Detail: fmt.Sprintf("it holds back %d bytes of a response, and the limit is %d", len(j.raw), s.plugin.limits.HeldBytes),
		}
	}
	return true, nil
}

// rewritten returns a response whose head the plugin has changed after it saw the body; nil if it has not.
func (j *judge) rewritten(body []byte) *policy.Reply {
	h := j.stream.response.headers
	set, remove := h.changes(j.before)
	was, _ := j.before.get(":status")
	now, _ := h.get(":status")
	status, err := strconv.Atoi(now)
	if err != nil || status < 200 || status > 599 {
		status, now = 200, was
	}
	if len(set)+len(remove) == 0 && was == now {
		return nil
	}
	all, _ := h.changes(nil)
	return &policy.Reply{Status: status, Headers: all, Body: body}
}

// broken goes on after a failure, or does not.
func (j *judge) broken(f *host.Failure, chunk []byte) (out []byte, over bool, denial *policy.Denial) {
	raw := j.raw
	if denial = j.failed(f); denial == nil {
		if j.place.Mode == host.Shadow || len(raw) <= len(chunk) {
			return chunk, false, nil
		}
		return raw, false, nil
	}
	return j.ended(denial)
}

// cut ends a response in the words of the plugin, if they can still be said.
func (j *judge) cut(chunk []byte) (out []byte, over bool, denial *policy.Denial) {
	if denial = j.replied(); denial == nil {
		return chunk, false, nil
	}
	if j.whole {
		return nil, true, denial
	}
	return j.ended(policy.Denied(403, policy.CodePluginReply, "A policy of this gateway has ended the response."))
}

// ended ends a response of which something may have gone out: a stream by an event that OpenAI's packages raise as an error, another one by stopping.
func (j *judge) ended(d *policy.Denial) (out []byte, over bool, denial *policy.Denial) {
	j.gone = true
	if !j.whole {
		j.tell(Report{Exchange: j.exchange, Cut: true})
	}
	switch {
	case j.whole:
		return nil, true, d
	case j.events:
		return slices.Concat([]byte("\n\ndata: "), d.Body(), []byte("\n\n")), true, nil
	}
	return nil, true, nil
}

// Tags implements [policy.Watcher]: the ABI knows none.
func (j *judge) Tags() []policy.Tag { return nil }

// Close implements [policy.Watcher].
func (j *judge) Close() { j.finish() }
