// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The columns of prices.tsv. A model has a row for standard processing, then its tiers, and the same for other services.
const (
	columnModel = iota
	columnService
	columnAbove
	columnMaxInput
	columnMaxOutput
	columnRates // in the order of [Quote.Each]
	columns     = columnRates + kinds
)

// Parse reads a list in the format of prices.tsv: lines of # and a name and a value, then a header, then rows.
func Parse(text string) (*Table, error) {
	t := &Table{listed: make(map[string]*Price)}
	var lowest Rates // as they stand in the last row that is not a tier
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if head, ok := strings.CutPrefix(line, "# "); ok {
			name, value, _ := strings.Cut(head, ": ")
			switch name {
			case "version":
				t.version = value
			case "source":
				t.source = value
			case "date":
				t.date = value
			}
			continue
		}
		if strings.HasPrefix(line, "model\t") {
			continue
		}
		r, err := parseRow(strings.Split(line, "\t"))
		if err == nil {
			err = t.row(&r, &lowest)
		}
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", line, err)
		}
	}
	if t.version == "" || t.date == "" || t.source == "" {
		return nil, errors.New("no version, date or source")
	}
	for model, p := range t.listed {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("price of %q: %w", model, err)
		}
	}
	return t, nil
}

// parseRow reads the cells of a line.
func parseRow(cells []string) (Row, error) {
	if len(cells) != columns {
		return Row{}, errors.New("the number of columns is wrong")
	}
	var numbers [columns]int64
	for i := columnAbove; i < columns; i++ {
		if cells[i] == "" {
			continue
		}
		var err error
		if numbers[i], err = strconv.ParseInt(cells[i], 10, 64); err != nil {
			return Row{}, err
		}
		if numbers[i] < 0 {
			return Row{}, ErrNegative
		}
	}
	r := Row{Model: cells[columnModel], MaxInput: numbers[columnMaxInput], MaxOutput: numbers[columnMaxOutput]}
	r.Service, r.Above = cells[columnService], numbers[columnAbove]
	for i, rate := range r.Each() {
		if at := columnRates + i; cells[at] != "" {
			*rate.At = &numbers[at]
		}
	}
	return r, nil
}

// FromRows returns the prices that rows make, by model. The rows of a model stand together, the standard price first, tiers behind what they are tiers of.
// Each has a rate of input and one of output.
func FromRows(rows []Row) (map[string]Price, error) {
	t := &Table{listed: make(map[string]*Price)}
	var lowest Rates
	for i := range rows {
		err := rows[i].own()
		if err == nil {
			err = t.row(&rows[i], &lowest)
		}
		if err != nil {
			return nil, fmt.Errorf("price of %q: %w", rows[i].Model, err)
		}
	}
	out := make(map[string]Price, len(t.listed))
	for model, p := range t.listed {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("price of %q: %w", model, err)
		}
		out[model] = *p
	}
	return out, nil
}

// own returns why a row cannot be a price of somebody's own. What they leave out of a list is free only if they say so.
func (r *Row) own() error {
	if r.Input == nil || r.Output == nil {
		return errors.New("input and output must be given; what is free has a rate of 0")
	}
	for _, rate := range r.Each() {
		if *rate.At == nil {
			continue
		}
		if err := checkRate(**rate.At); err != nil {
			return fmt.Errorf("%s: %w", rate.Name, err)
		}
	}
	return nil
}

// row takes one row into the table. lowest is that of the tiers, and is kept between rows.
func (t *Table) row(r *Row, lowest *Rates) error {
	rates := r.given()
	p := t.listed[r.Model]
	if p == nil {
		if r.Service != "" || r.Above > 0 {
			return errors.New("a model must begin with its standard price")
		}
		p = &Price{Model: r.Model, Version: t.version, MaxInput: r.MaxInput, MaxOutput: r.MaxOutput}
		t.listed[p.Model] = p
	}
	s, err := p.serviceNamed(r.Service)
	if err != nil {
		return err
	}
	if above := r.Above; above > 0 {
		rates.inherit(lowest)
		s.Tiers = append(s.Tiers, Tier{Above: above, Rates: rates})
		return nil
	}
	*lowest = rates
	rates.inherit(lowest)
	s.Rates = rates
	return nil
}

// serviceNamed returns a schedule to be filled.
func (p *Price) serviceNamed(name string) (*Schedule, error) {
	at := map[string]**Schedule{"flex": &p.Flex, "priority": &p.Priority}[name]
	switch {
	case name == "":
		return &p.Schedule, nil
	case at == nil:
		return nil, errors.New("an unknown service")
	case *at == nil:
		*at = new(Schedule)
	}
	return *at, nil
}

// inherit fills missing rates: with those of the lowest tier where it has them, else with those of all input or all output.
func (r *Rates) inherit(lowest *Rates) {
	fill := func(at *int64, lowest, whole int64) {
		switch {
		case *at != missing:
		case lowest != missing:
			*at = lowest
		default:
			*at = max(whole, 0)
		}
	}
	fill(&r.Input, lowest.Input, 0)
	fill(&r.Output, lowest.Output, 0)
	fill(&r.CachedInput, lowest.CachedInput, r.Input)
	fill(&r.CacheWrite, lowest.CacheWrite, r.Input)
	fill(&r.Reasoning, lowest.Reasoning, r.Output)
	fill(&r.AudioInput, lowest.AudioInput, r.Input)
	fill(&r.AudioOutput, lowest.AudioOutput, r.Output)
	fill(&r.ImageInput, lowest.ImageInput, r.Input)
	fill(&r.ImageOutput, lowest.ImageOutput, r.Output)
}
