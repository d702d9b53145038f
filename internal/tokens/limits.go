// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"math"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// limit reads a member that bounds the answer, or says how many there are.
func (m *meter) limit(c *jsonscan.Cursor, key string) bool {
	switch key {
	case "max_tokens":
		m.limits[maxTokens].read(c, m.spelt)
	case "max_completion_tokens":
		m.limits[maxCompletionTokens].read(c, m.spelt)
	case "max_output_tokens":
		m.limits[maxOutputTokens].read(c, m.spelt)
	case "n", "best_of":
		if n, ok := number(c.Value()); ok {
			m.size.Answers = max(m.size.Answers, n)
		}
	default:
		return false
	}
	return true
}

// The members that bound an answer.
const (
	maxTokens = iota
	maxCompletionTokens
	maxOutputTokens
	limitKinds
)

// limit is what a body says by one of them.
type limit struct {
	most  int64 // the highest number; zero: none
	sure  bool  // it stands there as the API spells it
	lifts bool  // it stands there with something that is no limit: of two that differ, either may count
}

func (l *limit) read(c *jsonscan.Cursor, spelt bool) {
	n, ok := number(c.Value())
	if !ok || n == 0 { // zero means no limit to some
		l.lifts = true
		return
	}
	l.most, l.sure = max(l.most, n), l.sure || spelt
}

// bound sets the limit on an answer. Of several the highest counts: which of them a provider heeds is not known. Those of other operations, or in another
// spelling, bound nothing by themselves: most providers pass over them.
func (m *meter) bound(op Operation) {
	own := m.limits[maxTokens : maxTokens+1]
	switch op {
	case Chat:
		own = m.limits[maxTokens : maxCompletionTokens+1]
	case Responses:
		own = m.limits[maxOutputTokens : maxOutputTokens+1]
	case Completions, Embeddings:
	}
	for _, l := range own {
		if l.sure && !l.lifts {
			m.size.Output = max(m.limits[maxTokens].most, m.limits[maxCompletionTokens].most, m.limits[maxOutputTokens].most)
		}
	}
}

// number reads a number that is not negative, rounded up. Some parsers take 2.0 and 2e0 for 2, and "2" too.
func number(value []byte) (n int64, ok bool) {
	if len(value) > 1 && value[0] == '"' {
		value = inside(value)
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if f != f || f < 0 || err != nil && f == 0 { // f is not itself if it is not a number
		return 0, false
	}
	if f >= math.MaxInt32 {
		return math.MaxInt32, true
	}
	return int64(math.Ceil(f)), true
}

// times multiplies two numbers that are not negative. The result is at most the highest number there is.
func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}
