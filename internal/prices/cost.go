// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"errors"
	"math"
	"math/bits"
)

// Usage is the tokens of a request and its answer. Parts are included in the whole, as OpenTelemetry counts them.
type Usage struct {
	Input       int64
	CachedInput int64 // of Input
	CacheWrite  int64 // of Input
	AudioInput  int64 // of Input
	ImageInput  int64 // of Input
	Output      int64
	Reasoning   int64 // of Output
	AudioOutput int64 // of Output
	ImageOutput int64 // of Output
}

// ErrNegative is for counts and rates that are.
var ErrNegative = errors.New("prices: a negative number")

func (u *Usage) negative() bool {
	return u.Input|u.CachedInput|u.CacheWrite|u.AudioInput|u.ImageInput|u.Output|u.Reasoning|u.AudioOutput|u.ImageOutput < 0
}

// Cost returns what tokens cost in nano-dollars, rounded up, and math.MaxInt64 if that is more than there are numbers for. Parts that are together more
// than the whole are cut to it, beginning with those that are read last here: images, audio, written, cached.
// The only error is [ErrNegative].
func (p *Price) Cost(u Usage, s Service) (int64, error) {
	rates := p.Service(s).of(u.Input)
	if u.negative() || rates.negative() {
		return 0, ErrNegative
	}
	var sum total
	input := whole(u.Input)
	sum.add(input.take(u.ImageInput), rates.ImageInput)
	sum.add(input.take(u.AudioInput), rates.AudioInput)
	sum.add(input.take(u.CacheWrite), rates.CacheWrite)
	sum.add(input.take(u.CachedInput), rates.CachedInput)
	sum.add(int64(input), rates.Input)
	output := whole(u.Output)
	sum.add(output.take(u.ImageOutput), rates.ImageOutput)
	sum.add(output.take(u.AudioOutput), rates.AudioOutput)
	sum.add(output.take(u.Reasoning), rates.Reasoning)
	sum.add(int64(output), rates.Output)
	return sum.cost(), nil
}

// Most returns what tokens cost at most, if u is the most that there will be: input may turn out to be written to a cache and output to be reasoning, and the
// input may end up in a lower tier. AudioInput and the like are the tokens that may be audio. It is meant for reservations; errors are those of [Price.Cost].
func (p *Price) Most(u Usage, s Service) (int64, error) {
	schedule := p.Service(s)
	if u.negative() {
		return 0, ErrNegative
	}
	most := schedule.Rates
	for i := range schedule.Tiers {
		if t := &schedule.Tiers[i]; u.Input > t.Above {
			most = highest(&most, &t.Rates)
		}
	}
	if most.negative() {
		return 0, ErrNegative
	}
	var sum total
	input, output := whole(u.Input), whole(u.Output)
	text := max(most.Input, most.CacheWrite, most.CachedInput)
	sum.add(input.take(u.ImageInput), max(text, most.ImageInput))
	sum.add(input.take(u.AudioInput), max(text, most.AudioInput))
	sum.add(int64(input), text)
	text = max(most.Output, most.Reasoning)
	sum.add(output.take(u.ImageOutput), max(text, most.ImageOutput))
	sum.add(output.take(u.AudioOutput), max(text, most.AudioOutput))
	sum.add(int64(output), text)
	return sum.cost(), nil
}

func (r *Rates) negative() bool {
	for _, rate := range r.each() {
		if *rate < 0 {
			return true
		}
	}
	return false
}

// highest returns the higher of each rate.
func highest(a, b *Rates) Rates {
	return Rates{
		Input: max(a.Input, b.Input), CachedInput: max(a.CachedInput, b.CachedInput), CacheWrite: max(a.CacheWrite, b.CacheWrite),
		Output: max(a.Output, b.Output), Reasoning: max(a.Reasoning, b.Reasoning),
		AudioInput: max(a.AudioInput, b.AudioInput), AudioOutput: max(a.AudioOutput, b.AudioOutput),
		ImageInput: max(a.ImageInput, b.ImageInput), ImageOutput: max(a.ImageOutput, b.ImageOutput),
	}
}

// whole is what is left of a number of tokens when parts are taken from it.
type whole int64

func (w *whole) take(part int64) int64 {
	part = min(part, int64(*w))
	*w -= whole(part)
	return part
}

// perMillion is the number of tokens that a rate is for.
const perMillion = 1_000_000

// total is a sum of tokens times rates, in 128 bits: nano-dollars for a million tokens each.
type total struct {
	high, low uint64
	over      bool // it is more than that
}

// add adds a product of two numbers that are not negative.
func (t *total) add(tokens, rate int64) {
	high, low := bits.Mul64(uint64(tokens), uint64(rate)) //nolint:gosec // not negative
	var carry uint64
	t.low, carry = bits.Add64(t.low, low, 0)
	t.high, carry = bits.Add64(t.high, high, carry)
	t.over = t.over || carry != 0
}

// cost returns the nano-dollars, rounded up.
func (t *total) cost() int64 {
	low, carry := bits.Add64(t.low, perMillion-1, 0)
	high, carry := bits.Add64(t.high, 0, carry)
	if t.over || carry != 0 || high >= perMillion {
		return math.MaxInt64
	}
	nanos, _ := bits.Div64(high, low, perMillion)
	return int64(min(nanos, math.MaxInt64)) //nolint:gosec // it is bounded
}
