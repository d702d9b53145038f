// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// completionUsage is the usage of chat and completions: https://platform.openai.com/docs/api-reference/chat/object.
type completionUsage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
	PromptDetails    struct {
		CachedTokens int `json:"cached_tokens"`
		AudioTokens  int `json:"audio_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		ReasoningTokens          int `json:"reasoning_tokens"`
		AudioTokens              int `json:"audio_tokens"`
		AcceptedPredictionTokens int `json:"accepted_prediction_tokens"`
		RejectedPredictionTokens int `json:"rejected_prediction_tokens"`
	} `json:"completion_tokens_details"`
}

// report is a usage in the form of chat and completions.
func (u usage) report() json.RawMessage {
	c := completionUsage{PromptTokens: u.input, CompletionTokens: u.output, TotalTokens: u.input + u.output}
	c.PromptDetails.CachedTokens = u.cached
	c.CompletionDetails.ReasoningTokens = u.reasoning
	return encode(c)
}

// completionHead begins each object of chat and completions.
type completionHead struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	Model       string `json:"model"`
	ServiceTier string `json:"service_tier,omitempty"`
	Fingerprint string `json:"system_fingerprint"`
}

// completionBody is an object of chat or completions. Usage is absent when nil.
type completionBody struct {
	completionHead
	Choices []any           `json:"choices"`
	Usage   json.RawMessage `json:"usage,omitempty"`
}

// toolCall is a call of a function; in a stream, a piece of one.
type toolCall struct {
	Index    *int         `json:"index,omitempty"` // in a stream only
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type,omitempty"`
	Function functionCall `json:"function"`
}

// functionCall is the function of a [toolCall].
type functionCall struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

// chatMessage is a whole answer of the model.
type chatMessage struct {
	Role        string     `json:"role"`
	Content     *string    `json:"content"`
	Refusal     *string    `json:"refusal"`
	ToolCalls   []toolCall `json:"tool_calls,omitempty"`
	Annotations []any      `json:"annotations"`
}

// chatChoice is a choice of a whole answer, or of a chunk.
type chatChoice struct {
	Index        int          `json:"index"`
	Message      *chatMessage `json:"message,omitempty"`
	Delta        any          `json:"delta,omitempty"`
	Logprobs     *string      `json:"logprobs"`
	FinishReason *string      `json:"finish_reason"`
}

// chatPlan is a chat's answer before it is cut into events.
type chatPlan struct {
	head     completionHead
	usage    usage
	function string     // called; empty for content
	finish   string     // finish_reason
	choices  [][]string // pieces of content or arguments, by choice
	shows    usageShown
}

// usageShown says where a stream shows its usage.
type usageShown struct {
	null  bool // as null in all other chunks
	last  bool // in the last chunk with choices
	extra bool // in a chunk of its own
	whole bool // in a JSON answer
}

// shown decides where usage is shown.
func (q *request) shown() (usageShown, *refusal) {
	asked, f := q.includeUsage()
	s := usageShown{null: asked, extra: asked, whole: true}
	if q.recipe.usageLast {
		s.last, s.extra = true, false
	}
	if q.recipe.noUsage {
		s = usageShown{}
	}
	return s, f
}

// id makes an id of the request's content.
func (q *request) id(prefix string) string { return prefix + hex.EncodeToString(q.recipe.body[:12]) }

// head begins the objects of an answer.
func (q *request) head(prefix, object string) completionHead {
	return completionHead{ID: q.id(prefix), Object: object, Created: created, Model: q.model, Fingerprint: "fp_" + q.recipe.account}
}

// chat answers https://platform.openai.com/docs/api-reference/chat/create.
func (q *request) chat() (*answer, *refusal) {
	input, toolResult, f := q.messages()
	if f != nil {
		return nil, f
	}
	name, tokens, f := q.called()
	if f != nil {
		return nil, f
	}
	input += tokens
	n, f := q.whole("n", 1, 128)
	if f != nil {
		return nil, f
	}
	var format struct{ Type string }
	if f := q.field("response_format", &format); f != nil {
		return nil, f
	}
	u, truncated, f := q.output(input, n, "max_tokens", "max_completion_tokens")
	if f != nil {
		return nil, f
	}
	p := chatPlan{head: q.head("chatcmpl-", "chat.completion"), usage: u, finish: "stop"}
	if p.shows, f = q.shown(); f != nil {
		return nil, f
	}
	p.head.ServiceTier = "default"
	opening, closing := jsonFrame(format.Type)
	switch {
	case name != "" && !toolResult && u.output > 0:
		p.function, p.finish = name, "tool_calls"
		opening, closing = `{"text":"`, `"}`
	case truncated:
		p.finish = "length"
	}
	for i := range n {
		p.choices = append(p.choices, q.pieces(u, n, i, opening, closing))
	}
	if q.stream {
		return p.stream(), nil
	}
	return p.whole(), nil
}

// jsonFrame is what makes words into a JSON document, if a response format asks for one.
func jsonFrame(format string) (opening, closing string) {
	if format == "json_object" || format == "json_schema" {
		return `{"text":"`, `"}`
	}
	return "", ""
}

// messages counts the messages of a chat, and says whether the last is the result of a tool.
func (q *request) messages() (tokens int, toolResult bool, _ *refusal) {
	var messages []struct {
		Role      string
		Content   json.RawMessage
		ToolCalls json.RawMessage `json:"tool_calls"`
	}
	if f := q.field("messages", &messages); f != nil {
		return 0, false, f
	}
	if len(messages) == 0 {
		return 0, false, badRequest("messages", "missing_required_parameter", "Missing required parameter: 'messages'.")
	}
	tokens = chatTokens
	for i, m := range messages {
		if !slices.Contains([]string{"system", "developer", "user", "assistant", "tool", "function"}, m.Role) {
			at := fmt.Sprintf("messages[%d].role", i)
			return 0, false, badRequest(at, "invalid_value", "Invalid value: '%s'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.", m.Role)
		}
		n, f := q.content(m.Content, fmt.Sprintf("messages[%d].content", i))
		if f != nil {
			return 0, false, f
		}
		tokens += messageTokens + n + q.text(string(m.ToolCalls))
		toolResult = m.Role == "tool"
	}
	return tokens, toolResult, nil
}

// callID is the id of the function call in a choice.
func (p *chatPlan) callID(choice int) string {
	return fmt.Sprintf("call_%s%d", strings.TrimPrefix(p.head.ID, "chatcmpl-"), choice)
}

// whole is the answer as one JSON object.
func (p *chatPlan) whole() *answer {
	body := completionBody{completionHead: p.head, Choices: []any{}}
	for i, pieces := range p.choices {
		content := strings.Join(pieces, "")
		m := chatMessage{Role: "assistant", Content: &content, Annotations: []any{}}
		if p.function != "" {
			m.Content = nil
			m.ToolCalls = []toolCall{{ID: p.callID(i), Type: "function", Function: functionCall{p.function, content}}}
		}
		body.Choices = append(body.Choices, chatChoice{Index: i, Message: &m, FinishReason: &p.finish})
	}
	if p.shows.whole {
		body.Usage = p.usage.report()
	}
	a := &answer{status: http.StatusOK, retryAfter: -1, reports: true, usage: p.usage}
	a.event(encode(body), p.usage.output-p.usage.reasoning)
	return a
}

// stream is the answer as server-sent events: https://platform.openai.com/docs/api-reference/chat-streaming.
func (p *chatPlan) stream() *answer {
	a := &answer{status: http.StatusOK, retryAfter: -1, stream: true, reports: true, usage: p.usage}
	chunk := completionBody{completionHead: p.head}
	chunk.Object = "chat.completion.chunk"
	if p.shows.null {
		chunk.Usage = json.RawMessage("null")
	}
	send := func(choice, tokens int, delta any, finish *string) {
		chunk.Choices = []any{chatChoice{Index: choice, Delta: delta, FinishReason: finish}}
		a.data(chunk, tokens)
	}
	zero := 0
	for i := range p.choices {
		if p.function == "" {
			send(i, 0, map[string]any{"role": "assistant", "content": "", "refusal": nil}, nil)
			continue
		}
		begin := toolCall{Index: &zero, ID: p.callID(i), Type: "function", Function: functionCall{Name: p.function}}
		send(i, 0, map[string]any{"role": "assistant", "content": nil, "refusal": nil, "tool_calls": []toolCall{begin}}, nil)
	}
	for k := range len(p.choices[0]) {
		for i, pieces := range p.choices {
			if p.function == "" {
				send(i, 1, map[string]string{"content": pieces[k]}, nil)
				continue
			}
			more := toolCall{Index: &zero, Function: functionCall{Arguments: pieces[k]}}
			send(i, 1, map[string]any{"tool_calls": []toolCall{more}}, nil)
		}
	}
	for i := range p.choices {
		if p.shows.last && i == len(p.choices)-1 {
			chunk.Usage = p.usage.report()
		}
		send(i, 0, struct{}{}, &p.finish)
	}
	p.shows.finish(a, chunk, p.usage)
	return a
}

// finish ends a stream of chat or completions, with a usage chunk if there is to be one.
func (s usageShown) finish(a *answer, chunk completionBody, u usage) {
	if s.extra {
		chunk.Choices, chunk.Usage = []any{}, u.report()
		a.data(chunk, 0)
	}
	a.event([]byte("data: [DONE]\n\n"), 0)
}
