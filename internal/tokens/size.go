// SPDX-License-Identifier: Apache-2.0

package tokens

import "math"

// Operation is what a request asks for.
type Operation uint8

// Operations of OpenAI's API.
const (
	Chat Operation = iota
	Completions
	Embeddings
	Responses
)

// Grade says how far a count is to be trusted.
type Grade uint8

// Grades, the best first.
const (
	Exact     Grade = iota // the provider will count the same
	Estimated              // near it, on either side
	Bounded                // not less than the provider will count
)

// String returns the grade in a word.
func (g Grade) String() string { return [...]string{"exact", "estimated", "bounded"}[min(g, Bounded)] }

// NoLimit is the output of a request that does not limit it.
const NoLimit = math.MaxInt64

// CountedText is how many bytes of the texts of a request are counted; what is beyond is estimated from them.
const CountedText = 1 << 20

// Size is how large a request is, in tokens. No number is negative.
type Size struct {
	Input  int64 // of the request
	Most   int64 // that Input may turn out to be; never below Input
	Grade  Grade // of Input
	Open   bool  // the request refers to input that is not in it, of any size: Most does not hold
	Output int64 // limit on one answer, reasoning included, as the request has it; NoLimit if it has none, 0 for embeddings
	// Answers is how many the provider makes: n, or best_of, for each prompt.
	Answers int64
	// Audio and Images are the parts of Most that may be billed as such.
	Audio, Images int64
	Speaks        bool // the answer is to have audio, all of which may be billed as such
	// Predicted is the most that a prediction adds to the output: what of it is not used is billed beside the answer.
	Predicted int64
}

// MostOutput returns the most tokens that the provider will bill as output, if the model makes no answer longer than limit. It does not overflow.
func (s *Size) MostOutput(limit int64) int64 {
	each := min(s.Output, max(limit, 0))
	if each > 0 && s.Answers > (math.MaxInt64-s.Predicted)/each {
		return math.MaxInt64
	}
	return each*s.Answers + s.Predicted
}

// Request is a request to be sized. Body is a JSON object that internal/jsonscan has found valid; on anything else the size means nothing.
// Where parsers read a body differently (keys that repeat, or in another case) the numbers are of the reading with more tokens.
type Request struct {
	Operation Operation
	Model     string
	Body      []byte
}

// Count returns the size with all texts counted, at some 60 MB/s; not less than 10 MB/s, whatever they are. See the package documentation for what is exact.
func (r Request) Count() Size { return r.size(true) }

// Bound returns the size with a token for each byte: Input and Most are the same. It is some 10 times faster than [Request.Count].
func (r Request) Bound() Size {
	s := r.size(false)
	s.Input, s.Grade = s.Most, Bounded
	return s
}
