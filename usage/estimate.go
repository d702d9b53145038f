// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"sync"

	"github.com/weir-proxy/weir/policy"
)

// Until an [Estimator] has learned better, a token is this many bytes. English text has some 4 to a token, other languages fewer; the
// JSON around it is counted as text. A streamed token comes in an event of its own of 200 to 350 bytes. All lean to too many tokens.
const (
	defaultInputBytes  = 4.0
	defaultOutputBytes = 4.0
	defaultStreamBytes = 200.0
)

// defaultOutput is how many tokens an answer of which nothing is known is taken to have, until an [Estimator] has seen answers of the same
// model and operation. Answers of chat models have some 200 to 400 tokens on average.
const defaultOutput = 500

const (
	// maxEstimate bounds an estimate: the largest context windows are about that. A picture in a body is megabytes, but few tokens.
	maxEstimate = 1 << 20
	// learnFrom is the number of tokens below which a record says more of the frame around the text than of the text.
	learnFrom = 8
	// learnRate is the weight of a new record in the moving average: the last 20 or so matter.
	learnRate = 0.1
	// maxLearned bounds the memory of an Estimator to about 1.5 MB.
	maxLearned = 8192
)

// Estimator guesses token counts from byte counts, for answers whose provider gave none. It learns bytes per token from exact records,
// for each model, operation and way of answering apart; the averages are lost at a restart. It may be used by many goroutines at once.
type Estimator struct {
	mu      sync.Mutex
	learned map[estimateKey]*averages
	last    estimateKey // the one that was learned of last
	recent  *averages   // its averages; nil: there is none
}

type estimateKey struct {
	model     string
	operation policy.Operation
	stream    bool
}

// averages are moving ones; zero is not known.
type averages struct {
	input, output float64 // bytes per token
	tokens        float64 // of the output, plus one: an answer may have none
}

// NewEstimator returns an Estimator that has learned nothing.
func NewEstimator() *Estimator {
	return &Estimator{learned: make(map[estimateKey]*averages)}
}

func keyOf(r *Record) estimateKey {
	return estimateKey{model: r.Model, operation: r.Operation, stream: r.Stream}
}

// Learn takes an exact record into the averages. Records that are not exact, or not of an answer that reached its end, teach nothing.
func (e *Estimator) Learn(r *Record) {
	if r.Estimated || r.Status != StatusOK {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ratio := e.learningLocked(keyOf(r))
	ratio.input = average(ratio.input, r.RequestBytes, r.Input, within{least: leastBytes, most: mostInputBytes})
	output := within{least: leastBytes, most: mostOutputBytes}
	if r.Stream {
		output = within{least: defaultStreamBytes / 8, most: 4 * defaultStreamBytes}
	}
	ratio.output = average(ratio.output, r.ResponseBytes, r.Output, output)
	ratio.tokens = moved(ratio.tokens, float64(min(r.Output, maxEstimate)+1))
}

// learningLocked returns the averages of a key, which are there from then on. Records of one key often come one behind the other.
func (e *Estimator) learningLocked(key estimateKey) *averages {
	if e.recent != nil && e.last == key {
		return e.recent
	}
	ratio := e.learned[key]
	if ratio == nil {
		if len(e.learned) >= maxLearned {
			for old := range e.learned { // any one
				delete(e.learned, old)
				break
			}
		}
		ratio = new(averages)
		e.learned[key] = ratio
	}
	e.last, e.recent = key, ratio
	return ratio
}

// within bounds what one record can teach. One client's exchanges teach what another's are billed for, so that nobody must be able to make tokens as cheap or as dear as he
// likes: by padding, by logprobs, by long reasoning before a short answer.
type within struct{ least, most float64 }

const (
	leastBytes      = 0.5
	mostInputBytes  = 4096 // of requests that are pictures
	mostOutputBytes = 32   // of short answers in one piece, which are frame mostly
)

func average(old float64, bytes, tokens int64, w within) float64 {
	if tokens < learnFrom || bytes <= 0 {
		return old
	}
	return moved(old, min(max(float64(bytes)/float64(tokens), w.least), w.most))
}

// moved is an average that has taken in another value.
func moved(old, value float64) float64 {
	if old == 0 {
		return value
	}
	return old + learnRate*(value-old)
}

// of returns the averages for exchanges like that of r.
func (e *Estimator) of(r *Record) averages {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.learned[keyOf(r)]; known != nil {
		return *known
	}
	return averages{}
}

// Input returns how many tokens the request of r probably had.
func (e *Estimator) Input(r *Record) int64 {
	ratio := e.of(r).input
	if ratio == 0 {
		ratio = defaultInputBytes
	}
	return estimate(r.RequestBytes, ratio)
}

// Output returns how many tokens the answer of r probably has. Embeddings have none.
func (e *Estimator) Output(r *Record) int64 {
	if r.Operation == policy.OpEmbeddings {
		return 0
	}
	ratio := e.of(r).output
	switch {
	case ratio != 0:
	case r.Stream:
		ratio = defaultStreamBytes
	default:
		ratio = defaultOutputBytes
	}
	return estimate(r.ResponseBytes, ratio)
}

// MeanOutput returns how many tokens an answer to the request of r has on average, for an exchange of whose answer nothing is known: as the
// answers of its model and operation had, else 500. Embeddings have none.
func (e *Estimator) MeanOutput(r *Record) int64 {
	if r.Operation == policy.OpEmbeddings {
		return 0
	}
	like := *r
	for range 2 {
		if mean := e.of(&like).tokens; mean != 0 {
			return estimate(int64(mean), 1) - 1
		}
		like.Stream = !like.Stream // the answer is the same, but for its form
	}
	return defaultOutput
}

// estimate rounds up: whatever has a byte has a token.
func estimate(bytes int64, ratio float64) int64 {
	if bytes <= 0 {
		return 0
	}
	tokens := float64(bytes) / ratio
	if tokens >= maxEstimate {
		return maxEstimate
	}
	n := int64(tokens)
	if float64(n) < tokens {
		n++
	}
	return n
}
