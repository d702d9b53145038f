// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// MaxAhead is how many budgets are leased from before anybody asks; if there are more, none is.
const MaxAhead = 10_000

// Options are what a [Book] needs.
type Options struct {
	Clock func() time.Time // nil means time.Now

	// Outage is the status with which a request is refused that needs more than was leased while the bank cannot be asked: 503 or 429. Zero means 503.
	Outage int
	// Patience is how long a request may wait for an answer of the bank, if that may let it through: the first one of a budget, or one that is larger than what
	// was leased so far. Zero: none waits.
	Patience time.Duration
	// Wake is called when the bank should be asked soon, perhaps by many goroutines at once; it must be quick. May be nil.
	Wake func()
}

// Book keeps the leases of one holder. Reserve and Cancel make it a [policy.Accountant]. All of its methods may be called by many goroutines at once,
// but Next and what follows on it by one.
type Book struct {
	o        Options
	holder   uuid.UUID
	index    atomic.Pointer[Index] // never nil
	ahead    bool                  // budgets are leased from before anybody asks; owned by whoever changes them
	fenced   atomic.Bool
	failing  atomic.Bool
	drained  atomic.Bool // all that earlier lives left is posted
	joined   atomic.Bool
	epoch    int64 // owned by whoever calls Next, as is count
	count    int64
	counters counters

	mu       sync.Mutex // guards accounts
	accounts map[policy.Account]*account

	open [64]shard // exchanges, by their last byte
	calm calm
}

// counters are what [Book.Stats] adds up, and how many requests wait for the bank now.
type counters struct{ refused, short, pending, outage, unpriced, forgotten, waiting atomic.Int64 }

// Stats are numbers since the Book was made, and what it holds.
type Stats struct {
	Exhausted int64 // requests that were refused since a budget was used up
	Short     int64 // since what was left of it was reserved by others
	Pending   int64 // since nothing had been leased yet
	Outage    int64 // since nothing more could be leased
	Unpriced  int64 // since nobody knew what they would cost
	SetBacks  int64 // leases that the bank had forgotten
	Accounts  int
	Granted   int64 // nano-dollars, over all accounts
	Used      int64
	Reserved  int64
}

type shard struct {
	mu   sync.Mutex
	open map[uuid.UUID]reservation
}

// reservation is what was reserved for an exchange.
type reservation struct {
	amount   int64
	accounts []*account
}

// New returns a book without leases.
func New(o Options) *Book {
	o.Outage = cmp.Or(o.Outage, http.StatusServiceUnavailable)
	if o.Clock == nil {
		o.Clock = time.Now //nolint:forbidigo // the one place where the clock's default is named
	}
	if o.Wake == nil {
		o.Wake = func() {}
	}
	b := &Book{o: o, accounts: make(map[policy.Account]*account)}
	b.index.Store(new(Index))
	for i := range b.open {
		b.open[i].open = make(map[uuid.UUID]reservation)
	}
	return b
}

// SetHolder names the journal that admissions go to. It comes before everything else.
func (b *Book) SetHolder(id uuid.UUID) { b.holder = id }

// Holder returns the name.
func (b *Book) Holder() uuid.UUID { return b.holder }

// account returns that of a period, and begins one if there is none.
func (b *Book) account(s *span) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[s.account]
	if a == nil {
		a = &account{Account: s.account, end: s.end}
		b.accounts[s.account] = a
	}
	return a
}

// Reserve implements [policy.Accountant].
func (b *Book) Reserve(d *policy.Demand) ([]policy.Header, *policy.Denial) {
	var room [policy.MaxCharged]applied
	over := b.index.Load().over(room[:0], d.Key.ID, d.Key.Tenant)
	if len(over) == 0 {
		return nil, nil
	}
	defer b.stir()
	if d.Estimate.Price == 0 {
		b.counters.unpriced.Add(1)
		return nil, policy.PriceUnknown(d.Model)
	}
	if b.fenced.Load() {
		return nil, b.unavailable()
	}
	short := b.reserve(d, over)
	if short != nil && short.free > 0 { // to count exactly takes its time, and nothing fits into nothing
		if most := d.Estimate.Cost; d.Exact().Cost < most {
			short = b.reserve(d, over)
		}
	}
	if short != nil && b.o.Patience > 0 {
		short = b.wait(d, over, short)
	}
	if short != nil {
		return nil, b.refuse(d, short)
	}
	return nil, nil
}

// shortage is what keeps a request from being admitted.
type shortage struct {
	applied
	span    *span
	account *account
	amount  int64 // that it needs
	free    int64 // that there is, less than that
}

// reserve takes what is estimated from each budget over a key, or nothing from any.
func (b *Book) reserve(d *policy.Demand, over []applied) *shortage {
	amount := bounded(d.Estimate.Cost)
	now := b.o.Clock()
	r := reservation{amount: amount, accounts: make([]*account, 0, len(over))}
	c := policy.Charges{Holder: b.holder, Reserved: amount, Accounts: make([]policy.Account, 0, len(over))}
	for i := range over {
		a, short := b.takeFrom(&over[i], amount, now)
		if short != nil {
			for _, before := range r.accounts {
				before.release(amount, 0)
			}
			return short
		}
		r.accounts = append(r.accounts, a)
		c.Accounts = append(c.Accounts, a.Account)
	}
	b.put(d.Exchange, r)
	d.Charge(c)
	return nil
}

// takeFrom reserves in the account of the period that it is.
func (b *Book) takeFrom(p *applied, amount int64, now time.Time) (*account, *shortage) {
	s := p.at(now, p.zone)
	for {
		a := s.holder.Load()
		if a == nil {
			a = b.account(s)
			a.mu.Lock()
			a.amount, a.end = p.Amount, s.end
			a.mu.Unlock()
			s.holder.Store(a)
		}
		free, ok, gone := a.take(amount, now)
		if ok {
			return a, nil
		}
		if !gone {
			return nil, &shortage{applied: *p, span: s, account: a, amount: amount, free: free}
		}
		s.holder.CompareAndSwap(a, nil)
	}
}

func (b *Book) put(id uuid.UUID, r reservation) {
	s := &b.open[id[15]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[id] = r
}

func (b *Book) remove(id uuid.UUID) (reservation, bool) {
	s := &b.open[id[15]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.open[id]
	if ok {
		delete(s.open, id)
	}
	return r, ok
}

// end gives back what was reserved for an exchange, less what it cost.
func (b *Book) end(id uuid.UUID, cost func(reserved int64) int64) {
	r, ok := b.remove(id)
	if !ok {
		return
	}
	spent := bounded(cost(r.amount))
	for _, a := range r.accounts {
		a.release(r.amount, spent)
	}
	b.stir()
}

// Cancel implements [policy.Accountant].
func (b *Book) Cancel(exchange uuid.UUID) { b.end(exchange, func(int64) int64 { return 0 }) }

// Settle ends a reservation when the row of the exchange is in the bank, with its cost.
func (b *Book) Settle(exchange uuid.UUID, cost int64) {
	b.end(exchange, func(int64) int64 { return cost })
}

// SettleAny ends a reservation when the exchange has a row in the bank of which it is not known here what it says. It counts with what was reserved until
// the bank is asked the next time.
func (b *Book) SettleAny(exchange uuid.UUID) {
	b.end(exchange, func(reserved int64) int64 { return reserved })
}

// Lose notes that the end of an exchange will never be told. Its reservation stays until the process ends.
func (b *Book) Lose(exchange uuid.UUID) { b.remove(exchange) }

// Leave takes over a reservation of an earlier life, as its ticket tells of it, before [Book.Join].
func (b *Book) Leave(exchange uuid.UUID, c policy.Charges) {
	if c.Holder != b.holder || len(c.Accounts) == 0 {
		return
	}
	r := reservation{amount: bounded(c.Reserved)}
	for _, key := range c.Accounts {
		a := b.account(&span{account: key, end: 1 << 62})
		a.mu.Lock()
		a.frozen = true
		a.reserved = plus(a.reserved, r.amount)
		a.mu.Unlock()
		r.accounts = append(r.accounts, a)
	}
	b.put(exchange, r)
}

// Stats returns the numbers of the moment.
func (b *Book) Stats() Stats {
	c := &b.counters
	s := Stats{
		Exhausted: c.refused.Load(), Short: c.short.Load(), Pending: c.pending.Load(), Outage: c.outage.Load(),
		Unpriced: c.unpriced.Load(), SetBacks: c.forgotten.Load(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Accounts = len(b.accounts)
	for _, a := range b.accounts {
		a.mu.Lock()
		s.Granted, s.Used, s.Reserved = plus(s.Granted, a.granted), plus(s.Used, a.used), plus(s.Reserved, a.reserved)
		a.mu.Unlock()
	}
	return s
}
