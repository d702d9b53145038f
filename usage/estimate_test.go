// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"testing"

	"github.com/weir-proxy/weir/policy"
)

func exact(model string, request, input, response, output int64) *Record {
	return &Record{
		Model: model, Operation: policy.OpChat, Status: StatusOK, RequestBytes: request, ResponseBytes: response,
		Tokens: Tokens{Input: input, Output: output},
	}
}

func TestEstimatorLearnsBytesPerTokenOfEachModel(t *testing.T) {
	e := NewEstimator()
	for range 100 {
		e.Learn(exact("dense", 1000, 500, 3000, 1000))
		e.Learn(exact("sparse", 1000, 100, 3000, 300))
	}
	for model, want := range map[string][2]int64{"dense": {50, 100}, "sparse": {10, 30}, "unknown": {25, 75}} {
		r := exact(model, 100, 0, 300, 0)
		if got := [2]int64{e.Input(r), e.Output(r)}; got != want {
			t.Errorf("%s: got %v, want %v", model, got, want)
		}
	}
}

func TestEstimatorFollowsAChange(t *testing.T) {
	e := NewEstimator()
	e.Learn(exact("m", 1000, 500, 1000, 500))
	for range 100 {
		e.Learn(exact("m", 1000, 100, 1000, 100))
	}
	if got := e.Input(exact("m", 1000, 0, 0, 0)); got < 100 || got > 101 {
		t.Errorf("got %d, want 100 or, with what is left of the past, 101", got)
	}
}

func TestEstimatorLearnsNothingFromDoubtfulRecords(t *testing.T) {
	e := NewEstimator()
	estimated := exact("m", 1000, 10, 1000, 10)
	estimated.Estimated = true
	e.Learn(estimated)
	cut := exact("m", 1000, 10, 1000, 10)
	cut.Status = StatusUpstreamError
	e.Learn(cut)
	e.Learn(exact("m", 1000, 1, 1000, 1)) // too short
	r := exact("m", 400, 0, 400, 0)
	if got, want := [2]int64{e.Input(r), e.Output(r)}, [2]int64{100, 100}; got != want {
		t.Errorf("got %v, want the defaults %v", got, want)
	}
}

// TestNobodyTeachesWhatOthersPay: an answer with logprobs has kilobytes for each token, one of a model that reasons for long next to none.
func TestNobodyTeachesWhatOthersPay(t *testing.T) {
	for name, c := range map[string]struct {
		bytes       int64 // of 1000 tokens
		least, most int64 // tokens of a stream of 200 kB
	}{
		"logprobs":  {3_000_000, 250, 1000},
		"reasoning": {500, 1000, 8000},
	} {
		e := NewEstimator()
		for range 100 {
			r := exact("m", 4000, 1000, c.bytes, 1000)
			r.Stream = true
			e.Learn(r)
		}
		r := exact("m", 0, 0, 200_000, 0)
		r.Stream = true
		if got := e.Output(r); got < c.least || got > c.most {
			t.Errorf("%s: %d tokens, want %d to %d", name, got, c.least, c.most)
		}
	}
	e := NewEstimator()
	for range 100 {
		e.Learn(exact("m", 30_000_000, 10, 4000, 1000)) // padded
	}
	if got := e.Input(exact("m", 400_000, 0, 0, 0)); got < 97 {
		t.Errorf("padding: %d tokens", got)
	}
}

func TestEstimatesAreBounded(t *testing.T) {
	e := NewEstimator()
	if got := e.Input(exact("m", 1<<62, 0, 0, 0)); got != maxEstimate {
		t.Errorf("got %d, want %d", got, maxEstimate)
	}
	if got := e.Output(exact("m", 0, 0, 0, 0)); got != 0 {
		t.Errorf("got %d for nothing, want 0", got)
	}
	embeddings := exact("m", 400, 0, 100_000, 0)
	embeddings.Operation = policy.OpEmbeddings
	if got := e.Output(embeddings); got != 0 {
		t.Errorf("got %d output tokens of embeddings, want 0", got)
	}
}

func TestEstimatorsMemoryIsBounded(t *testing.T) {
	e := NewEstimator()
	for i := range maxLearned + 100 {
		e.Learn(exact(fmt.Sprint(i), 1000, 100, 1000, 100))
	}
	if got := len(e.learned); got != maxLearned {
		t.Errorf("got %d averages, want %d", got, maxLearned)
	}
}
