// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/json"
	"net/http"
	"strings"
)

// completionChoice is a choice of an answer, or of a chunk, of completions.
type completionChoice struct {
	Text         string  `json:"text"`
	Index        int     `json:"index"`
	Logprobs     *string `json:"logprobs"`
	FinishReason *string `json:"finish_reason"`
}

// completion answers https://platform.openai.com/docs/api-reference/completions/create.
func (q *request) completion() (*answer, *refusal) {
	prompts, f := q.texts("prompt")
	if f != nil {
		return nil, f
	}
	input := 0
	for _, n := range prompts {
		input += n
	}
	n, f := q.whole("n", 1, 128)
	if f != nil {
		return nil, f
	}
	n *= len(prompts)
	u, truncated, f := q.output(input, n, "max_tokens")
	if f != nil {
		return nil, f
	}
	shows, f := q.shown()
	if f != nil {
		return nil, f
	}
	finish := "stop"
	if truncated {
		finish = "length"
	}
	choices := make([][]string, n)
	for i := range choices {
		choices[i] = q.pieces(u, n, i, "", "")
	}
	a := &answer{status: http.StatusOK, retryAfter: -1, stream: q.stream, reports: true, usage: u}
	body := completionBody{completionHead: q.head("cmpl-", "text_completion"), Choices: []any{}}
	if q.stream {
		completionStream(a, body, choices, finish, shows)
		return a, nil
	}
	for i, pieces := range choices {
		body.Choices = append(body.Choices, completionChoice{Text: strings.Join(pieces, ""), Index: i, FinishReason: &finish})
	}
	if shows.whole {
		body.Usage = u.report()
	}
	a.event(encode(body), u.output-u.reasoning)
	return a, nil
}

// completionStream makes the events of a streamed completion.
func completionStream(a *answer, chunk completionBody, choices [][]string, finish string, shows usageShown) {
	if shows.null {
		chunk.Usage = json.RawMessage("null")
	}
	for k := range len(choices[0]) {
		for i, pieces := range choices {
			chunk.Choices = []any{completionChoice{Text: pieces[k], Index: i}}
			a.data(chunk, 1)
		}
	}
	for i := range choices {
		if shows.last && i == len(choices)-1 {
			chunk.Usage = a.usage.report()
		}
		chunk.Choices = []any{completionChoice{Index: i, FinishReason: &finish}}
		a.data(chunk, 0)
	}
	shows.finish(a, chunk, a.usage)
}

// texts counts the tokens of each text in a member that is a string, a list of tokens, or a list of either.
func (q *request) texts(name string) ([]int, *refusal) {
	const most = 2048 // https://platform.openai.com/docs/api-reference/embeddings/create
	raw := q.fields[name]
	if len(raw) == 0 || string(raw) == "null" {
		return nil, badRequest(name, "missing_required_parameter", "Missing required parameter: '%s'.", name)
	}
	var counts []int
	var texts []string
	var tokens []int
	var lists [][]int
	switch {
	case raw[0] == '"':
		texts = make([]string, 1)
		_ = json.Unmarshal(raw, &texts[0]) // the whole body was valid JSON
	case json.Unmarshal(raw, &texts) == nil:
	case json.Unmarshal(raw, &tokens) == nil:
		lists, texts = [][]int{tokens}, nil
	case json.Unmarshal(raw, &lists) == nil:
		texts = nil
	default:
		return nil, badRequest(name, "invalid_type", "Invalid type for '%s': expected a string, an array of strings, or an array of integers.", name)
	}
	for _, s := range texts {
		counts = append(counts, q.text(s))
	}
	for _, l := range lists {
		q.text(string(encode(l)))
		counts = append(counts, len(l))
	}
	if len(counts) == 0 || len(counts) > most {
		return nil, badRequest(name, "invalid_value", "Invalid '%s': expected from 1 to %d elements, but got %d.", name, most, len(counts))
	}
	return counts, nil
}
