// SPDX-License-Identifier: Apache-2.0

package costs

import (
	"math"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/tokens"
	"github.com/weir-proxy/weir/policy"
)

// What is assumed of a model where its price says nothing: more than any model has today.
const (
	// AssumedInput is how many tokens a model takes.
	AssumedInput = 2 << 20
	// AssumedOutput is how many tokens an answer has at most.
	AssumedOutput = 256 << 10
)

// bytesPerToken is about what English has, and JSON around it.
const bytesPerToken = 4

// Estimate sizes a request in some microseconds: at most it has a token for each byte of its text, and probably one for four. It is meant for [policy.Options]. Cost is an upper bound of what the provider
// will bill for tokens: of the prices of all channels that may take the request it is the highest. Tools that run at the provider, such as a search, are no tokens, and
// are not in it.
func (b *Book) Estimate(q *policy.Question) (policy.Estimate, *policy.Denial) {
	size := request(q).Bound()
	size.Input = min(size.Most, int64(len(q.Body))/bytesPerToken+size.Images+size.Audio)
	e := b.estimate(q, &size)
	if e.Price == 0 && b.o.Refuse {
		return policy.Estimate{}, policy.PriceUnknown(q.Model)
	}
	return e, nil
}

// Exact counts the tokens, at some 60 MB of text a second. It is meant for [policy.Options].
func (b *Book) Exact(q *policy.Question) policy.Estimate {
	size := request(q).Count()
	if bound := request(q).Bound(); bound.Most < size.Most {
		size.Most = bound.Most
		size.Input = min(size.Input, bound.Most)
	}
	return b.estimate(q, &size)
}

func request(q *policy.Question) tokens.Request {
	return tokens.Request{Operation: operation(q.Operation), Model: q.Model, Body: q.Body}
}

// operation returns what internal/tokens calls an operation.
func operation(op policy.Operation) tokens.Operation {
	switch op {
	case policy.OpCompletions:
		return tokens.Completions
	case policy.OpEmbeddings:
		return tokens.Embeddings
	case policy.OpResponses:
		return tokens.Responses
	default:
		return tokens.Chat
	}
}

// service returns what internal/prices calls a service.
func service(s policy.Service) prices.Service {
	switch s {
	case policy.Flex:
		return prices.Flex
	case policy.Priority:
		return prices.Priority
	default:
		return prices.Standard
	}
}

// estimate makes an estimate of a size. Its Price is zero, and its Cost means nothing, if the price of some channel is not known.
func (b *Book) estimate(q *policy.Question, size *tokens.Size) policy.Estimate {
	e := policy.Estimate{Input: size.Input}
	v := b.current.Load()
	known := v != nil
	var last *prices.Price
	for i := range max(len(q.Choices), 1) {
		upstream := ""
		if i < len(q.Choices) {
			upstream = q.Choices[i].Upstream
		}
		var p *prices.Price
		if v != nil {
			p = v.table.Find(q.Model, upstream)
		}
		if i > 0 && p == last { // as most are
			continue
		}
		last = p
		bound(&e, size, p, service(q.Service))
		known = known && p != nil
	}
	if !known {
		e.Cost = 0
		return e
	}
	e.Price = v.id
	return e
}

// bound raises an estimate to what a request may use at a price, which is nil if none is known.
func bound(e *policy.Estimate, size *tokens.Size, p *prices.Price, s prices.Service) {
	maxInput, maxOutput := int64(AssumedInput), int64(AssumedOutput)
	if p != nil && p.MaxInput > 0 {
		maxInput = p.MaxInput
	}
	if p != nil && p.MaxOutput > 0 {
		maxOutput = p.MaxOutput
	}
	most, output := size.Most, size.MostOutput(maxOutput)
	if size.Open {
		most = max(most, maxInput)
	}
	if size.Output != tokens.NoLimit { // the provider may know of a higher limit than the list does
		output = size.MostOutput(size.Output)
		e.Asked = output
	}
	e.Most, e.Output = max(e.Most, most), max(e.Output, output)
	if p == nil {
		return
	}
	u := prices.Usage{Input: most, AudioInput: size.Audio, ImageInput: size.Images, Output: output}
	if size.Speaks {
		u.AudioOutput = output
	}
	cost, err := p.Most(u, s)
	if err != nil { // a negative number, of which there is none
		cost = math.MaxInt64
	}
	e.Cost = max(e.Cost, cost)
}
