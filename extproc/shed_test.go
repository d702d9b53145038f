// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

const shedTarget = 10 * time.Millisecond

// waited is what Envoy writes of a request that has waited for so long.
func waited(now time.Time, d time.Duration) string {
	return strconv.FormatInt(now.Add(-d).UnixMicro(), 10)
}

// refuses is what matters of Refuse to most tests.
func refuses(s *Shedder, header string, now time.Time) bool {
	_, _, refuse := s.Refuse(header, now)
	return refuse
}

// crowded gives a shedder n requests in each tenth of a second, all of which have waited, and returns how many it refused in the last.
func crowded(s *Shedder, now *time.Time, tenths, n int, wait time.Duration) (refused int) {
	for range tenths {
		refused = 0
		for range n {
			if refuses(s, waited(*now, wait), *now) {
				refused++
			}
			*now = now.Add(shedInterval / time.Duration(n))
		}
		*now = now.Add(time.Millisecond)
	}
	return refused
}

// overload gives a shedder as many tenths of a second in which all wait as prove that too many come.
func overload(s *Shedder, now *time.Time) {
	for range lateCalls {
		crowded(s, now, 1, 100, time.Second)
		s.Share(*now)
	}
}

func TestNoRequestIsRefusedForABurst(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range 50 { // each tenth of a second has some that wait, and most that do not
		if n := crowded(s, &now, 1, 40, shedTarget/10); n != 0 {
			t.Fatalf("%d were refused that did not wait", n)
		}
		for range 30 {
			if refuses(s, waited(now, 30*shedTarget), now) {
				t.Fatal("one was refused although most do not wait")
			}
		}
	}
	if share := s.Share(now); share != 0 {
		t.Errorf("Envoy is to refuse %v", share)
	}
}

func TestAMachineThatStandsStillForATenthOfASecondRefusesNobody(t *testing.T) {
	t.Parallel()
	for _, n := range []int{11, 15, 40, 100, 1000} { // come in a tenth of a second
		s, now := NewShedder(shedTarget), noon
		for tenth := range 200 {
			wait := shedTarget / 10
			if tenth%20 < 2 { // it ended as one tenth did, and made those wait that came in the next; also right after the beginning
				wait = 8 * shedTarget
			}
			if refused := crowded(s, &now, 1, n, wait); refused > 0 {
				t.Errorf("of %d in a tenth of a second %d were refused in tenth %d", n, refused, tenth)
			}
			if share := s.Share(now); share > 0 {
				t.Fatalf("of %d in a tenth of a second Envoy is to refuse %v in tenth %d", n, share, tenth)
			}
		}
	}
}

func TestMoreThanUsualThatWaitAreRefusedAfterABurst(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range 20 {
		crowded(s, &now, 1, 100, 0)
		s.Share(now)
	}
	crowded(s, &now, 1, 100, 5*shedTarget)
	if share := s.Share(now); share > 0 {
		t.Errorf("Envoy is to refuse %v of as many as usual", share)
	}
	for range 10 {
		crowded(s, &now, 1, 100, 0)
		s.Share(now)
	}
	crowded(s, &now, 1, 400, 5*shedTarget)
	s.Share(now)
	if n := crowded(s, &now, 1, 400, 5*shedTarget); n < 390 {
		t.Errorf("%d of 400 were refused until Envoy knows", n)
	}
	if share := s.Share(now); share < 0.4 {
		t.Errorf("Envoy is to refuse %v of four times as many as usual", share)
	}
}

func TestALoadThatRisesFarBeyondWhatWasEverBorneIsRefusedAfterABurst(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for _, n := range []int{300, 20} { // at most, and lately
		for range 30 {
			crowded(s, &now, 1, n, 0)
			s.Share(now)
		}
	}
	for range lateBurst {
		crowded(s, &now, 1, 500, 5*shedTarget)
		s.Share(now)
	}
	if share := s.Share(now); share == 0 {
		t.Error("Envoy is to refuse none")
	}
}

func TestAsManyAsUsualThatWaitOnEndAreRefused(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range 20 {
		crowded(s, &now, 1, 100, 0)
		s.Share(now)
	}
	tenths := 0
	for share := 0.0; share == 0 && tenths < 100; tenths++ {
		crowded(s, &now, 1, 100, 5*shedTarget)
		share = s.Share(now)
	}
	if tenths != lateCalls {
		t.Errorf("Envoy is told after %d tenths of a second of a slow machine, want %d", tenths, lateCalls)
	}
}

func TestBurstsNowAndThenAreNoOverload(t *testing.T) {
	t.Parallel()
	for _, between := range []int{0, 1} { // requests in the tenths of a second between them
		s, now := NewShedder(shedTarget), noon
		for range 10 * lateCalls {
			crowded(s, &now, 1, 30, 5*shedTarget)
			for range 2 * idleCalls {
				if share := s.Share(now); share != 0 {
					t.Fatalf("Envoy is to refuse %v", share)
				}
				now = now.Add(shedInterval)
				for range between {
					refuses(s, waited(now, 0), now)
				}
			}
		}
	}
}

func TestALimitThatWasLiftedIsForgotten(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	share := 0.0
	for range 2 * lateCalls {
		crowded(s, &now, 1, 100, 5*shedTarget)
		share = s.Share(now)
	}
	if share == 0 {
		t.Fatal("there is no limit")
	}
	for range 100 {
		crowded(s, &now, 1, 30, 0)
		share = s.Share(now)
	}
	if share != 0 {
		t.Fatalf("Envoy is to refuse %v of a load that does not wait", share)
	}
	for range 30 { // tenths of a second in which nobody comes, and then somebody
		if share := s.Share(now); share != 0 {
			t.Fatalf("Envoy is to refuse %v when nobody comes", share)
		}
		now = now.Add(shedInterval)
	}
}

func TestFewRequestsShowNothing(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range 20 {
		if n := crowded(s, &now, 1, leastSeen/2, time.Second); n != 0 {
			t.Errorf("%d were refused of a machine that stands still", n)
		}
		if share := s.Share(now); share != 0 {
			t.Errorf("Envoy is to refuse %v", share)
		}
	}
}

func TestRequestsThatWaitTooLongAreRefusedWhileMostDo(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range lateRefused {
		if n := crowded(s, &now, 1, 100, 3*shedTarget); n != 0 {
			t.Errorf("%d were refused before anything had shown", n)
		}
		s.Share(now)
	}
	if n := crowded(s, &now, 2, 100, 3*shedTarget); n != 100 {
		t.Errorf("%d of 100 were refused", n)
	}
	if n := crowded(s, &now, 1, 100, 3*shedTarget/2); n != 0 {
		t.Errorf("%d were refused that had waited for less than twice the target", n)
	}
	crowded(s, &now, 1, 100, 0)
	if n := crowded(s, &now, 1, 100, 3*shedTarget); n != 0 {
		t.Errorf("%d were refused after most had not waited", n)
	}
}

func TestRequestsWithoutASensibleTimeAreNotLookedAt(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	overload(s, &now)
	if !refuses(s, waited(now, time.Second), now) {
		t.Error("one that has waited for a second is not refused")
	}
	for _, header := range []string{"", "yesterday", "12.5", "99999999999999999999999"} {
		if refuses(s, header, now) {
			t.Errorf("%q is refused", header)
		}
	}
	if refuses(s, waited(now, -time.Hour), now) {
		t.Error("a request from the future is refused")
	}
}

func TestRequestsFromBeforeTheBeginningAreNotLookedAt(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	s.Begin(now.Add(time.Hour))
	overload(s, &now)
	if n := crowded(s, &now, 3, 100, time.Second); n != 0 {
		t.Errorf("%d were refused that had waited for somebody to decide", n)
	}
	if share := s.Share(now); share != 0 {
		t.Errorf("Envoy is to refuse %v", share)
	}
}

func TestAClockThatIsSetBackEndsTheInterval(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	overload(s, &now)
	now = now.Add(-24 * time.Hour)
	crowded(s, &now, 2, 100, 0)
	if n := crowded(s, &now, 1, 100, 3*shedTarget); n != 0 {
		t.Errorf("%d were refused by what was before the clock was set", n)
	}
}

// model is a gateway on one CPU, whose Envoy works off what has come in turns with the processor, as the sockets between them make them do. Costs are in
// seconds, as measured of Envoy 1.40.
type model struct {
	s           *Shedder
	random      *rand.Rand
	now, next   float64   // what time it is, and when the next request comes
	told, share float64   // the share that Envoy is told next, and the one that it knows
	tick        float64   // when Share is asked next
	came        []float64 // requests that Envoy has not read
	decided     []float64 // requests that are decided on, and Envoy has to serve yet
	served      []float64 // how long each took
	refused     int
	stall       float64 // how long the machine stands still, once, in the next run
}

const (
	toRefuse       = 45e-6 // in Envoy, with a new connection
	toRead         = 100e-6
	toDecide       = 190e-6
	toRefuseLate   = 110e-6 // in the processor, and in Envoy besides
	toServe        = 450e-6
	modelCapacity  = 1 / (toRead + toDecide + toServe)
	modelTold      = 50e-3 // until Envoy knows of another share
	modelTickEvery = 0.1
)

func at(t float64) time.Time { return noon.Add(time.Duration(t * float64(time.Second))) }

// run lets so many requests a second come for so many seconds.
func (m *model) run(rate, seconds float64) {
	m.served, m.refused = nil, 0
	for end := m.now + seconds; m.now < end; {
		m.arrive(rate)
		if len(m.came)+len(m.decided) == 0 {
			m.now = min(m.next, m.now+0.001)
		}
		m.asked()
		type read struct{ came, stamp float64 }
		var brought []read
		for _, came := range m.came {
			if m.random.Float64() < m.share {
				m.now += toRefuse
				m.refused++
				continue
			}
			brought = append(brought, read{came, m.now})
			m.now += toRead
			m.asked()
		}
		for _, came := range m.decided {
			m.now += toServe
			m.served = append(m.served, m.now-came)
		}
		m.came, m.decided = nil, nil
		if m.stall > 0 && len(brought) > 0 && m.random.IntN(50) == 0 {
			m.now += m.stall // of those that Envoy has brought all wait, and what comes meanwhile Envoy finds at once
			m.stall = 0
		}
		m.arrive(rate)
		for _, r := range brought {
			m.asked()
			if refuses(m.s, waited(at(m.now), time.Duration((m.now-r.stamp)*float64(time.Second))), at(m.now)) {
				m.now += toRefuseLate
				m.refused++
				continue
			}
			m.now += toDecide
			m.decided = append(m.decided, r.came)
		}
	}
	slices.Sort(m.served)
}

func (m *model) arrive(rate float64) {
	for m.next = max(m.next, m.now-1); m.next <= m.now; m.next += m.random.ExpFloat64() / rate {
		m.came = append(m.came, m.next)
	}
}

func (m *model) asked() {
	if m.now >= m.tick { // a ticker drops what nobody takes
		m.told = m.s.Share(at(m.now))
		m.tick = max(m.tick+modelTickEvery, m.now)
	}
	if m.now >= m.tick-modelTickEvery+modelTold {
		m.share = m.told
	}
}

func TestMuchMoreThanCanBeBorneLeavesShortWaitsAndMostOfTheCapacity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ times, least float64 }{ // of the capacity come; and are served at least
		"a fifth more": {1.2, 0.8}, "twice": {2, 0.75}, "five times": {5, 0.6}, "ten times": {10, 0.2},
	} {
		for seed := range uint64(5) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m := &model{s: NewShedder(2 * shedTarget), random: rand.New(rand.NewPCG(seed, 0))}
				if m.run(modelCapacity/2, 3); m.refused > 0 || m.told > 0 {
					t.Fatalf("at half of the capacity %d were refused, and Envoy is to refuse %v", m.refused, m.told)
				}
				m.run(c.times*modelCapacity, 3)
				m.run(c.times*modelCapacity, 8)
				if got := float64(len(m.served)) / 8 / modelCapacity; got < c.least {
					t.Fatalf("%.2f of the capacity is served, want at least %.2f", got, c.least)
				}
				if p99 := m.served[len(m.served)*99/100]; p99 > 0.3 {
					t.Errorf("one of a hundred that are served takes %.3f s", p99)
				}
				m.run(modelCapacity/2, 4)
				m.run(modelCapacity/2, 3)
				if m.refused > 0 || m.told > 0 {
					t.Errorf("four seconds after its end %d were refused, and Envoy is to refuse %v", m.refused, m.told)
				}
			})
		}
	}
}

func TestAMachineThatStoodStillRefusesNobodyAtSmallLoad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ load, stood float64 }{
		"a moment at half of the capacity": {0.5, 0.1}, "longer at a third": {0.3, 0.3}, "half a second at a tenth": {0.1, 0.5}, "a moment at a tenth": {0.1, 0.06},
	} {
		for seed := range uint64(20) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m := &model{s: NewShedder(shedTarget), random: rand.New(rand.NewPCG(seed, 0))}
				m.run(c.load*modelCapacity, 3)
				m.stall = c.stood
				m.run(c.load*modelCapacity, 3)
				if m.stall != 0 {
					t.Fatal("it did not stand still")
				}
				if m.refused > 0 {
					t.Errorf("%d of %d were refused", m.refused, m.refused+len(m.served))
				}
			})
		}
	}
}

func TestTheShareLeavesEnoughToSeeHowThingsStand(t *testing.T) {
	t.Parallel()
	s, now := NewShedder(shedTarget), noon
	for range 100 {
		crowded(s, &now, 1, 100, time.Second)
		if share := s.Share(now); share > 1-leastBrought {
			t.Fatalf("the share is %v", share)
		}
	}
	if s.Share(now) == 0 {
		t.Error("Envoy is to refuse nothing")
	}
	for range 60 {
		s.Share(now)
	}
	if share := s.Share(now); share != 0 {
		t.Errorf("six seconds without a request leave a share of %v", share)
	}
}
