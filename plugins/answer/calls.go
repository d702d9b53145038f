// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"slices"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

// toolCall is what is known of a call.
type toolCall struct {
	number  int64
	id      string
	form    form
	dropped bool
}

// form is the member of a message that a call comes in.
type form uint8

const (
	formFunction form = iota // tool_calls, function
	formCustom               // tool_calls, custom
	formLegacy               // function_call
)

var (
	callKeys     = jsonscan.NewKeys("index", "id", "function", "custom")
	functionKeys = jsonscan.NewKeys("name", "arguments", "input")
)

// Where callKeys and functionKeys have their values.
const (
	keyCallIndex, keyCallID, keyCallFunction, keyCallCustom = 0, 1, 2, 3
	keyName, keyArguments, keyInput                         = 0, 1, 2
)

// calls judges the tool calls of a message, or what is new in them.
func (c *chat) calls(p *page, ch *choice, at jsonscan.Span) error {
	ok, err := isArray(p.text, at)
	if err != nil || !ok {
		return err
	}
	c.list = c.list[:0]
	for e := range jsonscan.Elements(p.text, at) {
		gone, err := c.element(p, ch, e, int64(len(c.list)))
		if err != nil {
			return err
		}
		c.list = append(c.list, element{at: e, gone: gone})
	}
	p.remove(c.list)
	return nil
}

// element judges one element of tool_calls, and reports whether its call is dropped.
func (c *chat) element(p *page, ch *choice, at jsonscan.Span, position int64) (gone bool, _ error) {
	var o jsonscan.Object
	if err := scan(callKeys, p.text, at, &o); err != nil {
		return false, err
	}
	n, err := number(p.text, o.Values[keyCallIndex], position)
	if err != nil {
		return false, err
	}
	id, err := str(p.text, o.Values[keyCallID])
	if err != nil {
		return false, err
	}
	key := callKey{number: n, id: id}
	inner := o.Values[keyCallFunction]
	if !present(p.text, inner) && present(p.text, o.Values[keyCallCustom]) {
		inner, key.form = o.Values[keyCallCustom], formCustom
	}
	call, err := c.called(p, ch, key, inner)
	if err != nil || call.dropped {
		return err == nil, err
	}
	if moved := ch.moved(call); moved > 0 && o.Values[keyCallIndex].Found() {
		p.put(o.Values[keyCallIndex], strconv.FormatInt(n-moved, 10))
	}
	return false, nil
}

// function judges the call of a message in the form that came before tool_calls.
func (c *chat) function(p *page, ch *choice, at jsonscan.Span) error {
	if !present(p.text, at) {
		return nil
	}
	call, err := c.called(p, ch, callKey{form: formLegacy}, at)
	if err == nil && call.dropped {
		p.put(at, "null")
	}
	return err
}

// callKey is by what a call is known again.
type callKey struct {
	number int64
	id     string // empty behind its first event
	form   form
}

// find returns a call, and makes it if it is not known. Some providers give all calls of a message the same number: there the id tells them apart.
func (ch *choice) find(k callKey) (call *toolCall, fresh bool, _ error) {
	for _, t := range slices.Backward(ch.calls) {
		if t.number == k.number && (t.form == formLegacy) == (k.form == formLegacy) {
			if k.id != "" && k.id != t.id {
				break
			}
			return t, false, nil
		}
	}
	if len(ch.calls) == maxChoices {
		return nil, false, unreadable("too many calls")
	}
	t := &toolCall{number: k.number, id: k.id, form: k.form}
	ch.calls = append(ch.calls, t)
	return t, true, nil
}

// moved is by how much a call moves up, because of those that are gone.
func (ch *choice) moved(call *toolCall) (n int64) {
	for _, t := range ch.calls {
		if t.dropped && t.form != formLegacy && t.number < call.number {
			n++
		}
	}
	return n
}

// called judges what is new of a call.
func (c *chat) called(p *page, ch *choice, k callKey, at jsonscan.Span) (*toolCall, error) {
	var o jsonscan.Object
	if err := scan(functionKeys, p.text, at, &o); err != nil {
		return nil, err
	}
	call, fresh, err := ch.find(k)
	if err != nil || call.dropped {
		return call, err
	}
	s := slot{at: o.Values[keyArguments], call: call}
	if !present(p.text, s.at) && present(p.text, o.Values[keyInput]) {
		s.at = o.Values[keyInput]
	}
	if s.was, err = str(p.text, s.at); err != nil {
		return nil, err
	}
	if fresh || call != ch.call && s.was != "" {
		if err := c.endCall(p, ch); err != nil {
			return nil, err
		}
		ch.call, ch.open = call, true
	}
	if fresh || s.was != "" {
		e := c.chain.next(abi.KindToolCall, ch.index)
		e.Tool.Number = call.number
		if fresh {
			e.Tool.ID = k.id
			if e.Tool.Name, err = str(p.text, o.Values[keyName]); err != nil {
				return nil, err
			}
		}
		var dropped bool
		if s.now, dropped, err = c.chain.text(0, s.was); err != nil {
			return nil, err
		}
		if call.dropped = fresh && dropped; call.dropped {
			ch.call = nil
			p.lost = true
			return call, nil
		}
	}
	p.left = p.left || fresh
	if s.at.Found() {
		ch.slots = append(ch.slots, s)
	}
	return call, nil
}

// endCall tells the judges that the arguments which are coming have ended.
func (c *chat) endCall(p *page, ch *choice) error {
	call := ch.call
	if call == nil {
		return nil
	}
	ch.call = nil
	c.chain.next(abi.KindToolCall, ch.index).Tool.Number = call.number
	added, err := c.chain.end()
	if err != nil || added == "" {
		return err
	}
	for i := range ch.slots {
		if s := &ch.slots[i]; s.call == call && (s.was != "" || !p.stream) {
			s.now += added
			return nil
		}
	}
	if p.stream {
		p.before = c.event(p.before, p.eol, ch.index, call.member(added, call.number-ch.moved(call)))
	}
	return nil
}

// member is the member that carries arguments.
func (t *toolCall) member(arguments string, number int64) string {
	q := quote(arguments)
	n := strconv.FormatInt(number, 10)
	switch t.form {
	case formLegacy:
		return `"function_call":{"arguments":` + q + `}`
	case formCustom:
		return `"tool_calls":[{"index":` + n + `,"custom":{"input":` + q + `}}]`
	}
	return `"tool_calls":[{"index":` + n + `,"function":{"arguments":` + q + `}}]`
}
