// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// Tokens of tools beside their texts, by the cookbook.
const (
	perToolsEnd   = 12 // once
	perProperties = 3  // of a tool that has any
	perProperty   = 3
	perEnum       = -3
	perEnumItem   = 3
)

// maxSchema is how deep schemas are read; what is deeper is counted as JSON.
const maxSchema = 8

// tools reads the tools that the model may call. Each has at most as many tokens as its JSON has bytes, beside what is allowed for all.
func (m *meter) tools(c *jsonscan.Cursor) {
	if c.Kind() != '[' {
		m.other(c, "")
		return
	}
	m.estimate()
	n := 0
	m.elements(c, func() {
		n++
		m.bounded(c, m.toolOf)
	})
	if n > 0 {
		m.add(perToolsEnd, mostForTools)
	}
}

// bounded counts a value by f and takes its length, not what f says, for the most.
func (m *meter) bounded(c *jsonscan.Cursor, f func(value []byte)) {
	value := c.Value()
	most := m.size.Most + int64(len(value)) + mostPerCall
	f(value)
	m.size.Most = max(most, m.size.Most)
}

// tool is what is said of a tool. Values are JSON; nil if they are not there.
type tool struct{ kind, name, description, parameters, function []byte }

func (m *meter) readTool(value []byte) (t tool) {
	c := jsonscan.NewCursor(value)
	m.members(&c, func(key string) {
		value := c.Value()
		switch key {
		case "type":
			t.kind = value
		case "name":
			t.name = value
		case "description":
			t.description = value
		case "parameters":
			t.parameters = value
		case "function":
			t.function = value
		}
	})
	return t
}

// toolOf reads one tool: in a chat, its function is an object of its own, in a request for a response it is not, nor in the older functions.
func (m *meter) toolOf(value []byte) {
	t := m.readTool(value)
	switch string(t.kind) {
	case "", `"function"`:
		if t.function != nil {
			t = m.readTool(t.function)
		}
		m.add(m.tool, 0)
		m.words(t.name, t.description)
		schema := jsonscan.NewCursor(t.parameters)
		m.schema(&schema, maxSchema)
	case `"custom"`:
		m.plain(value, 0)
	default: // one of the provider's own, such as a search, whose results become input
		m.open()
		m.plain(value, 0)
	}
}

// words counts texts with colons between them, and the last one without its full stop: so the cookbook has it.
func (m *meter) words(texts ...[]byte) {
	m.line = m.line[:0]
	for i, t := range texts {
		if i > 0 {
			m.line = append(m.line, ':')
		}
		if len(t) > 1 && t[0] == '"' {
			t = inside(t)
		}
		m.line = jsonscan.AppendUnquoted(m.line, t)
	}
	m.plain(bytes.TrimSuffix(m.line, []byte(".")), 0)
}

// schema reads a JSON schema of an object: its properties, and those of what is in it. What else restricts values is counted as JSON.
func (m *meter) schema(c *jsonscan.Cursor, depth int) {
	m.members(c, func(key string) {
		switch key {
		case "properties":
			m.properties(c, depth)
		case "items":
			m.nested(c, depth)
		case "anyOf", "oneOf", "allOf", "$defs", "definitions":
			m.plain(c.Value(), 0)
		default:
			c.Value()
		}
	})
}

// nested reads a schema within a schema.
func (m *meter) nested(c *jsonscan.Cursor, depth int) {
	if depth == 0 {
		m.plain(c.Value(), 0)
		return
	}
	m.schema(c, depth-1)
}

func (m *meter) properties(c *jsonscan.Cursor, depth int) {
	if c.Kind() != '{' {
		c.Value()
		return
	}
	first := true
	for c.Enter(); ; {
		name, ok := c.Member()
		if !ok {
			return
		}
		if first {
			m.add(perProperties, 0)
			first = false
		}
		m.add(perProperty, 0)
		m.property(name, c.Value(), depth)
	}
}

// property reads one property of a schema.
func (m *meter) property(name, value []byte, depth int) {
	var kind, description []byte
	c := jsonscan.NewCursor(value)
	m.members(&c, func(key string) {
		switch key {
		case "type":
			kind = c.Value()
		case "description":
			description = c.Value()
		case "enum":
			m.add(perEnum, 0)
			m.elements(&c, func() {
				m.add(perEnumItem, 0)
				m.str(&c)
			})
		default:
			c.Value()
		}
	})
	m.words(name, kind, description)
	inner := jsonscan.NewCursor(value)
	m.nested(&inner, depth)
}
