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
	columnRates // nine, in the order of the fields of Rates
	columns     = columnRates + 9
)

// missing is a rate that a row lacks.
const missing = -1

// parse reads prices.tsv: lines of # and a name and a value, then a header, then rows.
func parse(text string) (*Table, error) {
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
		if err := t.row(strings.Split(line, "\t"), &lowest); err != nil {
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

// row takes one row into the table. lowest is that of the tiers, and is kept between rows.
func (t *Table) row(cells []string, lowest *Rates) error {
	if len(cells) != columns {
		return errors.New("the number of columns is wrong")
	}
	var numbers [columns]int64
	for i := columnAbove; i < columns; i++ {
		if cells[i] == "" {
			numbers[i] = missing
			continue
		}
		n, err := strconv.ParseInt(cells[i], 10, 64)
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	rates := Rates{
		Input: numbers[columnRates], CachedInput: numbers[columnRates+1], CacheWrite: numbers[columnRates+2],
		Output: numbers[columnRates+3], Reasoning: numbers[columnRates+4],
		AudioInput: numbers[columnRates+5], AudioOutput: numbers[columnRates+6],
		ImageInput: numbers[columnRates+7], ImageOutput: numbers[columnRates+8],
	}
	p := t.listed[cells[columnModel]]
	if p == nil {
		if cells[columnService] != "" || numbers[columnAbove] > 0 {
			return errors.New("a model must begin with its standard price")
		}
		p = &Price{
			Model: cells[columnModel], Version: t.version,
			MaxInput: max(numbers[columnMaxInput], 0), MaxOutput: max(numbers[columnMaxOutput], 0),
		}
		t.listed[p.Model] = p
	}
	s, err := p.serviceNamed(cells[columnService])
	if err != nil {
		return err
	}
	if above := numbers[columnAbove]; above > 0 {
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
