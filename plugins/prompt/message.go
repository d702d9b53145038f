// SPDX-License-Identifier: Apache-2.0

package prompt

import (
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

// Roles of those messages for which the body names none.
const (
	roleSystem    = "system"
	roleUser      = "user"
	roleAssistant = "assistant"
	roleTool      = "tool"
)

// mediaTokens stands for a prompt that is a list of token numbers.
const mediaTokens = "tokens"

// media are the kinds of parts that are no text, by their type in the body; all other types stand for themselves.
var media = map[string]string{
	"image_url": "image", "input_image": "image",
	"input_audio": "audio",
	"file":        "file", "input_file": "file",
}

var (
	messageKeys = jsonscan.NewKeys("role", "name", "content", "refusal", "reasoning_content", "tool_calls", "tool_call_id", "function_call")
	partKeys    = jsonscan.NewKeys("type", "text", "refusal")
	callKeys    = jsonscan.NewKeys("id", "function", "custom")
	calledKeys  = jsonscan.NewKeys("name", "arguments", "input")
	toolKeys    = jsonscan.NewKeys("type", "function", "custom", "name", "description", "parameters")
)

// readMessage reads a message of a chat.
func (p *Prompt) readMessage(param string, at jsonscan.Span) (abi.Message, error) {
	v, err := p.members(messageKeys, param, at)
	if err != nil {
		return abi.Message{}, err
	}
	m := abi.Message{Role: p.str(v[0]), Name: p.str(v[1]), Answers: p.str(v[6])}
	if err := p.readContent(param+".content", v[2], &m); err != nil {
		return m, err
	}
	for _, at := range v[3:5] { // refusal, reasoning_content
		if p.is(at, '"') {
			m.Texts = append(m.Texts, p.text(at))
		}
	}
	i := 0
	for e := range jsonscan.Elements(p.body, v[5]) {
		if err := p.readCall(param+".tool_calls["+strconv.Itoa(i)+"]", e, &m); err != nil {
			return m, err
		}
		i++
	}
	if p.is(v[7], '{') {
		return m, p.readCalled(param+".function_call", "", v[7], &m)
	}
	return m, nil
}

// members finds the members of the object at a place.
func (p *Prompt) members(keys *jsonscan.Keys, param string, at jsonscan.Span) ([jsonscan.MaxKeys]jsonscan.Span, error) {
	if !p.is(at, '{') {
		return [jsonscan.MaxKeys]jsonscan.Span{}, &Error{Param: param, Reason: "Invalid type for '" + param + "': expected an object."}
	}
	var o jsonscan.Object
	if err := keys.Find(at.Of(p.body), &o); err != nil {
		return o.Values, malformed(param, err)
	}
	for i := range o.Values {
		o.Values[i] = shift(o.Values[i], at.Start)
	}
	return o.Values, nil
}

// readContent reads a string, or a list of parts. Whatever has a text is a text, of whatever type it says to be.
func (p *Prompt) readContent(param string, at jsonscan.Span, m *abi.Message) error {
	switch {
	case !at.Found() || p.is(at, 'n'):
		return nil
	case p.is(at, '"'):
		m.Texts = append(m.Texts, p.text(at))
		return nil
	case !p.is(at, '['):
		return &Error{Param: param, Reason: "Invalid type for '" + param + "': expected a string or a list of parts."}
	}
	i := 0
	for e := range jsonscan.Elements(p.body, at) {
		if p.is(e, '"') { // not in OpenAI's schema; some providers take it
			m.Texts = append(m.Texts, p.text(e))
			continue
		}
		v, err := p.members(partKeys, param+"["+strconv.Itoa(i)+"]", e)
		if err != nil {
			return err
		}
		found := false
		for _, at := range v[1:3] {
			if p.is(at, '"') {
				m.Texts, found = append(m.Texts, p.text(at)), true
			}
		}
		if !found {
			m.Media = append(m.Media, kind(p.str(v[0])))
		}
		i++
	}
	return nil
}

func kind(name string) string {
	if k, ok := media[name]; ok {
		return k
	}
	if name == "" {
		return "unknown"
	}
	return name
}

// readCall reads one of the calls that an assistant made.
func (p *Prompt) readCall(param string, at jsonscan.Span, m *abi.Message) error {
	v, err := p.members(callKeys, param, at)
	if err != nil {
		return err
	}
	for _, at := range v[1:3] { // function, custom
		if p.is(at, '{') {
			if err := p.readCalled(param, p.str(v[0]), at, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Prompt) readCalled(param, id string, at jsonscan.Span, m *abi.Message) error {
	v, err := p.members(calledKeys, param, at)
	if err != nil {
		return err
	}
	call := abi.ToolCall{ID: id, Name: p.str(v[0])}
	for _, at := range v[1:3] { // arguments, input
		if p.is(at, '"') {
			call.Arguments = p.text(at)
		}
	}
	m.Calls = append(m.Calls, call)
	return nil
}

// readTools reads the tools, in the form of chats, where a function is nested, and in that of responses and of the functions of old, where it is not.
func (p *Prompt) readTools(param string, at jsonscan.Span) error {
	i := 0
	for e := range jsonscan.Elements(p.body, at) {
		param := param + "[" + strconv.Itoa(i) + "]"
		i++
		v, err := p.members(toolKeys, param, e)
		if err != nil {
			return err
		}
		for _, inner := range v[1:3] { // function, custom
			if p.is(inner, '{') {
				if v, err = p.members(toolKeys, param, inner); err != nil {
					return err
				}
				break
			}
		}
		t := abi.Tool{Name: p.str(v[3]), Description: p.str(v[4])}
		if t.Name == "" { // one that the provider brings along, such as a web search
			t.Name = p.str(v[0])
		}
		if v[5].Found() {
			t.Parameters = string(v[5].Of(p.body))
		}
		p.Tools = append(p.Tools, t)
	}
	return nil
}
