// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// The simulation runs the real Book and the real Allot in five processors, with a bank, a journal, a log and an Envoy each that behave as those of
// this program do, in a time of its own. A seed is a schedule: of requests, of their costs, of messages that are late or lost, of processors and Envoys that
// are killed, of clocks that are wrong, of networks that are cut, of a bank that is away or is set back.

// faults say what may happen.
type faults struct {
	crashes, partitions, skew, outages, setBacks bool
	under                                        bool          // some exchanges cost more than was reserved
	releaseAfter                                 time.Duration // a mistake of the bank
	settleFirst                                  bool          // a mistake: ends are told before their rows are in the bank
}

// line is a line of an Envoy's log.
type line struct {
	exchange uuid.UUID
	charges  policy.Charges
	cost     int64
}

// flight is an exchange that is under way.
type flight struct {
	line
	end int // tick
}

// processor is one of the five, with its disk and its Envoy.
type processor struct {
	n       int
	holder  uuid.UUID
	book    *Book // nil: dead
	back    int   // tick at which it starts again
	skew    time.Duration
	cut     int // tick until which it cannot reach the bank
	join    bool
	message *message // under way
	stuck   int      // tick until which its log is not read, as there is much before it

	log     []line                       // survives
	journal map[uuid.UUID]policy.Charges // survives
	flights []flight                     // of its Envoy, which survives the processor
	doomed  map[uuid.UUID]int            // survives: the tick at which exchanges without a line are given up
	held    map[uuid.UUID]bool           // of the journal: they have a row that the bank may forget, in this life
}

// message is a request to the bank that is under way.
type message struct {
	request Request
	reply   Reply
	err     error
	arrive  int // tick at which the bank sees it; -1: it has
	back    int // tick at which the answer is there
	lost    bool
}

type world struct {
	rand  *rand.Rand
	f     faults
	tick  int
	begin time.Time
	bank  *bank
	up    bool
	saved *books // what the bank may be set back to
	ps    []*processor
	index func() *Index

	truth     map[policy.Account]int64 // what providers were paid
	excess    map[policy.Account]int64 // by how much exchanges cost more than was reserved, all in all
	forgotten map[policy.Account]int64 // by how much leases shrank when the bank was set back
	worst     int64                    // spent beyond credit and what may be
	over      int64                    // spent beyond credit
	admitted  int
	refused   map[string]int
	exchanges uint64
	calm      bool // faults are over
	small     bool // only small requests come
}

const (
	simTick  = 50 * time.Millisecond
	simUSD   = int64(NanoUSD)
	simKeys  = 3
	simCount = 5
)

func newWorld(seed uint64, f faults) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 7)), f: f, begin: time.Date(2026, 11, 22, 23, 58, 0, 0, time.UTC), up: true,
		truth: make(map[policy.Account]int64), excess: make(map[policy.Account]int64), forgotten: make(map[policy.Account]int64),
		refused: make(map[string]int),
	}
	budgets := []Budget{
		{ID: 1, Key: 1, Tenant: 1, Amount: 1 * simUSD, Period: Never},
		{ID: 2, Key: 2, Tenant: 1, Amount: 2 * simUSD, Period: Day},
		{ID: 3, Tenant: 1, Amount: 2 * simUSD, Period: Month},
		{ID: 4, Tenant: 2, Amount: 4 * simUSD, Period: Never},
	}
	w.index = func() *Index {
		x, err := NewIndex([]Tenant{{ID: 1, Parent: 2}, {ID: 2}}, budgets)
		if err != nil {
			panic(err)
		}
		return x
	}
	credit := make(map[int64]int64)
	for _, b := range budgets {
		credit[b.ID] = b.Amount
	}
	w.bank = newBank(credit, w.now)
	w.bank.releaseAfter = f.releaseAfter
	for n := range simCount {
		p := &processor{n: n, holder: w.newID(), journal: make(map[uuid.UUID]policy.Charges), doomed: make(map[uuid.UUID]int)}
		w.ps = append(w.ps, p)
		w.start(p)
	}
	return w
}

func (w *world) now() time.Time { return w.begin.Add(time.Duration(w.tick) * simTick) }

func (w *world) newID() (id uuid.UUID) {
	w.exchanges++
	binary.BigEndian.PutUint64(id[8:], w.exchanges)
	binary.BigEndian.PutUint64(id[0:], w.rand.Uint64())
	return id
}

func (w *world) chance(n int) bool { return !w.calm && w.rand.IntN(n) == 0 }

// start begins a life of a processor.
func (w *world) start(p *processor) {
	p.book = New(Options{Clock: func() time.Time { return w.now().Add(p.skew) }})
	p.book.SetHolder(p.holder)
	p.book.SetIndex(w.index())
	p.join, p.message, p.held = true, nil, make(map[uuid.UUID]bool)
	if w.chance(2) {
		p.stuck = w.tick + w.rand.IntN(200)
	}
	for _, id := range slices.SortedFunc(maps.Keys(p.journal), compareIDs) {
		p.book.Leave(id, p.journal[id])
	}
}

func compareIDs(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }

// kill ends a life: what is in memory is gone, also what was under way to the bank, unless that gets there all the same.
func (w *world) kill(p *processor) {
	if m := p.message; m != nil && m.arrive >= 0 && w.up && w.rand.IntN(2) == 0 {
		_, _ = w.bank.sync(m.request)
	}
	p.book, p.message = nil, nil
	p.back = w.tick + w.rand.IntN(600)
}

func (w *world) reaches(p *processor) bool { return w.up && w.tick >= p.cut }

// step lets one tick pass.
func (w *world) step() {
	w.tick++
	w.disturb()
	w.bank.tend()
	for _, p := range w.ps {
		if p.book == nil {
			if w.tick >= p.back {
				w.start(p)
			}
		} else {
			w.request(p)
			w.converse(p)
		}
		w.finish(p)
		if p.book != nil {
			w.ship(p)
		}
	}
}

// disturb lets things go wrong.
func (w *world) disturb() {
	if w.f.outages && w.chance(700) {
		w.up = !w.up
	}
	if w.f.setBacks {
		switch {
		case w.saved == nil && w.chance(200):
			w.saved = w.bank.clone()
		case w.saved != nil && w.chance(300):
			w.setBack()
		}
	}
	p := w.ps[w.rand.IntN(len(w.ps))]
	if w.f.crashes && p.book != nil && w.chance(150) {
		w.kill(p)
	}
	if w.f.crashes && w.chance(700) { // its Envoy: the exchanges under way get no line
		for _, f := range p.flights {
			p.doomed[f.exchange] = w.tick + 400
		}
		p.flights = nil
	}
	if w.f.partitions && w.chance(300) {
		p.cut = w.tick + w.rand.IntN(400)
	}
	if w.f.skew && w.chance(400) {
		p.skew = time.Duration(w.rand.Int64N(int64(10*time.Minute))) - 5*time.Minute
	}
}

// setBack restores what was saved, and notes by how much leases shrank.
func (w *world) setBack() {
	for k, l := range w.bank.leases {
		old := w.saved.leases[k]
		w.forgotten[k.Account] += max(max(l.granted, l.spent)-max(old.granted, old.spent), 0)
	}
	w.bank.books, w.saved = w.saved, nil
}

// request lets clients come.
func (w *world) request(p *processor) {
	for range w.rand.IntN(3) {
		cost := 1 + w.rand.Int64N(simUSD/200)
		if w.small {
			cost = 1 + w.rand.Int64N(simUSD/1000)
		}
		d := &policy.Demand{
			Exchange: w.newID(), Key: &policy.Key{ID: policy.KeyID(1 + w.rand.IntN(simKeys)), Tenant: 1},
			Estimate: policy.Estimate{Cost: cost, Price: 1},
		}
		if _, denial := p.book.Reserve(d); denial != nil {
			w.refused[denial.Code]++
			continue
		}
		if !w.calm && w.rand.IntN(50) == 0 {
			p.book.Cancel(d.Exchange)
			continue
		}
		w.admit(p, d, cost)
	}
}

func (w *world) admit(p *processor, d *policy.Demand, cost int64) {
	w.admitted++
	actual := cost - w.rand.Int64N(cost)
	if w.f.under && w.rand.IntN(20) == 0 {
		actual = cost + w.rand.Int64N(simUSD/100)
	}
	c := d.Charged()
	p.journal[d.Exchange] = c
	p.flights = append(p.flights, flight{line{d.Exchange, c, actual}, w.tick + 1 + w.rand.IntN(60)})
	for _, a := range c.Accounts {
		w.truth[a] += actual
		w.excess[a] += max(actual-cost, 0)
		over := w.truth[a] - w.bank.credit[a.Budget]
		w.over = max(w.over, over)
		w.worst = max(w.worst, over-w.excess[a]-w.forgotten[a])
	}
}

// finish lets exchanges end: their lines are written, whether or not the processor lives.
func (w *world) finish(p *processor) {
	p.flights = slices.DeleteFunc(p.flights, func(f flight) bool {
		if f.end > w.tick {
			return false
		}
		p.log = append(p.log, f.line)
		return true
	})
}

// ship posts what the log holds, and resolves what has no line.
func (w *world) ship(p *processor) {
	if !w.reaches(p) || w.tick < p.stuck || w.rand.IntN(5) > 0 {
		return
	}
	from := w.bank.positions[p.n]
	if w.f.settleFirst && w.rand.IntN(2) == 0 {
		for _, l := range p.log[from:] {
			p.book.Settle(l.exchange, l.cost)
		}
		p.stuck = w.tick + w.rand.IntN(200)
		return
	}
	w.bank.post(p.n, p.log, len(p.log))
	for _, l := range p.log[from:] {
		if _, open := p.journal[l.exchange]; !open {
			continue // posted before
		}
		delete(p.journal, l.exchange)
		if w.rand.IntN(3) == 0 {
			p.book.SettleAny(l.exchange) // as if another had posted it
		} else {
			p.book.Settle(l.exchange, l.cost)
		}
	}
	p.book.Drained()
	for _, id := range slices.SortedFunc(maps.Keys(p.doomed), compareIDs) {
		if p.doomed[id] > w.tick {
			continue
		}
		w.bank.resolve(id, p.journal[id])
		if !p.held[id] {
			p.held[id] = true
			p.book.SettleAny(id)
		}
	}
}

var errSimulated = errors.New("simulated")

// converse is what a processor's runner does.
func (w *world) converse(p *processor) {
	if p.join {
		if w.reaches(p) {
			p.book.Joined(w.bank.join(p.holder))
			p.join = false
		} else {
			p.book.Failed(Request{}, errSimulated)
		}
		return
	}
	m := p.message
	if m == nil {
		r, due := p.book.Next()
		if !due {
			return
		}
		m = &message{request: r, arrive: w.tick + w.rand.IntN(3), lost: w.chance(20)}
		m.back = m.arrive + w.rand.IntN(5)
		if w.chance(30) {
			m.back += 100
		}
		p.message = m
	}
	if m.arrive >= 0 && w.tick >= m.arrive {
		m.err = errSimulated
		if w.reaches(p) {
			m.reply, m.err = w.bank.sync(m.request)
		}
		m.arrive = -1
	}
	if m.arrive >= 0 || w.tick < m.back {
		return
	}
	p.message = nil
	switch {
	case m.err != nil:
		p.book.Failed(m.request, m.err)
	case m.lost || !w.reaches(p):
		p.book.Failed(m.request, errSimulated)
	default:
		p.book.Granted(m.request, m.reply)
	}
}

// run lets everything go wrong, then nothing, and small requests take what is left. It returns by how many dollars the bank's books fall short of the budgets
// that bind.
func (w *world) run(ticks int) (left string) {
	for range ticks {
		w.step()
	}
	w.calm, w.up = true, true
	for _, p := range w.ps {
		p.cut, p.skew = 0, 0
		if p.book != nil && w.f.setBacks {
			w.kill(p) // who was told of a bank that was set back counts generously until then
		}
	}
	for range 600 {
		w.step()
	}
	w.small = true
	for range 1200 {
		w.step()
	}
	return w.left()
}

// left says which key could spend more than a hundredth of a budget that nothing above it keeps it from.
func (w *world) left() string {
	for key := policy.KeyID(1); key <= simKeys; key++ {
		bound := false
		said := ""
		for _, p := range w.index().over(nil, key, 1) {
			a, _ := p.AccountAt(w.now(), p.zone)
			spent := w.bank.state(a, uuid.Nil).Spent
			bound = bound || spent >= p.Amount/100*99
			said += fmt.Sprintf(" %d: %s of %s,", p.ID, FormatUSD(spent), FormatUSD(p.Amount))
		}
		if !bound {
			return fmt.Sprintf("key %d could not spend 99 %% of any budget:%s", key, said)
		}
	}
	return ""
}

// check compares the bank's books with the sums of its rows.
func (w *world) check() error {
	sums := make(map[leaseKey]int64)
	for _, r := range w.bank.rows {
		for _, a := range r.charges.Accounts {
			sums[leaseKey{a, r.charges.Holder}] += r.cost
		}
	}
	for k, l := range w.bank.leases {
		if l.spent != sums[k] {
			return fmt.Errorf("lease %v has %d as spent, its rows %d", k, l.spent, sums[k])
		}
	}
	return nil
}

func simulate(t *testing.T, name string, seeds int, f faults, check func(seed uint64, w *world, left string)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		admitted := 0
		for seed := range uint64(seeds) {
			w := newWorld(seed, f)
			left := w.run(2500)
			if err := w.check(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			admitted += w.admitted
			check(seed, w, left)
		}
		t.Logf("%d seeds, %d exchanges", seeds, admitted)
	})
}
