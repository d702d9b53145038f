// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/store"
)

// Price is what the tokens of a model cost.
type Price struct {
	Model     string       `json:"model"`   // the name or the pattern that the price is for
	From      string       `json:"from"`    // "own", or the name of the list
	Version   int64        `json:"version"` // of the prices
	MaxInput  int64        `json:"max_input,omitempty"`
	MaxOutput int64        `json:"max_output,omitempty"`
	Rates     []PriceRates `json:"rates"` // the standard ones, their tiers, then those of other services
}

// PriceRates are nano-dollars for a million tokens. What is nil costs as much as the input or the output that it is a part of.
type PriceRates = prices.Quote

// NewPrice is the whole price of a model.
type NewPrice struct {
	MaxInput  int64        `json:"max_input,omitempty"`
	MaxOutput int64        `json:"max_output,omitempty"`
	Rates     []PriceRates `json:"rates"`
}

func priceOf(p *prices.Price, version int64) Price {
	out := Price{Model: p.Model, From: p.Version, Version: version, MaxInput: p.MaxInput, MaxOutput: p.MaxOutput}
	for _, r := range p.Rows() {
		out.Rates = append(out.Rates, r.Quote)
	}
	return out
}

func (n *NewPrice) rows() []prices.Row {
	var rows []prices.Row
	for _, q := range n.Rates {
		row := prices.Row{Quote: q}
		if q.Service == "" && q.Above == 0 {
			row.MaxInput, row.MaxOutput = n.MaxInput, n.MaxOutput
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *api) listPrices(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	limit, after, text, own := q.limit(), q.text("cursor"), q.text("q"), q.flag("own")
	if err := q.done(); err != nil {
		return err
	}
	table, version, err := a.Store.PriceTable(r.Context(), 0)
	if err != nil {
		return err
	}
	l := List[Price]{Items: []Price{}}
	for _, model := range table.Models() {
		if model <= after || !strings.Contains(model, text) {
			continue
		}
		p := table.Get(model)
		if own && p.Version != prices.Own {
			continue
		}
		if len(l.Items) == limit {
			l.Next = l.Items[limit-1].Model
			break
		}
		l.Items = append(l.Items, priceOf(p, version))
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (a *api) showPrice(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	version := q.id("version")
	if err := q.done(); err != nil {
		return err
	}
	p, err := a.price(r, version)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, p)
	return nil
}

// price returns the price of the model in the path.
func (a *api) price(r *http.Request, version int64) (Price, error) {
	table, version, err := a.Store.PriceTable(r.Context(), version)
	if err != nil {
		return Price{}, err
	}
	model := r.PathValue("model")
	p := table.Get(model)
	if p == nil {
		p = table.Find(model)
	}
	if p == nil {
		return Price{}, fmt.Errorf("price of %q: %w", model, store.ErrNotFound)
	}
	return priceOf(p, version), nil
}

func (a *api) setPrice(w http.ResponseWriter, r *http.Request) error {
	var n NewPrice
	if err := decode(w, r, &n); err != nil {
		return err
	}
	if _, err := a.Store.SetPrice(r.Context(), r.PathValue("model"), n.rows()); err != nil {
		return err
	}
	p, err := a.price(r, 0)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, p)
	return nil
}

func (a *api) deletePrice(w http.ResponseWriter, r *http.Request) error {
	if err := a.Store.DeletePrice(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// flag reads a parameter that is true or false.
func (q *query) flag(name string) bool {
	switch s := q.text(name); s {
	case "", "false":
		return false
	case "true":
	default:
		q.fail(name, "must be true or false")
	}
	return true
}
