// SPDX-License-Identifier: Apache-2.0

package usage

import "github.com/weir-proxy/weir/policy"

// Until an [Estimator] has learned better, a token is this many bytes. English text has some 4 to a token, other languages fewer; the
// JSON around it is counted as text. A streamed token comes in an event of its own of 200 to 350 bytes. All lean to too many tokens.
const (
	defaultInputBytes  = 4.0
	defaultOutputBytes = 4.0
	defaultStreamBytes = 200.0
)

const (
	// maxEstimate bounds an estimate: the largest context windows are about that. A picture in a body is megabytes, but few tokens.
	maxEstimate = 1 << 20
	// learnFrom is the number of tokens below which a record says more of the frame around the text than of the text.
	learnFrom = 8
	// learnRate is the weight of a new record in the moving average: the last 20 or so matter.
	learnRate = 0.1
	// maxLearned bounds the memory of an Estimator to about 1 MB.
	maxLearned = 8192
)

// Estimator guesses token counts from byte counts, for answers whose provider gave none. It learns bytes per token from exact records,
// for each model, operation and way of answering apart; the averages are lost at a restart. It has one owner and no lock.
type Estimator struct {
	learned map[estimateKey]bytesPerToken
}

type estimateKey struct {
	model     string
	operation policy.Operation
	stream    bool
}

// bytesPerToken are moving averages; zero is not known.
type bytesPerToken struct{ input, output float64 }

// NewEstimator returns an Estimator that has learned nothing.
func NewEstimator() *Estimator {
	return &Estimator{learned: make(map[estimateKey]bytesPerToken)}
}

func keyOf(r *Record) estimateKey {
	return estimateKey{model: r.Model, operation: r.Operation, stream: r.Stream}
}

// Learn takes an exact record into the averages. Records that are not exact, or not of an answer that reached its end, teach nothing.
func (e *Estimator) Learn(r *Record) {
	if r.Estimated || r.Status != StatusOK {
		return
	}
	key := keyOf(r)
	ratio, known := e.learned[key]
	if !known && len(e.learned) >= maxLearned {
		for old := range e.learned { // any one
			delete(e.learned, old)
			break
		}
	}
	ratio.input = average(ratio.input, r.RequestBytes, r.Input)
	ratio.output = average(ratio.output, r.ResponseBytes, r.Output)
	e.learned[key] = ratio
}

func average(old float64, bytes, tokens int64) float64 {
	if tokens < learnFrom || bytes <= 0 {
		return old
	}
	ratio := max(float64(bytes)/float64(tokens), 0.5)
	if old == 0 {
		return ratio
	}
	return old + learnRate*(ratio-old)
}

// Input returns how many tokens the request of r probably had.
func (e *Estimator) Input(r *Record) int64 {
	ratio := e.learned[keyOf(r)].input
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
	ratio := e.learned[keyOf(r)].output
	switch {
	case ratio != 0:
	case r.Stream:
		ratio = defaultStreamBytes
	default:
		ratio = defaultOutputBytes
	}
	return estimate(r.ResponseBytes, ratio)
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
