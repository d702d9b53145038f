// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

// maxLanes bounds the texts and the items of a response.
const maxLanes = 1024

// laneKind is where in an item of the output a text is.
type laneKind uint8

const (
	laneContent   laneKind = iota // content[]: answer, refusal, or text of reasoning
	laneSummary                   // summary[], of reasoning
	laneArguments                 // of a call
)

// laneKey names a text of a response.
type laneKey struct {
	item  int64
	index int64
	kind  laneKind
}

// lane is a text of a response: what the provider has given of it, and what has become of that.
type lane struct {
	key    laneKey
	in     []byte
	out    []byte // only if it was changed
	edited bool
	open   bool   // it goes on
	ended  bool   // its judges were told
	name   string // what plugins know it by; [abi.PartContent] is what the model says
	typ    string // of the events that it comes by; empty if none came
	itemID []byte // JSON
}

// text is what has become of the lane.
func (l *lane) text() string {
	if l.edited {
		return string(l.out)
	}
	return string(l.in)
}

// part is the text as plugins know it.
func (l *lane) part() abi.Part { return abi.Part{Name: l.name, Number: l.key.index} }

// item is what is known of an item of the output.
type item struct {
	index   int64
	begun   bool // a call, of which judges know
	dropped bool
}

// lane returns the lane of a key.
func (r *responses) lane(k laneKey) (*lane, error) {
	for _, l := range r.lanes {
		if l.key == k {
			return l, nil
		}
	}
	if len(r.lanes) == maxLanes {
		return nil, unreadable("too many texts")
	}
	l := &lane{key: k, name: abi.PartReasoning}
	if k.kind == laneSummary {
		l.name = abi.PartSummary
	}
	r.lanes = append(r.lanes, l)
	return l, nil
}

// item returns what is known of an item.
func (r *responses) item(index int64) (*item, error) {
	for _, i := range r.items {
		if i.index == index {
			return i, nil
		}
	}
	if len(r.items) == maxLanes {
		return nil, unreadable("too many items")
	}
	i := &item{index: index}
	r.items = append(r.items, i)
	return i, nil
}

// moved is by how much an item moves up, because of those that are gone.
func (r *responses) moved(index int64) (n int64) {
	for _, i := range r.items {
		if i.dropped && i.index < index {
			n++
		}
	}
	return n
}

// begin has a text judged that comes first of a call, with what the call is.
func (r *responses) begin(it *item, l *lane, call abi.CallPart, text string) error {
	it.begun, l.open = true, true
	r.chain.next(abi.KindToolCall, it.index).Tool = call
	left, dropped, err := r.chain.text(0, text)
	if err != nil {
		return err
	}
	if dropped {
		it.dropped, r.touched = true, true
		return nil
	}
	return r.grow(l, text, left)
}

// more has more text of a lane judged, and returns what is left of it.
func (r *responses) more(p *page, l *lane, text string) (left string, _ error) {
	if text == "" {
		return "", nil
	}
	kind := abi.KindText
	if l.key.kind == laneArguments {
		kind = abi.KindToolCall
	} else if err := r.turn(p, l); err != nil {
		return "", err
	}
	l.open, l.ended = true, false
	if e := r.chain.next(kind, l.key.item); kind == abi.KindText {
		e.Part = l.part()
	}
	left, _, err := r.chain.text(0, text)
	if err != nil {
		return "", err
	}
	return left, r.grow(l, text, left)
}

// grow adds to a lane.
func (r *responses) grow(l *lane, in, out string) error {
	if r.kept += len(in) + len(out); r.kept > 2*r.limit {
		return errBodySize
	}
	if in != out && !l.edited {
		l.edited, r.touched = true, true
		l.out = append([]byte(nil), l.in...)
	}
	l.in = append(l.in, in...)
	if l.edited {
		l.out = append(l.out, out...)
	}
	return nil
}

// turn ends the other texts of an item when one begins or goes on.
func (r *responses) turn(p *page, l *lane) error {
	for _, o := range r.lanes {
		if o != l && o.open && o.key.item == l.key.item && o.key.kind != laneArguments {
			if err := r.end(p, o, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// end tells the judges that a text or a call ends. What they add goes out before the page, as the event by which the text would have gone on.
func (r *responses) end(p *page, l *lane, reason string) error {
	l.open, l.ended = false, true
	if l.key.kind == laneArguments {
		r.chain.next(abi.KindToolCall, l.key.item)
	} else {
		e := r.chain.next(abi.KindFinish, l.key.item)
		e.Reason, e.Part = reason, l.part()
	}
	added, err := r.chain.end()
	if err != nil || added == "" {
		return err
	}
	if p.stream && l.typ != "" {
		p.before = r.event(p.before, p.eol, l, added)
	}
	return r.grow(l, "", added)
}

// event appends an event by which a text goes on.
func (r *responses) event(b []byte, eol string, l *lane, text string) []byte {
	b = append(append(append(b, "event: "...), l.typ...), eol...)
	b = append(append(append(b, `data: {"type":"`...), l.typ...), `","sequence_number":`...)
	b = strconv.AppendInt(b, r.sequence, 10)
	if len(l.itemID) > 0 {
		b = append(append(b, `,"item_id":`...), l.itemID...)
	}
	b = append(b, `,"output_index":`...)
	b = strconv.AppendInt(b, l.key.item-r.moved(l.key.item), 10)
	switch l.key.kind {
	case laneContent:
		b = strconv.AppendInt(append(b, `,"content_index":`...), l.key.index, 10)
	case laneSummary:
		b = strconv.AppendInt(append(b, `,"summary_index":`...), l.key.index, 10)
	case laneArguments:
	}
	b = appendQuoted(append(b, `,"delta":`...), text)
	if l.name == abi.PartContent {
		b = append(b, `,"logprobs":[]`...)
	}
	return append(append(append(b, '}'), eol...), eol...)
}

// settle judges what a page says of a whole text: what was judged already is not judged again, and stands as it has become. Where the page differs from what came before, that
// holds.
func (r *responses) settle(p *page, l *lane, at, logprobs jsonscan.Span, reason *string) error {
	was, err := str(p.text, at)
	if err != nil {
		return err
	}
	if bytes.HasPrefix([]byte(was), l.in) {
		if _, err := r.more(p, l, was[len(l.in):]); err != nil {
			return err
		}
	}
	if reason != nil && !l.ended {
		if err := r.end(p, l, *reason); err != nil {
			return err
		}
	}
	now := l.text()
	if now == was || !l.edited && !r.chain.closed() { // as everything that cannot be judged passes where all judges are open
		return nil
	}
	p.put(at, quote(now))
	if present(p.text, logprobs) {
		p.put(logprobs, "[]")
	}
	return nil
}

// saying is the whole answer as it has become.
func (r *responses) saying() string {
	var b []byte
	for _, l := range r.lanes { // in the order in which they began
		if l.name == abi.PartContent {
			b = append(b, l.text()...)
		}
	}
	return string(b)
}
