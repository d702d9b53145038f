// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"math"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// limit reads a member that bounds the answer, or says how many there are. Of several limits the highest counts: which of them a provider
// heeds is not known.
func (m *meter) limit(c *jsonscan.Cursor, key string) bool {
	switch key {
	case "max_tokens", "max_completion_tokens", "max_output_tokens":
		if n, ok := number(c.Value()); ok && n > 0 { // zero means no limit to some
			if m.size.Output == NoLimit {
				m.size.Output = n
			}
			m.size.Output = max(m.size.Output, n)
		}
	case "n", "best_of":
		if n, ok := number(c.Value()); ok {
			m.size.Answers = max(m.size.Answers, n)
		}
	default:
		return false
	}
	return true
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
