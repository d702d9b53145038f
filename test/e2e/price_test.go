// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// tariff is a price in nano-dollars for one token, reckoned here by other means than in the program.
type tariff struct{ input, cached, output, reasoning int64 }

// price sets a price and waits until it is in force.
func (w *world) price(t *testing.T, model string, p tariff) {
	t.Helper()
	const million = 1_000_000
	_, err := w.Store.SetPrice(t.Context(), model, []prices.Row{{Quote: prices.Quote{
		Input: new(p.input * million), CachedInput: new(p.cached * million), Output: new(p.output * million), Reasoning: new(p.reasoning * million),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	w.Settle()
}

// costsAsServed compares the cost of a row with what the provider's ledger says that it served.
func costsAsServed(t *testing.T, row store.UsageRow, p *rig.Provider, by tariff) {
	t.Helper()
	sameAsLedger(t, row, p)
	attempts := p.Ledger().Attempts(row.Exchange.String())
	served := attempts[len(attempts)-1].Tokens
	want := (served.Input-served.CachedInput)*by.input + served.CachedInput*by.cached + (served.Output-served.Reasoning)*by.output + served.Reasoning*by.reasoning
	if row.CostNanoUSD == nil || *row.CostNanoUSD != want || want == 0 || row.PriceVersion == nil {
		t.Errorf("%s: %+v costs %v by version %v, want %d", row.Model, served, value(row.CostNanoUSD), value(row.PriceVersion), want)
	}
}

func value(n *int64) any {
	if n == nil {
		return nil
	}
	return *n
}

func TestRowsCostWhatTheProviderServedTimesThePrice(t *testing.T) {
	w := newWorld(t, rig.Options{})
	mini, o3 := tariff{input: 150, cached: 75, output: 600, reasoning: 600}, tariff{input: 1100, cached: 550, output: 4400, reasoning: 9900}
	w.price(t, "gpt-4o-mini", mini)
	w.price(t, "o3-mini", o3)
	long := strings.Repeat("The river runs to the weir. ", 400) // the provider has a part of it in its cache
	var sum int64
	for _, c := range []struct {
		path, body      string
		by              tariff
		cached, reasons bool
	}{
		{"/v1/chat/completions", hello, mini, false, false},
		{"/v1/chat/completions", helloStream, mini, false, false},
		{"/v1/chat/completions", `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"` + long + `"}]}`, mini, true, false},
		{"/v1/responses", `{"model":"o3-mini","input":"Hello"}`, o3, false, true},
		{"/v1/responses", `{"model":"o3-mini","stream":true,"input":"` + long + `"}`, o3, true, true},
	} {
		a := w.post(t, c.path, c.body)
		row := w.Row(a.exchange)
		costsAsServed(t, row, w.provider, c.by)
		if (row.CachedInput > 0) != c.cached || (row.Reasoning > 0) != c.reasons {
			t.Errorf("%d cached and %d reasoning tokens: the case does not test what it is for", row.CachedInput, row.Reasoning)
		}
		if row.CostNanoUSD != nil {
			sum += *row.CostNanoUSD
		}
	}
	failed := w.Row(w.post(t, "/v1/chat/completions", hello, "x-fake-status", "400").exchange)
	if failed.CostNanoUSD == nil || *failed.CostNanoUSD != 0 {
		t.Errorf("an error costs %v", value(failed.CostNanoUSD))
	}
	for _, by := range [][]string{nil, {"tenant"}} {
		sums, err := w.Store.SumUsage(t.Context(), store.UsageFilter{}, by)
		if err != nil || len(sums) != 1 || sums[0].CostNanoUSD != sum || sums[0].Unpriced != 0 {
			t.Errorf("sums by %v = %+v, %v; want a cost of %d", by, sums, err, sum)
		}
	}
}

// TestAnExchangeCostsWhatItDidAtItsAdmission: the price rises while the answer is on its way, and the processor that reads of its end is not the one that
// admitted it and has never seen the old price.
func TestAnExchangeCostsWhatItDidAtItsAdmission(t *testing.T) {
	w := newWorld(t, rig.Options{})
	before, after := tariff{input: 1000, cached: 1000, output: 2000, reasoning: 2000}, tariff{input: 7000, cached: 7000, output: 8000, reasoning: 8000}
	w.price(t, "gpt-4o-mini", before)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(helloStream))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"authorization": "Bearer " + w.key, "content-type": "application/json", "x-fake-tokens": "20", "x-fake-interval-ms": "200",
	} {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r) // the stream has begun
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is read
	w.KillProcessor()
	_, err = w.Store.SetPrice(t.Context(), "gpt-4o-mini", []prices.Row{{Quote: prices.Quote{Input: new(after.input * 1_000_000), Output: new(after.output * 1_000_000)}}})
	if err != nil {
		t.Fatal(err)
	}
	w.StartProcessor()
	w.Settle()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	costsAsServed(t, w.Row(resp.Header.Get("x-weir-exchange-id")), w.provider, before)
	costsAsServed(t, w.Row(w.post(t, "/v1/chat/completions", hello).exchange), w.provider, after)
}

func TestWhatHasNoPriceHasNoCostOrIsRefused(t *testing.T) {
	for _, o := range []rig.Options{{Production: true}, {Production: true, Config: "limits: {unpriced: refuse}\n"}} {
		refused := o.Config != ""
		w := newWorld(t, o)
		w.channel = w.Channel(store.NewChannel{Name: "two", BaseURL: w.provider.URL, Models: rig.Models("nobody-knows", "alias=gpt-4o", "house/llama")})
		w.price(t, "house/*", tariff{})
		post := func(model string) answer {
			return w.post(t, "/v1/chat/completions", strings.Replace(hello, "gpt-4o-mini", model, 1))
		}
		a := post("nobody-knows")
		if refused {
			if f := a.refusal(t); a.status != http.StatusForbidden || f.Code != "price_unknown" || !strings.Contains(f.Message, "nobody-knows") {
				t.Errorf("status %d, %+v", a.status, f)
			}
		} else if row := w.Row(a.exchange); a.status != http.StatusOK || row.CostNanoUSD != nil || row.PriceVersion != nil {
			t.Errorf("status %d, cost %v by version %v; want none", a.status, value(row.CostNanoUSD), value(row.PriceVersion))
		}
		if row := w.Row(post("alias").exchange); row.CostNanoUSD == nil || *row.CostNanoUSD == 0 {
			t.Errorf("an alias costs %v; want what stands behind it", value(row.CostNanoUSD))
		}
		if row := w.Row(post("house/llama").exchange); row.CostNanoUSD == nil || *row.CostNanoUSD != 0 {
			t.Errorf("what is free costs %v", value(row.CostNanoUSD))
		}
	}
}
