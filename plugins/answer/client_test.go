// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// client is what a program at the other end makes of a response, by other means than this package's.
type client struct {
	texts  map[string]string // by choice and member, as they add up
	told   map[string]string // responses: what later events say of them
	events int
	err    map[string]any // the error that ended the stream
	done   bool
}

// readStream reads server-sent events as https://html.spec.whatwg.org/multipage/server-sent-events.html has it.
func readStream(body string) (*client, error) {
	c := &client{texts: map[string]string{}, told: map[string]string{}}
	body = strings.TrimPrefix(body, "\uFEFF")
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n")
	var data []string
	for line := range strings.SplitSeq(body+"\n\n", "\n") { // as clients do that take an unfinished event
		if line == "" {
			if err := c.event(strings.Join(data, "\n")); err != nil {
				return nil, err
			}
			data = nil
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "data":
			data = append(data, strings.TrimPrefix(value, " "))
		case "", "event", "id", "retry", "dataset":
		default:
			return nil, fmt.Errorf("a line that is no field: %q", line)
		}
	}
	return c, nil
}

func (c *client) event(data string) error {
	switch {
	case data == "":
		return nil
	case data == "[DONE]":
		c.done = true
		return nil
	case c.done || c.err != nil:
		return fmt.Errorf("an event after the end: %s", data)
	}
	c.events++
	var o map[string]any
	if err := json.Unmarshal([]byte(data), &o); err != nil {
		return fmt.Errorf("%w: %s", err, data)
	}
	if e, ok := o["error"].(map[string]any); ok {
		c.err = e
		return nil
	}
	if typ, ok := o["type"].(string); ok {
		c.responses(typ, o)
		return nil
	}
	c.choices(o)
	return nil
}

func (c *client) add(key string, v any) {
	switch v := v.(type) {
	case string:
		c.texts[key] += v
	case []any: // parts
		for _, e := range v {
			part, _ := e.(map[string]any)
			c.add(key, part["text"])
			c.add(key+".thinking", part["thinking"])
		}
	}
}

func (c *client) choices(o map[string]any) {
	list, _ := o["choices"].([]any)
	for i, e := range list {
		choice, _ := e.(map[string]any)
		index := fmt.Sprint(i)
		if n, ok := choice["index"]; ok {
			index = fmt.Sprint(n)
		}
		c.add(index+".text", choice["text"])
		for _, name := range []string{"delta", "message"} {
			m, _ := choice[name].(map[string]any)
			for _, k := range []string{"content", "refusal", "reasoning", "reasoning_content", "reasoning_details"} {
				c.add(index+"."+k, m[k])
			}
			calls, _ := m["tool_calls"].([]any)
			for j, e := range calls {
				call, _ := e.(map[string]any)
				n := any(j)
				if i, ok := call["index"]; ok {
					n = i
				}
				for _, form := range []string{"function", "custom"} {
					f, _ := call[form].(map[string]any)
					key := fmt.Sprintf("%s.call.%v", index, n)
					c.add(key+".name", f["name"])
					c.add(key, f["arguments"])
					c.add(key, f["input"])
				}
			}
		}
	}
}

func (c *client) responses(typ string, o map[string]any) {
	item, index := o["output_index"], o["content_index"]
	if s, ok := o["summary_index"]; ok {
		index = fmt.Sprint("s", s)
	}
	if index == nil {
		index = "args"
	}
	key := fmt.Sprintf("%v.%v", item, index)
	if strings.HasSuffix(typ, ".delta") {
		c.add(key, o["delta"])
		return
	}
	tell := func(key string, o map[string]any) {
		for _, k := range []string{"text", "refusal", "arguments"} {
			if s, ok := o[k].(string); ok {
				if old, ok := c.told[key]; ok && old != "" && old != s {
					s = "CONTRADICTED: " + old + " / " + s
				}
				c.told[key] = s
			}
		}
	}
	tellItem := func(n any, it map[string]any) {
		tell(fmt.Sprintf("%v.args", n), it)
		for _, list := range []string{"content", "summary"} {
			parts, _ := it[list].([]any)
			for i, e := range parts {
				part, _ := e.(map[string]any)
				key := fmt.Sprintf("%v.%v", n, i)
				if list == "summary" {
					key = fmt.Sprintf("%v.s%v", n, i)
				}
				tell(key, part)
			}
		}
	}
	switch {
	case strings.HasSuffix(typ, "part.done"), strings.HasSuffix(typ, "part.added"):
		part, _ := o["part"].(map[string]any)
		tell(key, part)
	case strings.HasPrefix(typ, "response.output_item"):
		it, _ := o["item"].(map[string]any)
		tellItem(item, it)
	case strings.HasSuffix(typ, ".done"):
		tell(key, o)
	default:
		r, _ := o["response"].(map[string]any)
		list, _ := r["output"].([]any)
		for i, e := range list {
			it, _ := e.(map[string]any)
			tellItem(i, it)
		}
	}
}
