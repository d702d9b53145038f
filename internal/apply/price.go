// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
	money "github.com/weir-proxy/weir/policy/budget"
)

// price is a price of the deployment's own, whole.
type price struct {
	Model     string `yaml:"model"` // or a pattern: vllm/*
	MaxInput  int64  `yaml:"max_input"`
	MaxOutput int64  `yaml:"max_output"`
	Rates     []rate `yaml:"rates"`

	rates []admin.PriceRates
}

// rate is in dollars for a million tokens; what is left out costs as much as the input or the output that it is a part of.
type rate struct {
	Service     string `yaml:"service"` // none, flex or priority
	Above       int64  `yaml:"above"`
	Input       string `yaml:"input"`
	CachedInput string `yaml:"cached_input"`
	CacheWrite  string `yaml:"cache_write"`
	Output      string `yaml:"output"`
	Reasoning   string `yaml:"reasoning"`
	AudioInput  string `yaml:"audio_input"`
	AudioOutput string `yaml:"audio_output"`
	ImageInput  string `yaml:"image_input"`
	ImageOutput string `yaml:"image_output"`
}

// Ident implements [Thing].
func (p *price) Ident() string { return p.Model }

// Resolve implements [Thing].
func (p *price) Resolve(Environment) error {
	if len(p.Rates) == 0 {
		return errors.New("it needs rates, as in [{input: 2.5, output: 10}]")
	}
	for _, r := range p.Rates {
		out := admin.PriceRates{Service: r.Service, Above: r.Above}
		texts := []string{r.Input, r.CachedInput, r.CacheWrite, r.Output, r.Reasoning, r.AudioInput, r.AudioOutput, r.ImageInput, r.ImageOutput}
		for i, rate := range out.Each() {
			if texts[i] == "" {
				continue
			}
			n, err := money.ParseUSD(texts[i])
			if err != nil {
				return fmt.Errorf("%s: %w", rate.Name, err)
			}
			*rate.At = &n
		}
		p.rates = append(p.rates, out)
	}
	p.fill()
	n := p.wanted()
	return n.Check(p.Model)
}

func (p *price) wanted() admin.NewPrice {
	return admin.NewPrice{MaxInput: p.MaxInput, MaxOutput: p.MaxOutput, Rates: p.rates}
}

// fill writes what was left out as the API says it: what stands for requests of any size, else the rate of the input or output that it is a part of.
func (p *price) fill() {
	said := slices.Clone(p.rates) // the amounts in it do not change
	for i := range p.rates {
		r := &p.rates[i]
		base := slices.IndexFunc(said, func(b admin.PriceRates) bool { return b.Service == r.Service && b.Above == 0 })
		wholes := r.Each()
		for j, n := range wholes {
			if *n.At == nil && base >= 0 {
				*n.At = *said[base].Each()[j].At
			}
			if *n.At == nil {
				*n.At = *wholes[partOf[j]].At
			}
		}
	}
}

// partOf says what each rate is a part of: the input, or the output.
var partOf = [...]int{0, 0, 0, 3, 3, 0, 3, 0, 3}

// Fields implements [Thing].
func (p *price) Fields() []Field {
	var rows []string
	for i := range p.rates {
		r := &p.rates[i]
		var row []string
		if r.Service != "" {
			row = append(row, r.Service)
		}
		if r.Above > 0 {
			row = append(row, "above "+strconv.FormatInt(r.Above, 10))
		}
		for _, n := range r.Each() {
			if *n.At != nil {
				row = append(row, n.Name+" "+money.FormatUSD(**n.At))
			}
		}
		rows = append(rows, strings.Join(row, " "))
	}
	return []Field{{"max_input", tokens(p.MaxInput)}, {"max_output", tokens(p.MaxOutput)}, {"rates", strings.Join(rows, "; ")}}
}

// tokens writes a number of which zero says that it is not known.
func tokens(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// Put implements [Thing].
func (p *price) Put(ctx context.Context, c *admin.Client, _ *Existing) error {
	_, err := c.SetPrice(ctx, p.Model, p.wanted())
	return err
}

func listPrices(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Prices(ctx, "", true)
	var out []Existing
	for _, is := range all {
		as := price{Model: is.Model, MaxInput: is.MaxInput, MaxOutput: is.MaxOutput, rates: is.Rates}
		out = append(out, Existing{
			Ident: is.Model, Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return c.DeletePrice(ctx, is.Model) },
		})
	}
	return out, err
}
