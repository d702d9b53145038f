// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// The simulation runs limiters as they are, against a board in memory, under a time of its own. Everything that happens comes from one seed.

// world is a limit, its replicas, and what befalls them.
type world struct {
	t      *testing.T
	random *rand.Rand
	now    time.Duration
	limit  Limit
	board  *memoryBoard
	all    []*replica
	events events
	order  int

	demand   func(now time.Duration) []float64 // of each replica's clients, in requests a second
	admitted []time.Duration
	offered  int
	restarts int
	worstSum float64 // of shares
}

type event struct {
	at    time.Duration
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now + d, w.order, do})
}

// replica is a processor with its limiter.
type replica struct {
	w       *world
	id      uuid.UUID
	offset  time.Duration // of its clock
	speed   float64       // of its clock
	limiter *Limiter
	strict  bool
	up      bool
	cut     bool // from the board
	life    int
	part    float64 // as its disk has it
}

// epoch is when the simulated time begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (r *replica) clock() time.Time {
	return epoch.Add(r.offset + time.Duration(float64(r.w.now)*r.speed))
}

func (r *replica) start() {
	r.up = true
	r.life++
	r.limiter = New(Options{Clock: r.clock, Replica: r.id, Part: r.part, Strict: r.strict})
	table, err := NewTable([]Limit{r.w.limit})
	if err != nil {
		r.w.t.Fatal(err)
	}
	r.limiter.SetTable(table)
	life := r.life
	next, _ := iter.Pull(r.rounds(life))
	var step func()
	step = func() {
		if r.life != life || !r.up {
			return // a process that is dead: what it had begun stays as it is
		}
		if wait, ok := next(); ok {
			r.w.after(wait, step)
		}
	}
	step()
}

func (r *replica) crash() {
	r.up = false
	if r.w.board.holder == r {
		r.w.board.holder = nil // the database notices that the connection is gone
	}
}

// rounds goes to the board again and again; it yields how long to wait until it goes on.
func (r *replica) rounds(life int) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		b := &connection{r: r, yield: yield}
		for r.life == life {
			err := r.limiter.Round(context.Background(), b)
			if err == nil {
				r.part = r.limiter.Part()
			}
			pause := Interval
			if !r.limiter.Joined() {
				pause = Interval / 5
			}
			if !yield(time.Duration(float64(pause) * (0.9 + r.w.random.Float64()/5))) {
				return
			}
		}
	}
}

// memoryBoard is a [Board] for the simulation.
type memoryBoard struct {
	w       *world
	down    bool
	unknown float64 // how often it is not known whether a round was written
	holder  *replica
	met     time.Duration
	since   time.Duration
	members map[uuid.UUID]memberRow
	claims  map[uuid.UUID]map[Bucket]claimRow
	pots    map[Bucket]potRow
}

type memberRow struct {
	part float64
	at   time.Duration
}

type claimRow struct {
	share, want float64
	level       [4]float64
	at          time.Duration
}

type potRow struct {
	tokens [4]float64
	at     time.Duration
}

type connection struct {
	r     *replica
	yield func(time.Duration) bool
}

var errAway = errors.New("the board cannot be reached")

func (c *connection) Meet(_ context.Context, id uuid.UUID, decide func(*State) *Notice) error {
	b := c.r.w.board
	lag := func() time.Duration {
		return time.Duration(c.r.w.random.ExpFloat64() * float64(5*time.Millisecond))
	}
	c.yield(lag())
	if c.r.cut || b.down {
		return errAway
	}
	for b.holder != nil {
		c.yield(time.Millisecond)
		if c.r.cut || b.down {
			return errAway
		}
	}
	b.holder = c.r
	c.yield(lag())
	notice := decide(b.read())
	c.yield(lag())
	lost := c.r.w.random.Float64() < b.unknown
	if !lost || c.r.w.random.IntN(2) == 0 {
		if !c.r.cut && !b.down {
			b.write(id, notice)
		} else {
			lost = true
		}
	}
	b.holder = nil
	c.yield(lag())
	if lost || c.r.cut || b.down {
		return errAway
	}
	return nil
}

func (b *memoryBoard) read() *State {
	if b.w.now-b.met > Lease {
		b.since = b.w.now
	}
	b.met = b.w.now
	s := &State{Awake: b.w.now - b.since}
	for id, m := range b.members {
		s.Members = append(s.Members, Member{Replica: id, Part: m.part, Age: b.w.now - m.at})
	}
	for id, all := range b.claims {
		for at, c := range all {
			s.Claims = append(s.Claims, Claim{Replica: id, Bucket: at, Share: c.share, Want: c.want, Level: c.level, Age: b.w.now - c.at})
		}
	}
	for at, p := range b.pots {
		s.Pots = append(s.Pots, Pot{Bucket: at, Tokens: p.tokens, Age: b.w.now - p.at})
	}
	return s
}

func (b *memoryBoard) write(id uuid.UUID, n *Notice) {
	b.members[id] = memberRow{n.Part, b.w.now}
	b.claims[id] = make(map[Bucket]claimRow)
	for _, c := range n.Claims {
		b.claims[id][c.Bucket] = claimRow{c.Share, c.Want, c.Level, b.w.now}
	}
	for _, p := range n.Pots {
		b.pots[p.Bucket] = potRow{p.Tokens, b.w.now}
	}
	for _, gone := range n.Gone {
		delete(b.members, gone)
		delete(b.claims, gone)
	}
}

// newWorld has replicas that have found each other.
func newWorld(t *testing.T, seed uint64, replicas int, l Limit) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, seed)), limit: l}
	w.board = &memoryBoard{
		w: w, members: make(map[uuid.UUID]memberRow), claims: make(map[uuid.UUID]map[Bucket]claimRow), pots: make(map[Bucket]potRow),
	}
	for range replicas {
		w.join(1)
	}
	w.demand = func(time.Duration) []float64 { return nil }
	w.run(5 * time.Second)
	for i, r := range w.all {
		if !r.limiter.Joined() || math.Abs(r.limiter.Part()-1/float64(replicas)) > 1e-6 {
			t.Fatalf("replica %d holds %v of everything after five seconds", i, r.limiter.Part())
		}
	}
	return w
}

func (w *world) join(speed float64) *replica {
	r := &replica{w: w, speed: speed, offset: time.Duration(w.random.Int64N(int64(time.Hour)))}
	binary.BigEndian.PutUint64(r.id[:], w.random.Uint64())
	w.all = append(w.all, r)
	r.start()
	return r
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now + d
	const tick = 5 * time.Millisecond
	for w.now < end {
		w.now += tick
		for len(w.events) > 0 && w.events[0].at <= w.now {
			heap.Pop(&w.events).(event).do()
		}
		for i, rate := range w.demand(w.now) {
			if r := w.all[i]; r.up && r.limiter.Joined() {
				for range w.arrivals(rate * tick.Seconds()) {
					w.request(r)
				}
			}
		}
		w.check()
	}
}

func (w *world) arrivals(mean float64) int {
	n, p, limit := 0, 1.0, math.Exp(-mean)
	for {
		if p *= w.random.Float64(); p <= limit {
			return n
		}
		n++
	}
}

func (w *world) request(r *replica) bool {
	w.offered++
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[8:], uint64(w.offered))
	d := &policy.Demand{Exchange: id, Tenant: &policy.Tenant{ID: 1}, Key: &policy.Key{ID: 2}, Model: "m"}
	if _, denial := r.limiter.Reserve(d); denial != nil {
		return false
	}
	r.limiter.Settle(id, 0, 0)
	w.admitted = append(w.admitted, w.now)
	return true
}

// check looks at what all hold together.
func (w *world) check() {
	sum := 0.0
	for _, r := range w.all {
		if r.up && r.limiter.Joined() {
			sum += r.share()
		}
	}
	w.worstSum = max(w.worstSum, sum)
}

func (r *replica) share() float64 {
	at := Bucket{Limit: r.w.limit.ID}
	s := r.limiter.shardOf(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[at]
	if b == nil {
		return s.part.fraction
	}
	b.advance(r.limiter.now(), s.part)
	return r.limiter.heldLocked(s, b, r.limiter.now())
}

// worstWindow returns how many were admitted in the busiest time of this length.
func (w *world) worstWindow(d time.Duration) int {
	worst, first := 0, 0
	for i, at := range w.admitted {
		for w.admitted[first] <= at-d {
			first++
		}
		worst = max(worst, i-first+1)
	}
	return worst
}

func (w *world) count(from, to time.Duration) int {
	n := 0
	for _, at := range w.admitted {
		if at > from && at <= to {
			n++
		}
	}
	return n
}

// overload is five times the limit of 600 requests a minute.
const overload = 50.0

var simulated = Limit{ID: 1, Key: 2, Rates: Rates{Requests: 600}}

func seeds(t *testing.T) []uint64 {
	t.Helper()
	n := 3
	if testing.Short() {
		n = 1
	}
	if more, err := strconv.Atoi(os.Getenv("WEIR_SEEDS")); err == nil {
		n = more
	}
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	if one, err := strconv.ParseUint(os.Getenv("WEIR_SEED"), 10, 64); err == nil {
		return []uint64{one}
	}
	return all
}

func TestOverloadOfThreeReplicasIsHeldToTheLimit(t *testing.T) {
	t.Parallel()
	demands := map[string]func(now time.Duration) []float64{
		"even":     func(time.Duration) []float64 { return []float64{overload / 3, overload / 3, overload / 3} },
		"skewed":   func(time.Duration) []float64 { return []float64{overload * 0.9, overload * 0.09, overload * 0.01} },
		"lopsided": func(time.Duration) []float64 { return []float64{overload, overload / 50, overload / 50} },
		"dripping": func(time.Duration) []float64 { return []float64{overload, overload / 200, overload / 20} },
		"one":      func(time.Duration) []float64 { return []float64{overload, 0, 0} },
		"moving": func(now time.Duration) []float64 {
			d := make([]float64, 3)
			d[int(now/(20*time.Second))%3] = overload
			return d
		},
	}
	for name, demand := range demands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, seed := range seeds(t) {
				w := newWorld(t, seed, 3, simulated)
				from := w.now
				w.demand = demand
				w.run(10 * time.Minute)
				if got := w.count(from, w.now); got < 5880 || got > 6120 {
					t.Errorf("seed %d: %d of %d admitted in ten minutes, want 6000 ± 2 %%", seed, got, w.offered)
				}
				// What had gathered before is gone after the first minute, and the rest of the time must be within 2 % as well.
				if got := w.count(from+time.Minute, w.now); got < 5292 || got > 5508 {
					t.Errorf("seed %d: %d admitted in the last nine minutes, want 5400 ± 2 %%", seed, got)
				}
				if got := w.worstWindow(time.Minute); got > 700 {
					t.Errorf("seed %d: %d admitted within a minute, want at most 600 + 100", seed, got)
				}
				if w.worstSum > 1+1e-6 {
					t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
				}
			}
		})
	}
}

func (w *world) String() string {
	return fmt.Sprintf("%d of %d admitted, %d at most in a minute, shares %v", len(w.admitted), w.offered, w.worstWindow(time.Minute), w.worstSum)
}
