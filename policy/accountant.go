// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"time"

	"github.com/google/uuid"
)

// Estimate is what a request may use, as far as that is known before it is sent. The zero value claims nothing.
type Estimate struct {
	Input  int64 // tokens, most probably
	Most   int64 // tokens of input at most; never below Input
	Output int64 // tokens of output at most, of all answers together: as the request limits it, else as the model does
	Asked  int64 // Output if the request limits it; zero if it does not, and most answers are shorter
	Cost   int64 // nano-dollars at most
	Price  int64 // the version of the prices that Cost rests on; zero: no price is known
}

// Demand is an exchange that is about to be admitted, as an [Accountant] is shown it. It must not be changed, nor kept.
//
// Estimate is quick and generous: it takes each byte of text for a token. Where that is refused, [Demand.Exact] may not be; it takes a millisecond for 60 KB of text.
//
//	if !b.fits(d.Estimate.Cost) && !b.fits(d.Exact().Cost) {
//		return nil, exhausted()
//	}
type Demand struct {
	Exchange uuid.UUID
	Time     time.Time // of admission
	Tenant   *Tenant
	Key      *Key
	Model    string   // as authorised, after any policy had its say
	Estimate Estimate // an upper bound; from the first Exact on what that returned

	exact    func(*Question) Estimate // nil: there is nothing more exact, or Estimate is it
	question *Question
	charges  Charges // noted by an accountant
}

// Exact counts what can be counted, and returns an estimate that is no higher than Estimate was, nor lower than what the exchange may use. Estimate is the same from
// then on, also for the accountants that come after.
func (d *Demand) Exact() Estimate {
	if d.exact != nil {
		d.Estimate, d.exact = d.exact(d.question), nil
	}
	return d.Estimate
}

// Accountant holds exchanges to what their key may use: budgets, rates, concurrency. It is called for each billed request, by many goroutines
// at once. It asks nobody; it may wait a moment for what others have asked for, as for the first lease of a budget. What it has taken for an exchange it gives back when it hears of the exchange's end, by ways of its own.
type Accountant interface {
	// Reserve takes what an exchange may use from all that applies to it, or refuses and takes nothing. The headers, which may be nil, are for the
	// client, with the answer.
	Reserve(d *Demand) ([]Header, *Denial)

	// Cancel gives back what Reserve took for an exchange that was refused after all. It is called at most once for each Reserve that did
	// not refuse, before Envoy has heard of an admission.
	Cancel(exchange uuid.UUID)
}

// reserve sizes a request and asks the accountants in order. If one refuses, those before it get their part back. It returns the estimate that they went by, and
// what they tell the client.
func (x *Exchange) reserve(g *grant, req *request, body []byte, choices []Choice) (Estimate, []Header, *Denial) {
	e := x.engine
	if e.estimate == nil && len(e.accountants) == 0 {
		return Estimate{}, nil, nil
	}
	both := &struct { // one allocation
		Question
		Demand
	}{
		x.question(g, req, body),
		Demand{Exchange: x.ID, Time: e.clock(), Tenant: &g.tenant, Key: &g.key, Model: req.model, exact: e.exact},
	}
	q, d := &both.Question, &both.Demand
	q.Choices, d.question = choices, q
	if e.estimate != nil {
		var denial *Denial
		if d.Estimate, denial = e.estimate(q); denial != nil {
			return Estimate{}, nil, denial
		}
	}
	var inform []Header
	for i, a := range e.accountants {
		headers, denial := a.Reserve(d)
		if denial != nil {
			for _, before := range e.accountants[:i] {
				before.Cancel(x.ID)
			}
			return Estimate{}, nil, denial
		}
		inform = append(inform, headers...)
	}
	x.charges = d.charges
	return d.Estimate, inform, nil
}

// Cancel gives back what was reserved for an exchange that was admitted and of which Envoy will not hear. Envoy must not have been told.
func (e *Engine) Cancel(exchange uuid.UUID) {
	for _, a := range e.accountants {
		a.Cancel(exchange)
	}
}
