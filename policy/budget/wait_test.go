// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// office is a book whose requests wait, and who asks the bank for it, each call taking some time.
type office struct {
	*testing.T
	book *Book
	bank *bank
	wake chan struct{}
	asks []Ask // so far
	down atomic.Bool
	slow time.Duration
}

const answerTime = 20 * time.Millisecond

func newOffice(t *testing.T, budgets ...Budget) *office {
	t.Helper()
	credit := make(map[int64]int64)
	for _, b := range budgets {
		credit[b.ID] = b.Amount
	}
	o := &office{T: t, bank: newBank(credit, time.Now), wake: make(chan struct{}, 1), slow: answerTime}
	o.book = New(Options{Patience: time.Second, Wake: func() {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}})
	o.book.SetHolder(uuid.New())
	x, err := NewIndex([]Tenant{{ID: 1, Parent: 2, Name: "child"}, {ID: 2, Name: "top"}}, budgets)
	if err != nil {
		t.Fatal(err)
	}
	o.book.SetIndex(x)
	o.book.Joined(o.bank.join(o.book.Holder()))
	return o
}

// run asks the bank until the test has ended.
func (o *office) run() {
	go func() {
		for {
			if r, due := o.book.Next(); due {
				select {
				case <-o.Context().Done():
					return
				case <-time.After(o.slow):
				}
				o.answer(r)
			}
			select {
			case <-o.Context().Done():
				return
			case <-o.wake:
			case <-time.After(hurry):
			}
		}
	}()
}

func (o *office) answer(r Request) {
	o.asks = append(o.asks, r.Asks...)
	if o.down.Load() {
		o.book.Failed(r, errors.New("away"))
		return
	}
	reply, err := o.bank.sync(r)
	if err != nil {
		o.book.Failed(r, err)
		return
	}
	o.book.Granted(r, reply)
}

func keyBudget(id, amount int64) Budget {
	return Budget{ID: id, Key: 7, Tenant: 1, Amount: amount, Period: Never}
}

func TestFirstRequestOfABudgetWaitsForItsLease(t *testing.T) {
	for name, budgets := range map[string][]Budget{
		"of the key":                     {keyBudget(1, 1600)},
		"of the key and those above":     {keyBudget(1, 1600), {ID: 2, Tenant: 1, Amount: 1600, Period: Never}, {ID: 3, Tenant: 2, Amount: 1600, Period: Never}},
		"that is nearly all of a budget": {keyBudget(1, 101)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(t, budgets...)
				o.run()
				began := time.Now()
				m := demand(100)
				if _, denial := o.book.Reserve(m); denial != nil {
					t.Fatalf("%+v", denial)
				}
				if took := time.Since(began); took == 0 || took > 500*time.Millisecond {
					t.Errorf("it waited for %s", took)
				}
				if got := len(m.Charged().Accounts); got != len(budgets) {
					t.Errorf("%d accounts are charged, want %d", got, len(budgets))
				}
			})
		})
	}
}

func TestWhatTheBankRefusesIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, keyBudget(1, 50))
		o.run()
		refused := func(code string, within time.Duration) {
			t.Helper()
			began := time.Now()
			_, denial := o.book.Reserve(demand(100))
			if took := time.Since(began); denial == nil || denial.Code != code || took > within {
				t.Errorf("%+v after %s, want %s within %s", denial, took, code, within)
			}
		}
		refused(CodeQuota, 2*answerTime+hurry) // what there is was not known yet
		refused(CodeQuota, 0)
		o.down.Store(true)
		<-time.After(2 * refresh)
		refused(CodeQuota, 0)
	})
}

func TestWhatWasPaidInCanBeSpentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, keyBudget(1, 50))
		o.run()
		for range 2 {
			if _, denial := o.book.Reserve(demand(100)); denial == nil || denial.Code != CodeQuota {
				t.Errorf("%+v", denial)
			}
		}
		synctest.Wait()
		o.bank.credit[1] = 1000
		if err := o.book.Change(Change{Budgets: []Budget{keyBudget(1, 50)}}); err != nil {
			t.Fatal(err)
		}
		if _, denial := o.book.Reserve(demand(100)); denial != nil {
			t.Errorf("after it was paid in: %+v", denial)
		}
	})
}

func TestNobodyWaitsForABankThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, keyBudget(1, 1600))
		o.down.Store(true)
		o.run()
		for range 2 {
			began := time.Now()
			_, denial := o.book.Reserve(demand(100))
			if denial == nil || denial.Status != http.StatusServiceUnavailable || time.Since(began) > 2*answerTime {
				t.Errorf("%+v after %s", denial, time.Since(began))
			}
		}
	})
}

func TestWaitForTheBankIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, keyBudget(1, 1_000_000))
		o.slow = time.Hour
		o.run()
		var wg sync.WaitGroup
		var mu sync.Mutex
		atOnce, late := 0, 0
		for range maxWaiting + 100 {
			wg.Go(func() {
				began := time.Now()
				_, denial := o.book.Reserve(demand(1))
				mu.Lock()
				defer mu.Unlock()
				switch took := time.Since(began); {
				case denial == nil || denial.Code != CodeLimited:
					t.Errorf("%+v", denial)
				case took == 0:
					atOnce++
				case took == time.Second:
					late++
				}
			})
		}
		wg.Wait()
		if atOnce != 100 || late != maxWaiting {
			t.Errorf("%d were refused at once and %d after a second, want 100 and %d", atOnce, late, maxWaiting)
		}
	})
}

func TestManyRequestsThatWaitAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, keyBudget(1, 1_000_000))
		o.run()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, denial := o.book.Reserve(demand(100)); denial != nil {
					t.Errorf("%+v", denial)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if len(o.asks) != 1 {
			t.Errorf("the bank was asked %d times", len(o.asks))
		}
	})
}

// Those that are leased ahead of need do not keep those waiting that are needed.
func TestWhatIsNeededIsAskedForFirst(t *testing.T) {
	t.Parallel()
	var budgets []Budget
	for id := range int64(3 * maxAsks) {
		budgets = append(budgets, Budget{ID: id + 1, Key: policy.KeyID(id + 1), Tenant: 1, Amount: 1600, Period: Never})
	}
	x, err := NewIndex([]Tenant{{ID: 1}}, budgets)
	if err != nil {
		t.Fatal(err)
	}
	book := New(Options{})
	book.SetIndex(x)
	book.Joined(Joined{})
	d := demand(100)
	d.Key.ID = 2 * maxAsks
	if _, denial := book.Reserve(d); denial == nil {
		t.Fatal("it was admitted without a lease")
	}
	r, due := book.Next()
	if !due || len(r.Asks) != maxAsks || !r.More {
		t.Fatalf("%d asks, more: %v", len(r.Asks), r.More)
	}
	found := false
	for _, a := range r.Asks {
		found = found || a.Budget == 2*maxAsks && a.Need == 100
	}
	if !found {
		t.Error("what is needed is not asked for")
	}
	seen := len(r.Asks)
	for r.More {
		r, _ = book.Next()
		seen += len(r.Asks)
	}
	if seen != len(budgets) {
		t.Errorf("%d accounts were asked for, want %d", seen, len(budgets))
	}
}
