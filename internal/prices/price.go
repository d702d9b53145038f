// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"errors"
	"fmt"
)

// MaxRate is the highest rate: a dollar a token. What is above is a mistake.
const MaxRate = 1_000_000_000 * 1_000_000

// Rates are nano-dollars for a million tokens of each kind. Zero is free.
type Rates struct {
	Input       int64
	CachedInput int64 // read from the provider's cache
	CacheWrite  int64 // input that is put into it
	Output      int64
	Reasoning   int64
	AudioInput  int64
	AudioOutput int64
	ImageInput  int64
	ImageOutput int64
}

// each returns the rates in the order of [Quote.Each].
func (r *Rates) each() [kinds]*int64 {
	return [...]*int64{&r.Input, &r.CachedInput, &r.CacheWrite, &r.Output, &r.Reasoning, &r.AudioInput, &r.AudioOutput, &r.ImageInput, &r.ImageOutput}
}

func (r *Rates) validate() error {
	for _, rate := range r.each() {
		if err := checkRate(*rate); err != nil {
			return err
		}
	}
	return nil
}

func checkRate(rate int64) error {
	if rate < 0 || rate > MaxRate {
		return fmt.Errorf("a rate of %d nano-dollars per million tokens: it must be from 0 to %d", rate, int64(MaxRate))
	}
	return nil
}

// Tier is the rates of requests with more than Above tokens of input.
type Tier struct {
	Above int64
	Rates
}

// Schedule is the rates of a model for one service.
type Schedule struct {
	Rates
	Tiers []Tier // by Above, the lowest first
}

// of returns the rates for a request of that much input.
func (s *Schedule) of(input int64) *Rates {
	rates := &s.Rates
	for i := range s.Tiers {
		if input > s.Tiers[i].Above {
			rates = &s.Tiers[i].Rates
		}
	}
	return rates
}

func (s *Schedule) validate() error {
	if err := s.Rates.validate(); err != nil {
		return err
	}
	last := int64(0)
	for _, t := range s.Tiers {
		if t.Above <= last {
			return fmt.Errorf("a tier above %d tokens behind one above %d: limits must rise", t.Above, last)
		}
		last = t.Above
		if err := t.validate(); err != nil {
			return err
		}
	}
	return nil
}

// Service is how a request is to be processed: service_tier in OpenAI's API.
type Service uint8

// Services. All others, such as auto, are Standard.
const (
	Standard Service = iota
	Flex             // cheaper and later
	Priority         // dearer and sooner
)

// Price is what the tokens of a model cost. It must not be changed once it is in a [Table].
type Price struct {
	Model    string
	Version  string // of the list that the price is from; it says by what a row was priced
	Schedule        // of standard processing
	Flex     *Schedule
	Priority *Schedule

	// What the model takes and makes at most, in tokens; zero if the list does not say.
	MaxInput  int64
	MaxOutput int64
}

// Service returns the schedule of a service: the standard one where the model has no other.
func (p *Price) Service(s Service) *Schedule {
	switch {
	case s == Flex && p.Flex != nil:
		return p.Flex
	case s == Priority && p.Priority != nil:
		return p.Priority
	}
	return &p.Schedule
}

func (p *Price) validate() error {
	if p.MaxInput < 0 || p.MaxOutput < 0 {
		return errors.New("a negative limit of tokens")
	}
	for _, s := range []*Schedule{&p.Schedule, p.Flex, p.Priority} {
		if s == nil {
			continue
		}
		if err := s.validate(); err != nil {
			return err
		}
	}
	return nil
}

// Rows returns the price as rows in which nothing is missing: the standard price, its tiers, then those of other services.
func (p *Price) Rows() []Row {
	var rows []Row
	add := func(service string, above int64, r *Rates) {
		rows = append(rows, Row{Model: p.Model, Quote: r.quote(service, above)})
	}
	for _, s := range []struct {
		name string
		*Schedule
	}{{"", &p.Schedule}, {"flex", p.Flex}, {"priority", p.Priority}} {
		if s.Schedule == nil {
			continue
		}
		add(s.name, 0, &s.Rates)
		for i := range s.Tiers {
			add(s.name, s.Tiers[i].Above, &s.Tiers[i].Rates)
		}
	}
	rows[0].MaxInput, rows[0].MaxOutput = p.MaxInput, p.MaxOutput
	return rows
}
