// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// TestRestHidesNothingThatIsDue: whoever asks Next ten times a second finds nothing in a rest, whatever happened before it, unless Wake is called.
func TestRestHidesNothingThatIsDue(t *testing.T) {
	rests := 0
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 1))
		d := newDesk(t, 1_000_000, Day)
		woken := false
		d.book.o.Wake = func() { woken = true }
		d.join()
		if seed%4 > 0 {
			d.book.Drained()
		}
		var rest time.Time
		look := func() {
			r, due := d.book.Next()
			if due && d.at.Before(rest) {
				t.Fatalf("seed %d: at %v, %v before the end of the rest, there is to ask: %+v", seed, d.at, rest.Sub(d.at), r)
			}
			if due {
				reply, err := d.bank.sync(r)
				if err != nil {
					d.book.Failed(r, err)
				} else {
					d.book.Granted(r, reply)
				}
			}
			if rest = d.at.Add(d.book.Rest()); rest.After(d.at) {
				rests++
			}
		}
		var open []*policy.Demand
		other := uuid.New()
		d.bank.join(other)
		for range 40 {
			woken = false
			switch n := random.IntN(6); {
			case n < 2:
				if m, denial := d.reserve(1 + random.Int64N(200_000)); denial == nil {
					open = append(open, m)
				}
			case n < 4 && len(open) > 0:
				d.book.Settle(open[0].Exchange, random.Int64N(100_000))
				open = open[1:]
			}
			if woken {
				rest = time.Time{}
			}
			passes := []time.Duration{hurry, time.Second, 12 * time.Second, 40 * time.Second, 5 * time.Minute}[random.IntN(5)]
			for end := d.at.Add(passes); d.at.Before(end); d.at = d.at.Add(hurry) {
				look()
			}
			if random.IntN(10) == 0 { // to just before the end of the day
				d.at = d.at.Truncate(24 * time.Hour).Add(24*time.Hour - 15*time.Second)
				rest = time.Time{}
			}
		}
	}
	if rests < 100 {
		t.Errorf("it rested %d times", rests)
	}
}

// TestRestEndsWhenAnythingHappens: whoever rests is woken by the first reservation, and by its end.
func TestRestEndsWhenAnythingHappens(t *testing.T) {
	d := newDesk(t, 1_000_000, Day)
	woken := 0
	d.book.o.Wake = func() { woken++ }
	d.join()
	d.book.Drained()
	d.sync(time.Minute + hurry) // the bank is asked each second
	if d.book.Rest() == 0 {
		t.Fatal("there is no rest when nothing has happened for a minute")
	}
	m, denial := d.reserve(10)
	if denial != nil {
		t.Fatal(denial)
	}
	if got := fmt.Sprint(woken, d.book.Rest()); got != "1 0s" {
		t.Errorf("after a reservation: woken and rest are %s", got)
	}
	if _, denial := d.reserve(10); denial != nil {
		t.Fatal(denial)
	}
	if woken != 1 {
		t.Errorf("woken %d times before anybody looked", woken)
	}
	d.sync(time.Minute + hurry)
	woken = 0
	if d.book.Rest() == 0 {
		t.Fatal("there is no rest when nothing has happened for another minute")
	}
	d.book.Settle(m.Exchange, 5)
	if got := fmt.Sprint(woken, d.book.Rest()); got != "1 0s" {
		t.Errorf("after its end: woken and rest are %s", got)
	}
}

// TestBookWithoutBudgetsRests: nothing is to be looked at ten times a second for nobody.
func TestBookWithoutBudgetsRests(t *testing.T) {
	b := New(Options{})
	b.Drained()
	if _, due := b.Next(); due || b.Rest() < poll {
		t.Errorf("due %t, rest %v", due, b.Rest())
	}
}
