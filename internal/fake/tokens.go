// SPDX-License-Identifier: Apache-2.0

package fake

import "strings"

// What things cost in tokens. The numbers are made up; the package comment promises them.
const (
	textBytes      = 4 // per token
	messageTokens  = 4
	chatTokens     = 3
	imageTokens    = 255
	lowImageTokens = 85
	fileTokens     = 64
	cacheFrom      = 1024 // input tokens: https://platform.openai.com/docs/guides/prompt-caching
	cacheStep      = 128
	mostTokens     = 1_000_000 // of output in one answer
	mostChoices    = 4096
)

// created is the time of every answer: 2026-01-01T00:00:00Z, in seconds.
const created = 1_767_225_600

// text counts the tokens of a text, and makes the answer depend on it.
func (q *request) text(s string) int {
	const prime = 1_099_511_628_211 // FNV-1a: https://www.rfc-editor.org/rfc/rfc9923
	for i := range len(s) {
		q.seed = (q.seed ^ uint64(s[i])) * prime
	}
	return (len(s) + textBytes - 1) / textBytes
}

// output decides how long each of some choices gets, once all input is counted. limits are members that bound it, such as
// max_tokens. truncated says that one of them did.
func (q *request) output(input, choices int, limits ...string) (u usage, truncated bool, _ *refusal) {
	n := 8 + int(q.seed%25)
	for _, name := range limits {
		most, f := q.whole(name, -1, 1<<30)
		if f != nil {
			return u, false, f
		}
		if most > 0 && most < n {
			n, truncated = most, true
		}
	}
	if q.recipe.tokens >= 0 {
		n, truncated = q.recipe.tokens, false
	}
	if choices > mostChoices || n*choices > mostTokens {
		return u, false, badRequest("n", "invalid_value",
			"The answer would have %d choices and %d output tokens; the fake provider makes at most %d and %d.", choices, n*choices, mostChoices, mostTokens)
	}
	u = usage{input: input, output: n * choices}
	if input >= cacheFrom {
		u.cached = input * 3 / 4 / cacheStep * cacheStep
	}
	if strings.HasPrefix(q.model, "o") {
		u.reasoning = n / 4 * choices
	}
	return u, truncated, nil
}

// pieces makes the content of one choice: as many pieces as it has content tokens. The first begins with head, the last ends
// with tail, so that any number of pieces can be one JSON document.
func (q *request) pieces(u usage, choices, choice int, head, tail string) []string {
	words := [...]string{
		"the", "river", "runs", "over", "a", "low", "dam", "and", "its", "flow", "is", "measured", "by", "depth", "at", "every",
		"hour", "while", "water", "falls", "past", "stones", "to", "fields", "below", "where", "mills", "turn", "in", "clear", "light", "again",
	}
	n := (u.output - u.reasoning) / choices
	at := (q.seed>>8 + uint64(choice)) % uint64(len(words))
	out := make([]string, n)
	for i := range out {
		w := words[(at+uint64(i))%uint64(len(words))]
		if i > 0 {
			w = " " + w
		}
		out[i] = w
	}
	if n > 0 {
		out[0] = head + out[0]
		out[n-1] += tail
	}
	return out
}
