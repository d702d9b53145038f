// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"cmp"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

var (
	responseKeys   = jsonscan.NewKeys("output", "usage", "status", "output_text", "incomplete_details", "error")
	incompleteKeys = jsonscan.NewKeys("reason")
	itemKeys       = jsonscan.NewKeys("type", "id", "call_id", "name", "content", "summary")
	argumentKeys   = jsonscan.NewKeys("arguments", "input", "code")
	contentKeys    = jsonscan.NewKeys("type", "text", "refusal", "logprobs")
)

// Where these have their values.
const (
	keyOutput, keyResponseUsage, keyStatus, keyOutputText, keyIncomplete, keyFailure = 0, 1, 2, 3, 4, 5
	keyItemType, keyOwnID, keyCallsID, keyItemName, keyItemContent, keyItemSummary   = 0, 1, 2, 3, 4, 5
	keyContentText, keyContentRefusal, keyContentLogs                                = 1, 2, 3
)

// response judges a whole response, as far as it has come; ends says that there will be no more of it.
func (r *responses) response(p *page, at jsonscan.Span, ends bool) error {
	var o jsonscan.Object
	if err := scan(responseKeys, p.text, at, &o); err != nil {
		return err
	}
	p.usage, p.last = o.Values[keyResponseUsage], ends
	p.failed = present(p.text, o.Values[keyFailure])
	if ends {
		if err := r.why(p, &o); err != nil {
			return err
		}
	}
	ok, err := isArray(p.text, o.Values[keyOutput])
	if err != nil {
		return err
	}
	var list []element
	if ok {
		for e := range jsonscan.Elements(p.text, o.Values[keyOutput]) {
			i := int64(len(list))
			if err := r.output(p, e, i, ends); err != nil {
				return err
			}
			list = append(list, element{at: e, gone: r.gone(i)})
		}
		p.remove(list)
	}
	if ends { // what a stream broke off, or never repeated
		if err := r.finish(p); err != nil {
			return err
		}
	}
	if text := o.Values[keyOutputText]; r.touched && len(word(p.text, text)) > 0 {
		p.put(text, quote(r.saying()))
	}
	return nil
}

// why notes why a response ends before the model was done.
func (r *responses) why(p *page, o *jsonscan.Object) error {
	if string(word(p.text, o.Values[keyStatus])) != "incomplete" {
		return nil
	}
	var d jsonscan.Object
	if err := scan(incompleteKeys, p.text, o.Values[keyIncomplete], &d); err != nil {
		return err
	}
	reason, err := str(p.text, d.Values[0])
	if reason == "max_output_tokens" {
		reason = "length"
	}
	r.reason = reason
	return err
}

// gone reports whether an item was dropped.
func (r *responses) gone(index int64) bool {
	for _, i := range r.items {
		if i.index == index {
			return i.dropped
		}
	}
	return false
}

// output judges an item of the output.
func (r *responses) output(p *page, at jsonscan.Span, index int64, ends bool) error {
	var o jsonscan.Object
	if err := scan(itemKeys, p.text, at, &o); err != nil {
		return err
	}
	for k, list := range [...]jsonscan.Span{laneContent: o.Values[keyItemContent], laneSummary: o.Values[keyItemSummary]} {
		if list.Found() && p.text[list.Start] == '"' {
			return unreadable("the content of an item is a string")
		}
		n := int64(0)
		for part := range jsonscan.Elements(p.text, list) {
			if err := r.part(p, part, laneKey{index, n, laneKind(k)}, ends); err != nil {
				return err
			}
			n++
		}
	}
	var a jsonscan.Object
	if err := scan(argumentKeys, p.text, at, &a); err != nil {
		return err
	}
	for _, v := range a.Values[:3] {
		if present(p.text, v) && p.text[v.Start] == '"' {
			return r.called(p, &o, v, index, ends)
		}
	}
	return nil
}

// called judges a call.
func (r *responses) called(p *page, o *jsonscan.Object, at jsonscan.Span, index int64, ends bool) error {
	it, err := r.item(index)
	if err != nil || it.dropped {
		return err
	}
	l, err := r.lane(laneKey{item: index, kind: laneArguments})
	if err != nil {
		return err
	}
	if !it.begun {
		id, err := str(p.text, o.Values[keyCallsID])
		if err != nil {
			return err
		}
		own, err := str(p.text, o.Values[keyOwnID])
		if err != nil {
			return err
		}
		name, err := str(p.text, o.Values[keyItemName])
		if err != nil {
			return err
		}
		text, err := str(p.text, at)
		if err != nil {
			return err
		}
		if len(l.in) > 0 { // its arguments came before what it is
			text = ""
		}
		if err := r.begin(it, l, abi.CallPart{ID: cmp.Or(id, own), Name: name}, text); err != nil || it.dropped {
			return err
		}
	}
	if ends {
		var reason string
		return r.settle(p, l, at, jsonscan.Span{}, &reason)
	}
	return r.settle(p, l, at, jsonscan.Span{}, nil)
}

// part judges a part of an item's content or summary.
func (r *responses) part(p *page, at jsonscan.Span, k laneKey, ends bool) error {
	var o jsonscan.Object
	if err := scan(contentKeys, p.text, at, &o); err != nil {
		return err
	}
	text, reason := o.Values[keyContentText], ""
	typ := string(word(p.text, o.Values[keyItemType]))
	if typ == "refusal" {
		text = o.Values[keyContentRefusal]
	}
	if !present(p.text, text) {
		return nil
	}
	l, err := r.lane(k)
	if err != nil {
		return err
	}
	if typ == "output_text" || typ == "refusal" {
		if l.name = abi.PartContent; typ == "refusal" {
			l.name = abi.PartRefusal
		}
		reason = cmp.Or(r.reason, "stop")
	}
	if !ends {
		return r.settle(p, l, text, o.Values[keyContentLogs], nil)
	}
	return r.settle(p, l, text, o.Values[keyContentLogs], &reason)
}
