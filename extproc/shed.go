// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strconv"
	"sync"
	"time"
)

// ReceivedHeader is where Envoy writes when it received a request, in microseconds since 1970, by the clock of its machine. What a client says
// there Envoy removes.
const ReceivedHeader = "x-weir-received"

// Shedder keeps the wait for a decision short when more requests come than can be decided on. It is told how long each request was on its way from
// Envoy to its decision, and has two means.
//
// [Shedder.Share] says which share of the requests Envoy should refuse by itself, for a twentieth of what serving one costs. It follows from how many requests come
// and how many can be borne: the latter falls while most requests wait for longer than the target, and rises while few do.
//
// [Shedder.Refuse] takes over until Envoy has heard of it: after a tenth of a second that showed an overload, those that waited for more than
// twice the target are refused (the controlled delay of https://queue.acm.org/detail.cfm?id=2839461). That alone would not do, since to be refused here
// costs almost half of what it costs to be served.
//
// That most requests waited is no overload yet: a machine that stood still for a moment makes them wait, too, and then it helps nobody to refuse some. What tells the
// two apart is how many come. More than were ever borne are too many as soon as they wait; as many as usual only if they wait for half a second on end, since
// then the machine has become slower.
type Shedder struct {
	target time.Duration

	mu         sync.Mutex // guards all below
	began      time.Time  // when there was somebody to decide
	interval   tally      // now
	ends       time.Time  // of the interval
	overloaded bool       // what the interval before has shown
	tick       tally      // since the last call of Share
	brought    float64    // share of the requests that Envoy brings, and does not refuse
	demand     demand

	// Of requests between two calls of Share.
	offered  float64 // to Envoy, smoothed
	through  float64 // not refused here, smoothed
	bearable float64 // at most to be brought; zero means that there is no limit
	most     float64 // that ever went through, forgotten slowly

	row row
}

// row counts calls of Share in a row.
type row struct {
	silent int // in which nothing was seen
	late   int // in which most had waited, but for silent ones
	fine   int // in which few had waited
	idle   int // in which all were brought
}

// tally counts requests.
type tally struct{ seen, late, refused int }

// most says whether most of the requests waited too long. Of few it says nothing.
func (t tally) most() bool { return t.seen >= leastSeen && 2*t.late > t.seen }

// few says whether few of the requests waited too long. Of few requests it says nothing.
func (t tally) few() bool { return t.seen >= leastSeen && 4*t.late < t.seen }

const (
	shedInterval = 100 * time.Millisecond // between two calls of Share
	leastSeen    = 10                     // requests in it, to show anything
	leastBrought = 0.02                   // share that Envoy always brings: it shows how things stand
	lateBurst    = 2                      // in a row in which most have waited, are no burst
	largeBurst   = 100                    // late requests in one are none, either
	lateCalls    = 5                      // in a row are an overload, whatever comes
	lateRefused  = 2                      // in a row, and those that waited long are refused here
)

// How Share follows what it sees, with each call. These were found with the model in the tests: of five times the capacity two thirds of it are served, and the waits
// stay near the target; a faster rise makes the waits swing, a faster fall leaves more of the machine idle.
const (
	followUp   = 0.4  // of the difference, when more requests come than before
	followDown = 0.15 // when fewer do: an Envoy that is busy brings none for a while, and then many
	first      = 0.7  // of the most that went through when there was no limit yet, part of which waits still
	fall       = 0.93 // of what can be borne, when most wait too long
	rise       = 0.004
	mostRise   = 0.2
	leastPart  = 0.125 // of the most that ever went through, is always borne: an overload has an end, and then there is less to rise
	forget     = 0.999
	leastFine  = 2  // calls in a row in which few have waited, until there is no limit any more if no more come than were borne before: the machine stood still
	idleCalls  = 10 // after which there is no limit any more
)

// NewShedder returns a shedder that refuses nothing yet. The target must be positive.
func NewShedder(target time.Duration) *Shedder { return &Shedder{target: target, brought: 1} }

// Begin says since when decisions are made. Requests that Envoy received before, as during a restart, had to wait whatever the load is, and are not looked at.
func (s *Shedder) Begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = now
}

// Refuse takes a request into account, and says how long it has waited and whether it is to be refused. The header is Envoy's; without one, or with one that
// makes no sense, the request is not looked at, and known is false.
func (s *Shedder) Refuse(header string, now time.Time) (waited time.Duration, known, refuse bool) {
	us, err := strconv.ParseInt(header, 10, 64)
	if err != nil {
		return 0, false, false
	}
	received := time.UnixMicro(us)
	waited = max(0, now.Sub(received))
	s.mu.Lock()
	defer s.mu.Unlock()
	if received.Before(s.began) {
		return 0, false, false
	}
	if now.After(s.ends) || s.ends.After(now.Add(shedInterval)) { // or the clock was set back
		s.overloaded = s.interval.most() && s.proven(s.interval, lateRefused)
		s.interval, s.ends = tally{}, now.Add(shedInterval)
	}
	s.interval.seen++
	s.tick.seen++
	if waited > s.target {
		s.interval.late++
		s.tick.late++
	}
	if s.overloaded && waited > 2*s.target {
		s.tick.refused++
		return waited, true, true
	}
	return waited, true, false
}

// proven says whether requests of which most have waited show that too many come: because so many have waited, or so often.
func (s *Shedder) proven(t tally, often int) bool {
	return s.bearable > 0 || s.row.late >= often || s.demand.exceeded(t)
}

// Share returns which share of new requests Envoy should refuse without asking, from 0 to 1. It is to be called ten times a second, by one goroutine.
func (s *Shedder) Share(now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tick
	s.tick = tally{}
	s.demand.add(t, now)
	if s.row.silent++; t.seen > 0 {
		s.row.silent = 0
	}
	switch {
	case t.most():
		s.row.late++
	case 2*t.late < t.seen, s.row.silent > idleCalls:
		s.row.late = 0
	}
	if s.row.silent > 0 && s.row.silent <= idleCalls {
		return 1 - s.brought // nobody comes, or Envoy is so busy that it brings none for a while
	}
	follow := followDown
	came := float64(t.seen) / s.brought
	if came > s.offered {
		follow = followUp
	}
	s.offered += follow * (came - s.offered)
	s.through += followUp * (float64(t.seen-t.refused) - s.through)
	s.most = max(s.through, s.most*forget)
	s.learn(t)
	if s.bearable == 0 {
		return 0
	}
	s.brought = max(leastBrought, min(1, s.bearable/max(1, s.offered)))
	if s.row.idle++; s.brought < 1 {
		s.row.idle = 0
	}
	if s.row.idle >= idleCalls {
		s.lift()
	}
	return 1 - s.brought
}

// lift ends the limit, so that all are brought.
func (s *Shedder) lift() { s.bearable, s.brought, s.row.late = 0, 1, 0 }

// learn sets what can be borne by what the last requests have shown.
func (s *Shedder) learn(t tally) {
	switch {
	case t.most() && s.bearable == 0:
		if s.row.late < lateBurst && t.late < largeBurst || !s.proven(t, lateCalls) {
			return
		}
		s.bearable = max(leastSeen, s.most*first)
	case t.most():
		s.bearable = max(leastSeen, s.most*leastPart, s.bearable*fall)
	case t.few():
		s.row.fine++
		s.bearable *= 1 + min(mostRise, rise*float64(s.row.fine))
		if s.row.fine >= leastFine && s.offered <= s.most {
			s.lift()
		}
		return
	default:
		return
	}
	s.row.fine, s.row.idle = 0, 0
}
