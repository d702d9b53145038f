// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// pricer is a [Pricer] by which a token costs as many nano-dollars as the version of the price says.
type pricer struct{ fails error }

func (p *pricer) Price(_ context.Context, records []Record) error {
	for i := range records {
		if r := &records[i]; r.Priced() {
			r.CostNanoUSD = r.PriceVersion * (r.BilledInput + r.BilledOutput)
		}
	}
	return p.fails
}

// priced returns the line of the n-th exchange with another ticket, one that has a price.
func priced(n int, price int64) (*policy.Admission, string) {
	ticket := testTicket(false)
	ticket.Exchange, _ = exchangeLine(n)
	plain := ticket.String()
	ticket.Price = price
	_, line := exchangeLine(n)
	return &policy.Admission{Exchange: ticket.Exchange, Ticket: ticket.String()}, strings.Replace(line, plain, ticket.String(), 1)
}

func TestRowsArePricedBeforeTheyArePosted(t *testing.T) {
	h := newHarness(t)
	p := &pricer{fails: errors.New("no such version yet")}
	h.o.Pricer = p
	h.restart()
	_, line := priced(0, 3)
	h.write(ActiveLog, line+lines(1, 2))
	h.step(0)
	h.step(time.Second)
	if h.book.posts != 0 {
		t.Fatal("rows were posted whose price is not known yet")
	}
	p.fails = nil
	h.step(time.Minute)
	rows := h.book.rows[h.writer(ActiveLog)]
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	if want := 3 * (rows[0].Input + rows[0].Output); rows[0].CostNanoUSD != want || want == 0 || rows[0].PriceVersion != 3 {
		t.Errorf("cost = %+v, want %d", rows[0].Cost, want)
	}
	if rows[1].Priced() {
		t.Errorf("a row of no price has the cost %+v", rows[1].Cost)
	}
}

func TestWithoutAPricerNothingHasACost(t *testing.T) {
	h := newHarness(t)
	h.restart()
	_, line := priced(0, 3)
	h.write(ActiveLog, line)
	h.step(0)
	h.step(time.Second)
	if rows := h.book.rows[h.writer(ActiveLog)]; len(rows) != 1 || rows[0].Priced() {
		t.Errorf("rows = %+v", rows)
	}
}

func TestUnresolvedRowsCostTheirEstimate(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		p := &pricer{fails: errors.New("no such version yet")}
		r.pricer = p
		r.kill()
		a, _ := priced(1, 3)
		if err := r.intents.Admitted(a, 400); err != nil {
			t.Fatal(err)
		}
		r.wait(6 * time.Minute)
		r.want(1)
		p.fails = nil
		r.wait(time.Minute)
		r.want(0, 1)
		row := r.book.unresolved[a.Exchange]
		if want := 3 * (row.Input + row.Output); row.CostNanoUSD != want || want == 0 {
			t.Errorf("cost = %+v, want %d", row.Cost, want)
		}
	})
}
