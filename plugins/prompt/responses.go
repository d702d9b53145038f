// SPDX-License-Identifier: Apache-2.0

package prompt

import (
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
)

var (
	itemKeys  = jsonscan.NewKeys("type", "role", "content", "summary", "call_id", "name", "arguments", "output")
	inputKeys = jsonscan.NewKeys("input") // of the call of a custom tool; the ninth key of an item
)

// readResponses reads a request of the Responses API: instructions are the first message, and each item of the input is one.
func (p *Prompt) readResponses(v []jsonscan.Span) error {
	if at := v[1]; p.is(at, '"') {
		p.add(jsonscan.Span{}, abi.Message{Role: roleSystem, Texts: []abi.Text{p.text(at)}})
	}
	if at := v[2]; p.is(at, '"') {
		p.whole = at
		p.add(at, abi.Message{Role: roleUser, Texts: []abi.Text{p.text(at)}})
	} else {
		p.list = at
	}
	i := 0
	for at := range jsonscan.Elements(p.body, p.list) {
		m, err := p.readItem("input["+strconv.Itoa(i)+"]", at)
		if err != nil {
			return err
		}
		p.add(at, m)
		i++
	}
	if err := p.readTemplate(v[4]); err != nil {
		return err
	}
	p.readLimits(1, v[5], v[6], v[7])
	return p.readTools("tools", v[3])
}

func (p *Prompt) readItem(param string, at jsonscan.Span) (abi.Message, error) {
	v, err := p.members(itemKeys, param, at)
	if err != nil {
		return abi.Message{}, err
	}
	m := abi.Message{Role: p.str(v[1])}
	switch kind := p.str(v[0]); kind {
	case "", "message":
	case "function_call", "custom_tool_call":
		m.Role = roleAssistant
		call := abi.ToolCall{ID: p.str(v[4]), Name: p.str(v[5])}
		input, err := p.members(inputKeys, param, at)
		if err != nil {
			return m, err
		}
		for _, at := range []jsonscan.Span{v[6], input[0]} {
			if p.is(at, '"') {
				call.Arguments = p.text(at)
			}
		}
		m.Calls = append(m.Calls, call)
	case "function_call_output", "custom_tool_call_output":
		m.Role, m.Answers = roleTool, p.str(v[4])
	case "reasoning":
		m.Role = roleAssistant
	default: // what it holds beyond these members is between the client and the provider
		m.Media = append(m.Media, kind)
	}
	for _, c := range []struct {
		name string
		at   jsonscan.Span
	}{{"content", v[2]}, {"summary", v[3]}, {"output", v[7]}} {
		if p.is(c.at, '{') { // an output of its own kind, such as a screenshot
			continue
		}
		if err := p.readContent(param+"."+c.name, c.at, &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

// readTemplate reads the variables of a prompt that is kept at the provider: what the client puts into it.
func (p *Prompt) readTemplate(at jsonscan.Span) error {
	if !p.is(at, '{') {
		return nil
	}
	v, err := p.members(templateKeys, "prompt", at)
	if err != nil || !v[0].Found() {
		return err
	}
	m := abi.Message{Role: roleUser, Media: []string{"prompt"}}
	for _, value := range jsonscan.Members(p.body, v[0]) {
		switch {
		case p.is(value, '"'):
			m.Texts = append(m.Texts, p.text(value))
		case p.is(value, '{'):
			part, err := p.members(partKeys, "prompt.variables", value)
			if err != nil {
				return err
			}
			if p.is(part[1], '"') {
				m.Texts = append(m.Texts, p.text(part[1]))
			} else {
				m.Media = append(m.Media, kind(p.str(part[0])))
			}
		}
	}
	p.add(jsonscan.Span{}, m)
	return nil
}
