// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// desk is a Book and a bank that answers at once.
type desk struct {
	*testing.T
	book *Book
	bank *bank
	at   time.Time
}

func newDesk(t *testing.T, amount int64, period Period) *desk {
	t.Helper()
	d := &desk{T: t, at: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	d.bank = newBank(map[int64]int64{1: amount}, func() time.Time { return d.at })
	d.open(uuid.New(), amount, period)
	return d
}

func (d *desk) open(holder uuid.UUID, amount int64, period Period) {
	d.Helper()
	d.book = New(Options{Clock: func() time.Time { return d.at }})
	d.book.SetHolder(holder)
	x, err := NewIndex([]Tenant{{ID: 1}}, []Budget{{ID: 1, Key: 7, Tenant: 1, Amount: amount, Period: period}})
	if err != nil {
		d.Fatal(err)
	}
	d.book.SetIndex(x)
}

func demand(cost int64) *policy.Demand {
	return &policy.Demand{Exchange: uuid.New(), Key: &policy.Key{ID: 7, Tenant: 1, Name: "k"}, Model: "m", Estimate: policy.Estimate{Cost: cost, Price: 1}}
}

func (d *desk) join() { d.book.Joined(d.bank.join(d.book.Holder())) }

// sync lets so much time pass, and has the bank asked meanwhile.
func (d *desk) sync(pass time.Duration) {
	d.Helper()
	for end := d.at.Add(pass); d.at.Before(end); d.at = d.at.Add(hurry) {
		r, due := d.book.Next()
		if !due {
			continue
		}
		reply, err := d.bank.sync(r)
		if err != nil {
			d.book.Failed(r, err)
			continue
		}
		d.book.Granted(r, reply)
	}
}

func (d *desk) reserve(cost int64) (*policy.Demand, *policy.Denial) {
	m := demand(cost)
	_, denial := d.book.Reserve(m)
	return m, denial
}

// retried reserves, if need be after the time that the refusal says.
func (d *desk) retried(cost int64) *policy.Demand {
	d.Helper()
	m, denial := d.reserve(cost)
	if denial != nil {
		d.sync(denial.RetryAfter)
		m, denial = d.reserve(cost)
	}
	if denial != nil {
		d.Errorf("%d cannot be spent: %v", cost, denial)
	}
	return m
}

func (d *desk) wantDenied(cost int64, status int, code, says string) {
	d.Helper()
	if _, denial := d.reserve(cost); denial == nil || denial.Status != status || denial.Code != code || !strings.Contains(denial.Message, says) {
		d.Errorf("denial %+v, want %d %s that says %q", denial, status, code, says)
	}
}

func TestRequestsWithoutABudgetAreNobodysBusiness(t *testing.T) {
	d := newDesk(t, 100, Never)
	m := demand(math.MaxInt64)
	m.Key = &policy.Key{ID: 8, Tenant: 1}
	m.Estimate.Price = 0
	if _, denial := d.book.Reserve(m); denial != nil || len(m.Charged().Accounts) != 0 {
		t.Errorf("%v, %+v", denial, m.Charged())
	}
}

func TestWhatHasNoPriceIsRefusedUnderABudget(t *testing.T) {
	d := newDesk(t, 100, Never)
	m := demand(0)
	m.Estimate.Price = 0
	if _, denial := d.book.Reserve(m); denial == nil || denial.Code != policy.CodePriceUnknown {
		t.Errorf("denial %+v", denial)
	}
}

func TestSmallPartIsLeasedBeforeAnybodyAsks(t *testing.T) {
	d := newDesk(t, 1600, Never)
	d.wantDenied(10, http.StatusServiceUnavailable, CodeUnavailable, "database") // before it has joined
	d.join()
	d.sync(time.Second)
	m, denial := d.reserve(100)
	if denial != nil {
		t.Fatal(denial)
	}
	want := policy.Charges{Holder: d.book.Holder(), Reserved: 100, Accounts: []policy.Account{{Budget: 1}}}
	if c := m.Charged(); c.Holder != want.Holder || c.Reserved != 100 || len(c.Accounts) != 1 || c.Accounts[0] != want.Accounts[0] {
		t.Errorf("charged %+v, want %+v", c, want)
	}
}

func TestRefusalSaysWhatIsTheMatter(t *testing.T) {
	d := newDesk(t, 1000, Month)
	d.join()
	d.sync(time.Second)
	d.wantDenied(900, http.StatusTooManyRequests, CodeLimited, "reserved")
	d.sync(time.Second)
	m, denial := d.reserve(900)
	if denial != nil {
		t.Fatal(denial)
	}
	d.wantDenied(200, http.StatusTooManyRequests, CodeLimited, "reserved")
	d.bank.charge(m.Charged(), 900)
	d.book.Settle(m.Exchange, 900)
	d.sync(2 * refresh)
	d.wantDenied(200, http.StatusTooManyRequests, CodeQuota, "key `k` per month has less left than this request may cost")
	m = d.retried(100)
	d.bank.charge(m.Charged(), 100)
	d.book.Settle(m.Exchange, 100)
	d.sync(2 * refresh)
	d.wantDenied(1, http.StatusTooManyRequests, CodeQuota, "is used up. It renews at 2026-12-01T00:00:00Z")
	if _, denial := d.reserve(1); denial == nil || denial.RetryAfter != time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Sub(d.at) {
		t.Errorf("denial %+v", denial)
	}
	d.at = time.Date(2026, 12, 1, 0, 0, 1, 0, time.UTC)
	d.sync(time.Second)
	if _, denial := d.reserve(10); denial != nil {
		t.Errorf("in the next month: %v", denial)
	}
}

func TestNextPeriodIsLeasedFromBeforeItBegins(t *testing.T) {
	d := newDesk(t, 1600, Day)
	d.join()
	d.at = time.Date(2026, 11, 22, 23, 59, 40, 0, time.UTC)
	d.sync(19 * time.Second)
	d.at = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	if m, denial := d.reserve(50); denial != nil || m.Charged().Accounts[0].Period != d.at.Unix() {
		t.Errorf("%+v, %v", m.Charged(), denial)
	}
}

func TestRefusalTakesNothingFromAnyBudget(t *testing.T) {
	d := newDesk(t, 0, Never)
	d.bank.credit = map[int64]int64{1: 1600, 2: 1600, 3: 160}
	x, err := NewIndex([]Tenant{{ID: 1, Parent: 2}, {ID: 2, Name: "top"}}, []Budget{
		{ID: 1, Key: 7, Tenant: 1, Amount: 1600, Period: Never}, {ID: 2, Tenant: 1, Amount: 1600, Period: Never}, {ID: 3, Tenant: 2, Amount: 160, Period: Never},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.book.SetIndex(x)
	d.join()
	d.sync(time.Second)
	d.wantDenied(50, http.StatusTooManyRequests, CodeLimited, "tenant `top`")
	if s := d.book.Stats(); s.Reserved != 0 || s.Accounts != 3 {
		t.Errorf("%+v", s)
	}
	d.sync(time.Second)
	m, denial := d.reserve(50)
	if denial != nil || len(m.Charged().Accounts) != 3 {
		t.Fatal(denial, m.Charged())
	}
	if s := d.book.Stats(); s.Reserved != 150 {
		t.Errorf("%+v", s)
	}
	d.book.Cancel(m.Exchange)
	d.book.Cancel(m.Exchange)
	if s := d.book.Stats(); s.Reserved != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEarlierLifeIsBelievedOnlyWhenItsLogsArePosted(t *testing.T) {
	d := newDesk(t, 1000, Never)
	d.join()
	d.sync(time.Second)
	d.wantDenied(800, http.StatusTooManyRequests, CodeLimited, "")
	d.sync(time.Second)
	open, denial := d.reserve(300)
	if denial != nil {
		t.Fatal(denial)
	}
	ended, denial := d.reserve(500)
	if denial != nil {
		t.Fatal(denial)
	}
	// The line of the second is in the log; its intent was settled, and the bank has forgotten its row.
	d.open(d.book.Holder(), 1000, Never)
	d.book.Leave(open.Exchange, open.Charged())
	d.join()
	d.sync(5 * time.Second)
	if _, denial := d.reserve(600); denial == nil {
		t.Error("what an earlier life has spent can be spent again")
	}
	d.bank.charge(ended.Charged(), 400)
	d.book.Drained()
	d.sync(5 * time.Second)
	if _, denial := d.reserve(301); denial == nil {
		t.Error("more can be spent than there is: 1000 less 400 that are spent and 300 that are reserved")
	}
	d.sync(2 * time.Second)
	d.retried(300)
}

func TestOutageServesWhatIsLeasedAndThenRefusesByConfiguration(t *testing.T) {
	for _, status := range []int{0, http.StatusTooManyRequests} {
		d := newDesk(t, 1600, Never)
		d.book.o.Outage = max(status, http.StatusServiceUnavailable*(1-min(status, 1)))
		d.join()
		d.sync(time.Second)
		d.book.Failed(Request{}, errors.New("away"))
		if _, denial := d.reserve(100); denial != nil {
			t.Errorf("what is leased is not served: %v", denial)
		}
		d.wantDenied(1, d.book.o.Outage, CodeUnavailable, "database")
	}
}

func TestFencedBookRefuses(t *testing.T) {
	d := newDesk(t, 1600, Never)
	d.join()
	d.sync(time.Second)
	d.bank.join(d.book.Holder())
	d.sync(2 * time.Second)
	if !d.book.Fenced() {
		t.Error("it does not know that it is fenced")
	}
	d.wantDenied(1, http.StatusServiceUnavailable, CodeUnavailable, "")
	if _, due := d.book.Next(); due {
		t.Error("it still asks")
	}
}

func TestIdleLeasesGoBackAndAreForgotten(t *testing.T) {
	d := newDesk(t, 1600, Never)
	d.join()
	d.sync(time.Second)
	d.wantDenied(1000, http.StatusTooManyRequests, CodeLimited, "")
	d.sync(time.Second)
	if l := d.bank.leases[leaseKey{policy.Account{Budget: 1}, d.book.Holder()}]; l.granted < 1000 {
		t.Errorf("%+v", l)
	}
	d.sync(2 * idle)
	if l := d.bank.leases[leaseKey{policy.Account{Budget: 1}, d.book.Holder()}]; l.granted != 100 {
		t.Errorf("%+v, want only what is held ready", l)
	}
	r, due := d.book.Retire()
	if !due {
		t.Fatal("nothing to give back at the end")
	}
	reply, err := d.bank.sync(r)
	if err != nil {
		t.Fatal(err)
	}
	d.book.Granted(r, reply)
	if l := d.bank.leases[leaseKey{policy.Account{Budget: 1}, d.book.Holder()}]; l.granted != 0 {
		t.Errorf("%+v", l)
	}
}

func TestLostExchangeKeepsItsReservation(t *testing.T) {
	d := newDesk(t, 1600, Never)
	d.join()
	d.sync(time.Second)
	m, denial := d.reserve(60)
	if denial != nil {
		t.Fatal(denial)
	}
	d.book.Lose(m.Exchange)
	d.book.Settle(m.Exchange, 0)
	if s := d.book.Stats(); s.Reserved != 60 {
		t.Errorf("%+v", s)
	}
}

// chainOf returns so many tenants, each above the one before it.
func chainOf(n int) []Tenant {
	var all []Tenant
	for id := range n {
		all = append(all, Tenant{ID: policy.TenantID(id + 1), Parent: policy.TenantID((id + 2) % (n + 1))})
	}
	return all
}

func TestIndexRefusesWhatNoStoreShouldHold(t *testing.T) {
	t.Parallel()
	good := Budget{ID: 1, Tenant: 1, Amount: 1, Period: Day}
	with := func(change func(*Budget)) Budget {
		b := good
		change(&b)
		return b
	}
	for name, c := range map[string]struct {
		tenants []Tenant
		budgets []Budget
	}{
		"no id":         {nil, []Budget{with(func(b *Budget) { b.ID = 0 })}},
		"twice":         {[]Tenant{{ID: 1}}, []Budget{good, good}},
		"two of one":    {[]Tenant{{ID: 1}}, []Budget{good, with(func(b *Budget) { b.ID = 2 })}},
		"negative":      {nil, []Budget{with(func(b *Budget) { b.Amount = -1 })}},
		"too much":      {nil, []Budget{with(func(b *Budget) { b.Amount = math.MaxInt64 })}},
		"no period":     {nil, []Budget{with(func(b *Budget) { b.Period = "" })}},
		"above itself":  {[]Tenant{{ID: 1, Parent: 2}, {ID: 2, Parent: 1}}, []Budget{good}},
		"no parent":     {[]Tenant{{ID: 1, Parent: 9}}, []Budget{good}},
		"far too deep":  {chainOf(8), []Budget{good}},
		"keyless owner": {nil, []Budget{with(func(b *Budget) { b.Tenant = 0 })}},
	} {
		if _, err := NewIndex(c.tenants, c.budgets); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if x, err := NewIndex(chainOf(3), []Budget{good}); err != nil || !x.Applies(5, 1) || x.Applies(5, 2) {
		t.Errorf("%v", err)
	}
}

// Whatever a holder asks, and however little sense it makes, the sum over the leases never exceeds the credit by more than it did.
func TestAllotNeverGivesMoreThanThereIs(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	number := func() int64 {
		switch random.IntN(8) {
		case 0:
			return 0
		case 1:
			return MaxAmount
		case 2:
			return math.MaxInt64
		default:
			return random.Int64N(1000)
		}
	}
	for range 200_000 {
		l := Lease{Granted: min(number(), MaxAmount), Spent: min(number(), MaxAmount)}
		charge := max(l.Granted, l.Spent)
		s := State{Credit: min(number(), MaxAmount), Charged: plus(charge, number()), Holders: random.IntN(5)}
		a := Ask{Floor: number(), Keep: number(), Need: number(), Want: number()}
		v := Allot(s, l, a)
		others := s.Charged - charge
		if after := max(v.Granted, l.Spent); after > charge && after > s.Credit-others || v.Granted < 0 {
			t.Fatalf("%+v, %+v, %+v: %+v; others have %d", s, l, a, v, others)
		}
		if !v.Forgotten && v.Granted < a.Floor {
			t.Fatalf("%+v, %+v, %+v: %+v is less than the holder counts on", s, l, a, v)
		}
	}
}

func BenchmarkReserveAndSettle(b *testing.B) {
	credit := map[int64]int64{1: MaxAmount, 2: MaxAmount, 3: MaxAmount}
	bank := newBank(credit, time.Now)
	book := New(Options{})
	book.SetHolder(uuid.New())
	x, err := NewIndex([]Tenant{{ID: 1, Parent: 2}, {ID: 2}}, []Budget{
		{ID: 1, Key: 7, Tenant: 1, Amount: MaxAmount, Period: Month}, {ID: 2, Tenant: 1, Amount: MaxAmount, Period: Day}, {ID: 3, Tenant: 2, Amount: MaxAmount, Period: Never},
	})
	if err != nil {
		b.Fatal(err)
	}
	book.SetIndex(x)
	book.Joined(bank.join(book.Holder()))
	r, _ := book.Next()
	reply, err := bank.sync(r)
	if err != nil {
		b.Fatal(err)
	}
	book.Granted(r, reply)
	d := demand(1000)
	b.ReportAllocs()
	for b.Loop() {
		d.Exchange[15]++
		if _, denial := book.Reserve(d); denial != nil {
			b.Fatal(denial)
		}
		book.Settle(d.Exchange, 10)
	}
}
