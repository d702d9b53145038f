// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"github.com/weir-proxy/weir/internal/jsonscan"
)

var (
	messageKeys = jsonscan.NewKeys("reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "tool_calls", "function_call")
	partKeys    = jsonscan.NewKeys("type", "text", "thinking", "summary")
)

// Where messageKeys and partKeys have their values.
const (
	keyReasoning, keyThought, keyDetails, keyContent, keyRefusal, keyCalls, keyFunction = 0, 1, 2, 3, 4, 5, 6
	keyPartText, keyThinking, keySummary                                                = 1, 2, 3
)

// message judges a message of a choice, or what is new in it.
func (c *chat) message(p *page, ch *choice, at jsonscan.Span) error {
	if !present(p.text, at) {
		return nil
	}
	var o jsonscan.Object
	if err := scan(messageKeys, p.text, at, &o); err != nil {
		return err
	}
	ch.object = o
	if err := c.reasoning(p, ch, &o); err != nil {
		return err
	}
	if err := c.content(p, ch, o.Values[keyContent]); err != nil {
		return err
	}
	if _, err := c.text(p, ch, partRefusal, o.Values[keyRefusal]); err != nil {
		return err
	}
	if err := c.calls(p, ch, o.Values[keyCalls]); err != nil {
		return err
	}
	return c.function(p, ch, o.Values[keyFunction])
}

// reasoning judges the text that led to the answer. Some providers give it under two names: it is judged once and changed in both.
func (c *chat) reasoning(p *page, ch *choice, o *jsonscan.Object) error {
	first, second := o.Values[keyReasoning], o.Values[keyThought]
	a, err := str(p.text, first)
	if err != nil {
		return err
	}
	b, err := str(p.text, second)
	if err != nil {
		return err
	}
	var s *slot
	switch {
	case a != "" && b != "" && a != b:
		return unreadable("two texts of reasoning that differ")
	case a != "" && b != "":
		if s, err = c.text(p, ch, partBoth, first); err == nil {
			s.also = second
		}
	case b != "":
		s, err = c.text(p, ch, partThought, second)
	default:
		s, err = c.text(p, ch, partReasoning, first)
	}
	details := o.Values[keyDetails]
	switch {
	case err != nil:
		return err
	case s == nil || s.was == "":
		return c.each(p, ch, partDetails, details)
	case present(p.text, details): // it goes if the text is changed
		s.tell = details
	}
	return nil
}

// content judges the text of the answer, or its parts.
func (c *chat) content(p *page, ch *choice, at jsonscan.Span) error {
	if at.Found() && p.text[at.Start] == '[' {
		return c.each(p, ch, partContent, at)
	}
	_, err := c.text(p, ch, partContent, at)
	return err
}

// each judges the texts of an array of parts: {"type":"text","text":"…"}, Mistral's {"type":"thinking","thinking":[…]}, OpenRouter's
// {"type":"reasoning.summary","summary":"…"}. Parts of other kinds have none of these.
func (c *chat) each(p *page, ch *choice, part part, at jsonscan.Span) error {
	ok, err := isArray(p.text, at)
	if err != nil || !ok {
		return err
	}
	for e := range jsonscan.Elements(p.text, at) {
		var o jsonscan.Object
		if err := scan(partKeys, p.text, e, &o); err != nil {
			return err
		}
		if _, err := c.text(p, ch, part, o.Values[keyPartText]); err != nil {
			return err
		}
		if _, err := c.text(p, ch, part, o.Values[keySummary]); err != nil {
			return err
		}
		inner := o.Values[keyThinking]
		switch {
		case !present(p.text, inner):
		case part == partThinking:
			return unreadable("parts within parts of a part")
		case p.text[inner.Start] == '[':
			err = c.each(p, ch, partThinking, inner)
		default:
			_, err = c.text(p, ch, partThinking, inner)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// means reports whether an event has something for the client besides texts, of which nothing is left.
func (c *chat) means(p *page, o *jsonscan.Object) bool {
	all := jsonscan.Span{End: o.Close + 1}
	for all.Start = 0; p.text[all.Start] != '{'; all.Start++ {
	}
	for k, v := range jsonscan.Members(p.text, all) {
		switch string(word(p.text, k)) {
		case "id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "provider", "obfuscation":
		default:
			if present(p.text, v) {
				return true
			}
		}
	}
	for at := range jsonscan.Elements(p.text, o.Values[keyChoices]) {
		for k, v := range jsonscan.Members(p.text, at) {
			switch string(word(p.text, k)) {
			case "index", "text", "finish_reason", "logprobs":
			case "delta", "message":
				if meansMessage(p.text, v) {
					return true
				}
			default:
				if present(p.text, v) {
					return true
				}
			}
		}
	}
	return false
}

func meansMessage(text []byte, at jsonscan.Span) bool {
	for k, v := range jsonscan.Members(text, at) {
		switch string(word(text, k)) {
		case "reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "tool_calls", "function_call":
		default:
			if present(text, v) {
				return true
			}
		}
	}
	return false
}
