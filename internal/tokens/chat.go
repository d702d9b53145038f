// SPDX-License-Identifier: Apache-2.0

package tokens

import "github.com/weir-proxy/weir/internal/jsonscan"

// maxParts is how deep the contents of messages are read; deeper ones are counted as JSON.
const maxParts = 4

// chatMember reads a member of a request for a chat: https://platform.openai.com/docs/api-reference/chat/create.
func (m *meter) chatMember(c *jsonscan.Cursor, key string) {
	switch key {
	case "messages":
		m.elements(c, func() { m.message(c) })
	case "tools", "functions":
		m.tools(c)
	case "response_format":
		m.format(c)
	case "tool_choice", "function_call":
		m.choice(c)
	case "prediction":
		m.prediction(c)
	case "modalities":
		m.elements(c, func() { m.size.Speaks = m.says(c.Value(), "audio") || m.size.Speaks })
	case "web_search_options":
		c.Value()
		m.open()
	default:
		m.other(c, key)
	}
}

// responsesMember reads a member of a request for a response: https://platform.openai.com/docs/api-reference/responses/create.
func (m *meter) responsesMember(c *jsonscan.Cursor, key string) {
	switch key {
	case "input":
		if c.Kind() == '[' {
			m.elements(c, func() { m.message(c) })
			return
		}
		m.frame()
		m.add(1, 1) // the role
		m.str(c)
	case "instructions":
		if c.Kind() != 'n' {
			m.frame()
			m.add(1, 1)
		}
		m.str(c)
	case "tools":
		m.tools(c)
	case "text":
		m.format(c)
	case "tool_choice":
		m.choice(c)
	case "previous_response_id", "conversation", "prompt":
		if c.Kind() != 'n' {
			m.open()
		}
		c.Value()
	default:
		m.other(c, key)
	}
}

// frame adds what is around a message.
func (m *meter) frame() { m.add(perMessage, mostPerMessage) }

// message reads a message of a chat, or an item of a response's input.
func (m *meter) message(c *jsonscan.Cursor) {
	m.frame()
	m.members(c, func(key string) {
		switch key {
		case "role":
			m.str(c)
		case "refusal", "arguments", "input", "reasoning_content", "tool_call_id", "call_id":
			m.estimate()
			m.str(c)
		case "name":
			m.add(perName, perName)
			m.str(c)
		case "content", "output", "summary":
			m.content(c, maxParts)
		case "tool_calls":
			m.estimate()
			m.elements(c, func() { m.call(c) })
		case "function_call":
			m.estimate()
			m.call(c)
		case "encrypted_content":
			m.sealed(c)
		case "type":
			if m.says(c.Value(), "item_reference") {
				m.open()
			}
		case "audio": // an earlier answer's, by its id
			if c.Kind() != 'n' {
				m.open()
			}
			c.Value()
		default:
			m.estimate()
			m.other(c, key)
		}
	})
}

// sealed reads reasoning that only the provider can: in base64, and encrypted. Some 6 characters of it are a token.
func (m *meter) sealed(c *jsonscan.Cursor) {
	m.estimate()
	n := int64(len(c.Value()))
	m.add(ceil(n, 6), n)
}

// call reads a call of a tool in an earlier answer.
func (m *meter) call(c *jsonscan.Cursor) {
	m.add(perCall, mostPerCall)
	m.members(c, func(key string) {
		switch key {
		case "function", "custom":
			m.members(c, func(key string) {
				switch key {
				case "name", "arguments", "input":
					m.str(c)
				default:
					m.other(c, key)
				}
			})
		case "name", "arguments":
			m.str(c)
		default:
			m.other(c, key)
		}
	})
}

// content reads the content of a message: a string, or parts of any kinds.
func (m *meter) content(c *jsonscan.Cursor, depth int) {
	switch {
	case c.Kind() != '[' && c.Kind() != '{':
		m.str(c)
		return
	case depth == 0:
		m.opaque(c)
	case c.Kind() == '{':
		m.part(c, depth)
	default:
		m.elements(c, func() {
			if c.Kind() == '{' {
				m.part(c, depth)
			} else {
				m.str(c)
			}
		})
	}
	m.estimate()
}

// part reads one part of a content. The type matters less than what is there: providers differ in what they call it.
func (m *meter) part(c *jsonscan.Cursor, depth int) {
	var p media
	m.members(c, func(key string) {
		switch key {
		case "text", "refusal":
			m.str(c)
		case "content", "output":
			m.content(c, depth-1)
		case "type":
			p.pictured = string(c.Value()) == `"input_image"`
		case "image_url", "input_audio", "file":
			m.enclosed(c, &p, key)
		case "video_url":
			c.Value()
			m.open()
		case "detail", "file_id", "file_url", "file_data", "image_data", "data":
			p.member(c, key)
		case "filename":
			m.estimate()
			m.str(c)
		case "annotations", "logprobs":
			m.other(c, key)
		default:
			m.other(c, key)
		}
	})
	m.weigh(&p)
}

// format reads what shape the answer is to have. A schema for it is put before the messages.
func (m *meter) format(c *jsonscan.Cursor) {
	if c.Kind() != '{' {
		m.other(c, "")
		return
	}
	m.members(c, func(key string) {
		switch key {
		case "json_schema", "schema":
			m.opaque(c)
		case "format":
			m.format(c)
		default:
			m.other(c, key)
		}
	})
}

// choice reads which tool is to be called.
func (m *meter) choice(c *jsonscan.Cursor) {
	value := c.Value()
	m.add(0, int64(len(value)))
	if len(value) > 0 && value[0] == '{' {
		m.estimate()
		m.add(7, 7)
	}
}

// prediction reads what the answer is expected to be. What of it is wrong is billed as output.
func (m *meter) prediction(c *jsonscan.Cursor) {
	before := m.size
	m.content(c, maxParts)
	predicted := m.size.Most - before.Most
	m.size.Input, m.size.Most = before.Input, before.Most
	m.size.Predicted += predicted
}

// prompts reads the prompts of a completion or the inputs of embeddings, and returns how many there are. Each is a text or a list of tokens.
func (m *meter) prompts(c *jsonscan.Cursor) int64 {
	if c.Kind() != '[' {
		m.prompt(c)
		return 1
	}
	var prompts, ids int64
	m.elements(c, func() {
		if k := c.Kind(); k == '"' || k == '[' {
			prompts++
			m.prompt(c)
			return
		}
		c.Value()
		ids++
	})
	m.add(ids, ids)
	return max(prompts, 1)
}

// prompt reads one prompt. An empty one stands for the token that texts begin with.
func (m *meter) prompt(c *jsonscan.Cursor) {
	switch c.Kind() {
	case '"':
		m.quoted(c.Value())
	case '[':
		var ids int64
		m.elements(c, func() {
			c.Value()
			ids++
		})
		m.add(ids, ids)
	case 'n':
		c.Value()
		m.add(1, 1)
	default:
		m.opaque(c)
	}
}
