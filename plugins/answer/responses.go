// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

// responses judges https://platform.openai.com/docs/api-reference/responses-streaming. Its streams tell each text several times: piece by piece, then whole as it ends,
// with its part, with its item, and with the response.
type responses struct {
	chain    *chain
	limit    int // bytes of all texts
	kept     int
	lanes    []*lane
	items    []*item
	sequence int64  // of the last event
	reason   string // why the response ends, once that is known
	touched  bool   // a text was changed
}

// told is a kind of text that events tell of, by the beginning of their type.
type told struct {
	kind   laneKind
	reason string // with which the text ends
	name   string // what plugins know it by
}

// tellings are the events whose types end with .delta or .done.
var tellings = map[string]told{
	"response.output_text":                {laneContent, "stop", abi.PartContent},
	"response.refusal":                    {laneContent, "stop", abi.PartRefusal},
	"response.reasoning_text":             {laneContent, "", abi.PartReasoning},
	"response.reasoning_summary_text":     {laneSummary, "", abi.PartSummary},
	"response.function_call_arguments":    {laneArguments, "", ""},
	"response.custom_tool_call_input":     {laneArguments, "", ""},
	"response.mcp_call_arguments":         {laneArguments, "", ""},
	"response.code_interpreter_call_code": {laneArguments, "", ""},
}

var (
	eventKeys = jsonscan.NewKeys("type", "response", "item", "part", "output_index", "content_index", "summary_index", "sequence_number")
	textKeys  = jsonscan.NewKeys("delta", "item_id", "logprobs", "text", "refusal", "arguments", "input", "code")
)

// Where eventKeys and textKeys have their values.
const (
	keyType, keyResponse, keyItem, keyPart, keyOutputIndex, keyContentIndex, keySummaryIndex, keySequence = 0, 1, 2, 3, 4, 5, 6, 7
	keyDeltaText, keyItemID, keyTextLogs, keyFirstText                                                    = 0, 1, 2, 3
)

func (r *responses) judge(p *page) error {
	if !p.stream {
		whole := jsonscan.Span{End: len(p.text)}
		if !present(p.text, whole) { // a null would be a response without members
			return unreadable("not a JSON object with one reading")
		}
		return r.response(p, whole, true)
	}
	var o jsonscan.Object
	if err := eventKeys.Scan(p.text, &o); err != nil {
		return &UnreadableError{Reason: "not a JSON object with one reading", Err: err}
	}
	typ := word(p.text, o.Values[keyType])
	var err error
	if r.sequence, err = number(p.text, o.Values[keySequence], r.sequence+1); err != nil {
		return err
	}
	index, err := number(p.text, o.Values[keyOutputIndex], 0)
	if err != nil {
		return err
	}
	switch {
	case string(typ) == "error":
		p.failed = true
		return nil
	case present(p.text, o.Values[keyResponse]):
		last := string(typ) == "response.completed" || string(typ) == "response.incomplete" || string(typ) == "response.failed"
		return r.response(p, o.Values[keyResponse], last)
	case present(p.text, o.Values[keyItem]):
		err = r.output(p, o.Values[keyItem], index, string(typ) == "response.output_item.done")
	default:
		err = r.telling(p, &o, typ, index)
	}
	if err != nil {
		return err
	}
	return r.place(p, o.Values[keyOutputIndex], index)
}

// place takes an event out whose item was dropped, and moves those behind it up.
func (r *responses) place(p *page, at jsonscan.Span, index int64) error {
	if !at.Found() {
		return nil
	}
	for _, i := range r.items {
		if i.index == index && i.dropped {
			p.drop = true
		}
	}
	if moved := r.moved(index); moved > 0 {
		p.put(at, strconv.FormatInt(index-moved, 10))
	}
	return nil
}

// telling judges an event that tells of one text.
func (r *responses) telling(p *page, o *jsonscan.Object, typ []byte, index int64) error {
	k := laneKey{item: index}
	var err error
	if o.Values[keySummaryIndex].Found() {
		k.kind = laneSummary
		k.index, err = number(p.text, o.Values[keySummaryIndex], 0)
	} else {
		k.index, err = number(p.text, o.Values[keyContentIndex], 0)
	}
	if err != nil {
		return err
	}
	if present(p.text, o.Values[keyPart]) {
		return r.part(p, o.Values[keyPart], k, bytes.HasSuffix(typ, []byte(".done")))
	}
	stem, delta := bytes.CutSuffix(typ, []byte(".delta"))
	if !delta {
		stem = bytes.TrimSuffix(typ, []byte(".done"))
	}
	t, ok := tellings[string(stem)]
	if !ok {
		return nil
	}
	if k.kind = t.kind; k.kind == laneArguments {
		k.index = 0
	}
	l, err := r.lane(k)
	if err != nil {
		return err
	}
	l.name = t.name
	var text jsonscan.Object
	if err := scan(textKeys, p.text, jsonscan.Span{End: len(p.text)}, &text); err != nil {
		return err
	}
	if delta {
		return r.delta(p, l, typ, &text)
	}
	for _, at := range text.Values[keyFirstText:] {
		if present(p.text, at) {
			return r.whole(p, l, at, text.Values[keyTextLogs], t.reason)
		}
	}
	return nil
}

// delta judges what is new of a text.
func (r *responses) delta(p *page, l *lane, typ []byte, o *jsonscan.Object) error {
	it, err := r.known(l)
	if err != nil || it != nil && it.dropped {
		return err
	}
	if l.typ == "" {
		l.typ = string(typ)
		if id := o.Values[keyItemID]; simple(p.text, id) {
			l.itemID = bytes.Clone(id.Of(p.text))
		}
	}
	was, err := str(p.text, o.Values[keyDeltaText])
	if err != nil {
		return err
	}
	now, err := r.more(p, l, was)
	if err != nil || now == was {
		return err
	}
	p.put(o.Values[keyDeltaText], quote(now))
	if present(p.text, o.Values[keyTextLogs]) {
		p.put(o.Values[keyTextLogs], "[]")
	}
	p.drop = now == ""
	return nil
}

// known returns the item of a call's arguments; nil for other texts.
func (r *responses) known(l *lane) (*item, error) {
	if l.key.kind != laneArguments {
		return nil, nil
	}
	return r.item(l.key.item)
}

// whole judges an event that tells a text as it ends.
func (r *responses) whole(p *page, l *lane, at, logprobs jsonscan.Span, reason string) error {
	it, err := r.known(l)
	if err != nil || it != nil && it.dropped {
		return err
	}
	return r.settle(p, l, at, logprobs, &reason)
}

// finish ends the texts that the provider has not.
func (r *responses) finish(p *page) error {
	for _, l := range r.lanes {
		if l.open && !l.ended {
			if err := r.end(p, l, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *responses) denial(b []byte, eol string, d abi.Denial) []byte {
	return appendErrorEvent(b, d, eol, r.sequence+1)
}
