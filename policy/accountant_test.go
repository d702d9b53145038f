// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// accountant is an [Accountant] that does as it is told, and notes what it was asked.
type accountant struct {
	denial    *Denial
	inform    []Header
	demands   []Demand
	cancelled []uuid.UUID
}

func (a *accountant) Reserve(d *Demand) ([]Header, *Denial) {
	a.demands = append(a.demands, *d)
	return a.inform, a.denial
}

func (a *accountant) Cancel(id uuid.UUID) { a.cancelled = append(a.cancelled, id) }

func accountedExchange(t *testing.T, o Options) *Exchange {
	t.Helper()
	e := New(o)
	s, err := NewSnapshot(SnapshotData{
		Tenants:  []Tenant{{ID: 1, Name: "acme"}},
		Keys:     []Key{{ID: 7, Tenant: 1, Hash: HashKey("sk-1")}},
		Channels: []Channel{{ID: 10, Name: "first", Weight: 1, Models: []Model{{Name: "small"}, {Name: "large"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.SetSnapshot(s)
	x, _, denial := e.Begin(&Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer sk-1"})
	if denial != nil {
		t.Fatal(denial)
	}
	return x
}

func TestAccountantsAreShownTheEstimateOfTheModelThatPoliciesLeft(t *testing.T) {
	a := &accountant{inform: []Header{{"x-ratelimit-limit-requests", "10"}}}
	j := &judge{ruling: &Ruling{Body: []byte(`{"model":"large"}`)}}
	x := accountedExchange(t, Options{
		Judge: func(*Tenant, *Key) Judge { return j },
		Estimate: func(q *Question) (Estimate, *Denial) {
			return Estimate{Input: int64(len(q.Model)), Cost: int64(len(q.Body))}, nil
		},
		Accountants: []Accountant{a},
	})
	admission, denial := x.Admit([]byte(`{"model":"small","messages":[]}`))
	if denial != nil {
		t.Fatal(denial)
	}
	want := Estimate{Input: int64(len("large")), Cost: int64(len(`{"model":"large"}`))}
	if len(a.demands) != 1 || a.demands[0].Estimate != want || a.demands[0].Model != "large" || a.demands[0].Key.ID != 7 || a.demands[0].Exchange != x.ID {
		t.Errorf("demands %+v, want one of key 7 for large with %+v", a.demands, want)
	}
	if diff := cmp.Diff(admission.Inform, a.inform); diff != "" || admission.Estimate != want {
		t.Errorf("admission's estimate %+v, headers %s", admission.Estimate, diff)
	}
}

func TestRefusalOfOneAccountantGivesBackWhatOthersTook(t *testing.T) {
	first, second, third := &accountant{}, &accountant{denial: Denied(429, "insufficient_quota", "no")}, &accountant{}
	j := &judge{}
	x := accountedExchange(t, Options{Judge: func(*Tenant, *Key) Judge { return j }, Accountants: []Accountant{first, second, third}})
	if _, denial := x.Admit([]byte(`{"model":"small"}`)); denial != second.denial {
		t.Fatalf("denial %v, want that of the second", denial)
	}
	if diff := cmp.Diff(first.cancelled, []uuid.UUID{x.ID}); diff != "" || len(second.cancelled) != 0 || len(third.demands) != 0 || j.dropped != 1 {
		t.Errorf("first was cancelled %s; second %v; third was asked %v; the judge was abandoned %d times, want once", diff, second.cancelled, third.demands, j.dropped)
	}
}

func TestWhatCannotBeEstimatedReservesNothing(t *testing.T) {
	a := &accountant{}
	refusal := Denied(403, "price_unknown", "no")
	x := accountedExchange(t, Options{Estimate: func(*Question) (Estimate, *Denial) { return Estimate{}, refusal }, Accountants: []Accountant{a}})
	if _, denial := x.Admit([]byte(`{"model":"small"}`)); denial != refusal || len(a.demands) != 0 {
		t.Errorf("denial %v, demands %v", denial, a.demands)
	}
}

func TestWhatCannotBeServedReservesNothing(t *testing.T) {
	a := &accountant{}
	x := accountedExchange(t, Options{Accountants: []Accountant{a}})
	if _, denial := x.Admit([]byte(`{"model":"nowhere"}`)); denial == nil || len(a.demands) != 0 {
		t.Errorf("denial %v, demands %v", denial, a.demands)
	}
}

// TestAnExactEstimateIsMadeOnceAndForAll: counting costs time, and what one accountant went by the next one sees.
func TestAnExactEstimateIsMadeOnceAndForAll(t *testing.T) {
	counted := 0
	var seen []Estimate
	ask := reserver(func(d *Demand) *Denial {
		seen = append(seen, d.Estimate)
		if got := d.Exact(); got != d.Estimate {
			t.Errorf("exactly %+v, and Estimate is %+v", got, d.Estimate)
		}
		return nil
	})
	x := accountedExchange(t, Options{
		Estimate: func(*Question) (Estimate, *Denial) { return Estimate{Cost: 100, Price: 3}, nil },
		Exact: func(q *Question) Estimate {
			counted++
			return Estimate{Cost: int64(len(q.Choices)), Price: 3}
		},
		Accountants: []Accountant{ask, ask},
	})
	a, denial := x.Admit([]byte(`{"model":"small","messages":[],"service_tier":"flex"}`))
	if denial != nil {
		t.Fatal(denial)
	}
	want := []Estimate{{Cost: 100, Price: 3}, {Cost: 1, Price: 3}}
	if diff := cmp.Diff(seen, want); diff != "" || counted != 1 || a.Estimate != want[1] {
		t.Errorf("counted %d times, admitted with %+v, estimates (-got +want):\n%s", counted, a.Estimate, diff)
	}
	ticket, err := ParseTicket(a.Ticket)
	if err != nil || ticket.Price != 3 || ticket.Service != Flex {
		t.Errorf("ticket = %+v, %v; want the price and the service", ticket, err)
	}
}

func TestWithoutAnExactEstimateTheFirstIsIt(t *testing.T) {
	d := &Demand{Estimate: Estimate{Cost: 5}}
	if got := d.Exact(); got != d.Estimate || got.Cost != 5 {
		t.Errorf("exactly %+v", got)
	}
}

// reserver is an [Accountant] that is a function.
type reserver func(*Demand) *Denial

func (r reserver) Reserve(d *Demand) ([]Header, *Denial) { return nil, r(d) }
func (r reserver) Cancel(uuid.UUID)                      {}

func TestServiceIsReadAsPricesKnowIt(t *testing.T) {
	for value, want := range map[string]Service{
		`"flex"`: Flex, `"priority"`: Priority, `"auto"`: Standard, `"default"`: Standard, `null`: Standard, `7`: Standard, `"Flex"`: Standard, `"fl\u0065x"`: Flex,
	} {
		r, denial := readRequest([]byte(`{"model":"m","service_tier":`+value+`}`), OpChat)
		if denial != nil || r.service != want {
			t.Errorf("%s: %v, %v; want %v", value, r.service, denial, want)
		}
	}
	if _, denial := readRequest([]byte(`{"model":"m","service_tier":"flex","service_tier":"priority"}`), OpChat); denial == nil {
		t.Error("two service tiers were taken")
	}
}
