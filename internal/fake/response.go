// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
)

// responseUsage is the usage of responses: https://platform.openai.com/docs/api-reference/responses/object.
type responseUsage struct {
	InputTokens  int `json:"input_tokens"`
	InputDetails struct {
		CachedTokens     int `json:"cached_tokens"`
		CacheWriteTokens int `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens  int `json:"output_tokens"`
	OutputDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens int `json:"total_tokens"`
}

// responsePlan is the answer to a request of responses before it is cut into events.
type responsePlan struct {
	object    map[string]any // the members of the response that do not change
	id        string         // without prefix
	usage     usage
	shown     bool // usage is
	truncated bool
	function  string   // called; empty for a message
	pieces    []string // of the text or the arguments
}

// response answers https://platform.openai.com/docs/api-reference/responses/create.
func (q *request) response() (*answer, *refusal) {
	input, toolResult, f := q.items()
	if f != nil {
		return nil, f
	}
	name, tokens, f := q.called()
	if f != nil {
		return nil, f
	}
	var instructions string
	if f := q.field("instructions", &instructions); f != nil {
		return nil, f
	}
	input += tokens + q.text(instructions)
	var text struct{ Format struct{ Type string } }
	if f := q.field("text", &text); f != nil {
		return nil, f
	}
	p := responsePlan{object: q.responseObject(), id: q.id(""), shown: !q.recipe.noUsage}
	if p.usage, p.truncated, f = q.output(input, 1, "max_output_tokens"); f != nil {
		return nil, f
	}
	opening, closing := jsonFrame(text.Format.Type)
	if name != "" && !toolResult && p.usage.output > 0 {
		p.function, p.truncated = name, false
		opening, closing = `{"text":"`, `"}`
	}
	p.pieces = q.pieces(p.usage, 1, 0, opening, closing)
	if q.stream {
		return p.stream(), nil
	}
	a := &answer{status: http.StatusOK, retryAfter: -1, reports: true, usage: p.usage}
	a.event(encode(p.end()), len(p.pieces))
	return a, nil
}

// items counts the input of a response, and says whether it ends with the result of a function.
func (q *request) items() (tokens int, toolResult bool, _ *refusal) {
	raw := q.fields["input"]
	var s string
	if len(raw) == 0 || string(raw) == "null" {
		return 0, false, badRequest("input", "missing_required_parameter", "Missing required parameter: 'input'.")
	}
	if json.Unmarshal(raw, &s) == nil {
		return chatTokens + messageTokens + q.text(s), false, nil
	}
	var items []struct {
		Type, Output, Arguments string
		Content                 json.RawMessage
	}
	if f := q.field("input", &items); f != nil {
		return 0, false, f
	}
	tokens = chatTokens
	for i, it := range items {
		n, f := q.content(it.Content, fmt.Sprintf("input[%d].content", i))
		if f != nil {
			return 0, false, f
		}
		tokens += messageTokens + n + q.text(it.Output) + q.text(it.Arguments)
		toolResult = it.Type == "function_call_output"
	}
	return tokens, toolResult, nil
}

// responseObject is the part of the response that echoes the request.
func (q *request) responseObject() map[string]any {
	o := map[string]any{
		"id": q.id("resp_"), "object": "response", "created_at": created, "model": q.model, "background": false,
		"error": nil, "metadata": map[string]string{}, "parallel_tool_calls": true, "previous_response_id": nil,
		"reasoning": map[string]any{"effort": nil, "summary": nil}, "service_tier": "default", "store": true,
		"temperature": 1, "top_p": 1, "truncation": "disabled", "user": nil, "tool_choice": "auto", "tools": []any{},
		"text": map[string]any{"format": map[string]any{"type": "text"}}, "instructions": nil, "max_output_tokens": nil,
	}
	for _, name := range []string{"instructions", "max_output_tokens", "metadata", "text", "tools", "tool_choice", "user"} {
		if raw, ok := q.fields[name]; ok && string(raw) != "null" {
			o[name] = raw
		}
	}
	return o
}

// at is the response in some state, with the output that it has by then.
func (p *responsePlan) at(status string, output []any) map[string]any {
	o := map[string]any{"status": status, "output": output, "usage": nil, "incomplete_details": nil}
	maps.Copy(o, p.object)
	return o
}

// end is the response in its last state.
func (p *responsePlan) end() map[string]any {
	output := []any{}
	if p.usage.reasoning > 0 {
		output = append(output, p.reasoning())
	}
	o := p.at("completed", append(output, p.item("completed", strings.Join(p.pieces, ""))))
	if p.truncated {
		o = p.at("incomplete", append(output, p.item("incomplete", strings.Join(p.pieces, ""))))
		o["incomplete_details"] = map[string]string{"reason": "max_output_tokens"}
	}
	if p.shown {
		u := responseUsage{InputTokens: p.usage.input, OutputTokens: p.usage.output, TotalTokens: p.usage.input + p.usage.output}
		u.InputDetails.CachedTokens = p.usage.cached
		u.OutputDetails.ReasoningTokens = p.usage.reasoning
		o["usage"] = u
	}
	return o
}

// reasoning is the output item that stands for the reasoning, of which nothing is shown.
func (p *responsePlan) reasoning() map[string]any {
	return map[string]any{"id": "rs_" + p.id, "type": "reasoning", "summary": []any{}}
}

// itemID is the id of the message or the function call.
func (p *responsePlan) itemID() string {
	if p.function != "" {
		return "fc_" + p.id
	}
	return "msg_" + p.id
}

// item is the message or the function call, with its text as far as it has come; a message without text has no parts yet.
func (p *responsePlan) item(status, text string) map[string]any {
	if p.function != "" {
		return map[string]any{
			"id": p.itemID(), "type": "function_call", "status": status,
			"call_id": "call_" + p.id, "name": p.function, "arguments": text,
		}
	}
	content := []any{}
	if status != "in_progress" {
		content = append(content, textPart(text))
	}
	return map[string]any{"id": p.itemID(), "type": "message", "status": status, "role": "assistant", "content": content}
}

// textPart is a content part.
func textPart(text string) map[string]any {
	return map[string]any{"type": "output_text", "annotations": []any{}, "logprobs": []any{}, "text": text}
}

// stream is the answer as server-sent events: https://platform.openai.com/docs/api-reference/responses-streaming.
func (p *responsePlan) stream() *answer {
	a := &answer{status: http.StatusOK, retryAfter: -1, stream: true, reports: true, usage: p.usage}
	index := 0
	send := func(name string, tokens int, members map[string]any) {
		members["type"], members["sequence_number"] = name, len(a.ends)
		a.named(name, members, tokens)
	}
	item := func(name string, it map[string]any) {
		send(name, 0, map[string]any{"output_index": index, "item": it})
	}
	text := func(name string, tokens int, members map[string]any) {
		members["item_id"], members["output_index"] = p.itemID(), index
		if p.function == "" {
			members["content_index"] = 0
		}
		send(name, tokens, members)
	}
	whole := strings.Join(p.pieces, "")

	send("response.created", 0, map[string]any{"response": p.at("in_progress", []any{})})
	send("response.in_progress", 0, map[string]any{"response": p.at("in_progress", []any{})})
	if p.usage.reasoning > 0 {
		item("response.output_item.added", p.reasoning())
		item("response.output_item.done", p.reasoning())
		index++
	}
	item("response.output_item.added", p.item("in_progress", ""))
	if p.function != "" {
		for _, s := range p.pieces {
			text("response.function_call_arguments.delta", 1, map[string]any{"delta": s})
		}
		text("response.function_call_arguments.done", 0, map[string]any{"arguments": whole})
	} else {
		text("response.content_part.added", 0, map[string]any{"part": textPart("")})
		for _, s := range p.pieces {
			text("response.output_text.delta", 1, map[string]any{"delta": s, "logprobs": []any{}})
		}
		text("response.output_text.done", 0, map[string]any{"text": whole, "logprobs": []any{}})
		text("response.content_part.done", 0, map[string]any{"part": textPart(whole)})
	}
	end := p.end()
	output := end["output"].([]any)
	item("response.output_item.done", output[index].(map[string]any))
	send("response."+end["status"].(string), 0, map[string]any{"response": end})
	return a
}
