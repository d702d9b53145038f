// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"cmp"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

// maxChoices bounds the choices of a response and the calls of a choice; OpenAI allows 128 of each.
const maxChoices = 1024

// part is a text of a choice by the name of the member that it comes in.
type part string

// Parts of chat, OpenAI's and those that others have added; partText is that of completions.
const (
	partContent   part = "content"
	partRefusal   part = "refusal"
	partReasoning part = "reasoning_content" // DeepSeek, vLLM and others
	partThought   part = "reasoning"         // OpenRouter, Groq, vLLM
	partBoth      part = "reasoning_content and reasoning"
	partDetails   part = "reasoning_details" // OpenRouter and MiniMax: repeats reasoning, or stands in its place
	partThinking  part = "thinking"          // Mistral: an element of content
	partText      part = "text"
	partCall      part = "" // arguments
)

// chat judges responses of chat and completions:
// https://platform.openai.com/docs/api-reference/chat-streaming/streaming, https://platform.openai.com/docs/api-reference/completions/object.
type chat struct {
	chain   *chain
	main    part // where text goes that a judge adds to a choice that had none
	choices []*choice
	head    []byte // members that begin each event of the stream
	list    []element
}

// choice is what is known of a choice.
type choice struct {
	index    int64
	part     part // of the text last
	open     bool // something came of it since it was finished
	finished bool
	calls    []*toolCall
	call     *toolCall // whose arguments are coming
	slots    []slot    // of the page under judgement
	object   jsonscan.Object
}

// slot is a string of a page that judges may change.
type slot struct {
	at   jsonscan.Span // the value; a null to be replaced counts as empty
	also jsonscan.Span // says the same
	tell jsonscan.Span // an array that repeats it
	was  string
	now  string
	part part
	call *toolCall // with partCall
}

var (
	chunkKeys  = jsonscan.NewKeys("id", "object", "created", "model", "choices", "usage", "error", "x_groq")
	groqKeys   = jsonscan.NewKeys("usage")
	choiceKeys = jsonscan.NewKeys("index", "delta", "message", "text", "finish_reason", "logprobs")
)

// Where chunkKeys and choiceKeys have their values.
const (
	keyChoices, keyUsage, keyError, keyGroq                     = 4, 5, 6, 7
	keyIndex, keyDelta, keyMessage, keyText, keyFinish, keyLogs = 0, 1, 2, 3, 4, 5
)

func (c *chat) judge(p *page) error {
	var o jsonscan.Object
	if err := chunkKeys.Scan(p.text, &o); err != nil {
		return &UnreadableError{Reason: "not a JSON object with one reading", Err: err}
	}
	p.failed = present(p.text, o.Values[keyError])
	if err := c.usage(p, &o); err != nil {
		return err
	}
	ok, err := isArray(p.text, o.Values[keyChoices])
	if err != nil || !ok {
		return err
	}
	position := int64(0)
	for at := range jsonscan.Elements(p.text, o.Values[keyChoices]) {
		if position == 0 && p.stream && c.head == nil {
			c.remember(p.text, &o)
		}
		if err := c.choice(p, at, position); err != nil {
			return err
		}
		position++
	}
	p.onlyUsage = position == 0 && isObject(p.text, o.Values[keyUsage])
	if p.stream && p.lost && !p.left {
		p.drop = !c.means(p, &o)
	}
	return nil
}

func (c *chat) usage(p *page, o *jsonscan.Object) error {
	p.usage = o.Values[keyUsage]
	if isObject(p.text, p.usage) || !isObject(p.text, o.Values[keyGroq]) {
		return nil
	}
	var g jsonscan.Object
	if err := scan(groqKeys, p.text, o.Values[keyGroq], &g); err != nil {
		return err
	}
	p.usage = g.Values[0]
	return nil
}

// remember keeps what an event of this stream begins with.
func (c *chat) remember(text []byte, o *jsonscan.Object) {
	c.head = []byte("{")
	for i, name := range [...]string{"id", "object", "created", "model"} {
		if v := o.Values[i]; simple(text, v) {
			c.head = append(append(append(c.head, '"'), name...), '"', ':')
			c.head = append(append(c.head, v.Of(text)...), ',')
		}
	}
}

// get returns what is known of a choice.
func (c *chat) get(index int64) (*choice, error) {
	for _, ch := range c.choices {
		if ch.index == index {
			return ch, nil
		}
	}
	if len(c.choices) == maxChoices {
		return nil, unreadable("too many choices")
	}
	ch := &choice{index: index}
	c.choices = append(c.choices, ch)
	return ch, nil
}

// choice judges what a page has of a choice.
func (c *chat) choice(p *page, at jsonscan.Span, position int64) error {
	var o jsonscan.Object
	if err := scan(choiceKeys, p.text, at, &o); err != nil {
		return err
	}
	index, err := number(p.text, o.Values[keyIndex], position)
	if err != nil {
		return err
	}
	ch, err := c.get(index)
	if err != nil {
		return err
	}
	ch.slots, ch.object = ch.slots[:0], o
	for _, k := range [...]int{keyDelta, keyMessage} {
		if err := c.message(p, ch, o.Values[k]); err != nil {
			return err
		}
	}
	if _, err := c.text(p, ch, partText, o.Values[keyText]); err != nil {
		return err
	}
	reason, err := str(p.text, o.Values[keyFinish])
	if err != nil {
		return err
	}
	if reason != "" || !p.stream {
		p.left = true
		if err := c.end(p, ch, reason); err != nil {
			return err
		}
	}
	if c.splice(p, ch) && present(p.text, o.Values[keyLogs]) {
		p.put(o.Values[keyLogs], "null")
	}
	return nil
}

// text judges a text of a choice and keeps it in ch.slots; it returns nil if there is none, and what it returns is valid until the next slot.
func (c *chat) text(p *page, ch *choice, part part, at jsonscan.Span) (*slot, error) {
	if !at.Found() {
		return nil, nil
	}
	if !present(p.text, at) {
		if !p.stream && part == c.main {
			ch.slots = append(ch.slots, slot{at: at, part: part})
		}
		return nil, nil
	}
	was, err := str(p.text, at)
	if err != nil {
		return nil, err
	}
	s := slot{at: at, was: was, now: was, part: part}
	if was != "" {
		if err := c.turn(p, ch, part); err != nil {
			return nil, err
		}
		c.chain.next(abi.KindText, ch.index).Part.Name = part.name()
		if s.now, _, err = c.chain.text(0, was); err != nil {
			return nil, err
		}
	}
	ch.slots = append(ch.slots, s)
	return &ch.slots[len(ch.slots)-1], nil
}

// turn goes from one text of a choice to another one: the judges are told that the former ends.
func (c *chat) turn(p *page, ch *choice, to part) error {
	from := ch.part
	ch.part, ch.open = to, true
	if from == "" || from == to {
		return nil
	}
	c.chain.next(abi.KindFinish, ch.index).Part.Name = from.name()
	added, err := c.chain.end()
	if err != nil {
		return err
	}
	c.add(p, ch, from, added)
	return nil
}

// end finishes a choice.
func (c *chat) end(p *page, ch *choice, reason string) error {
	if err := c.endCall(p, ch); err != nil {
		return err
	}
	if ch.finished && !ch.open {
		return nil
	}
	ch.open, ch.finished = false, true
	last := cmp.Or(ch.part, c.main)
	e := c.chain.next(abi.KindFinish, ch.index)
	e.Reason, e.Part.Name = reason, last.name()
	added, err := c.chain.end()
	if err != nil {
		return err
	}
	c.add(p, ch, last, added)
	return nil
}

// add has a text of a choice go on: in the text of this page, or by an event before it, so that it comes in its place.
func (c *chat) add(p *page, ch *choice, part part, text string) {
	if text == "" {
		return
	}
	for i := len(ch.slots) - 1; i >= 0; i-- {
		if s := &ch.slots[i]; s.part == part && (s.was != "" || !p.stream) {
			s.now += text
			return
		}
	}
	if p.stream {
		p.before = c.event(p.before, p.eol, ch.index, part.member(text))
		return
	}
	p.edits = append(p.edits, ch.object.Insert(part.member(text)))
}

// name is what plugins know the text by, whatever member it comes in.
func (p part) name() string {
	switch p {
	case partContent, partText:
		return abi.PartContent
	case partRefusal:
		return abi.PartRefusal
	}
	return abi.PartReasoning
}

// member is the member that carries a text.
func (p part) member(text string) string {
	q := quote(text)
	switch p {
	case partBoth:
		return `"reasoning_content":` + q + `,"reasoning":` + q
	case partDetails:
		q = `[{"type":"reasoning.text","text":` + q + `}]`
	case partThinking:
		return `"content":[{"type":"thinking","thinking":[{"type":"text","text":` + q + `}]}]`
	}
	return `"` + string(p) + `":` + q
}

// event appends an event of the stream with one member more.
func (c *chat) event(b []byte, eol string, index int64, member string) []byte {
	b = append(append(b, "data: "...), c.head...)
	b = append(b, `"choices":[{"index":`...)
	b = strconv.AppendInt(b, index, 10)
	if c.main == partText {
		b = append(append(b, ','), member...)
	} else {
		b = append(append(append(b, `,"delta":{`...), member...), '}')
	}
	b = append(b, `,"logprobs":null,"finish_reason":null}]}`...)
	return append(append(b, eol...), eol...)
}

// splice makes the edits of the texts of a choice, and reports whether there are any.
func (c *chat) splice(p *page, ch *choice) (edited bool) {
	for _, s := range ch.slots {
		p.left = p.left || s.now != ""
		if s.now == s.was {
			continue
		}
		p.lost = p.lost || s.now == ""
		edited = edited || s.part != partCall
		with := quote(s.now)
		p.put(s.at, with)
		if s.also.Found() {
			p.put(s.also, with)
		}
		if s.tell.Found() {
			p.put(s.tell, "[]")
		}
	}
	return edited
}

// finish ends choices that the provider has not finished.
func (c *chat) finish(p *page) error {
	for _, ch := range c.choices {
		ch.slots = ch.slots[:0]
		if ch.open {
			if err := c.end(p, ch, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *chat) denial(b []byte, eol string, d abi.Denial) []byte { return appendDenial(b, d, eol) }
