// SPDX-License-Identifier: Apache-2.0

package app

import "sync/atomic"

// pulse tells one who rests while no requests come that one has come. A beat costs each request one look at memory that hardly ever changes.
type pulse struct {
	state atomic.Int32
	wake  chan struct{} // receives when the rest is over
}

// The states of a pulse.
const (
	pulseBeat  = iota // a request came
	pulseQuiet        // none, since felt was called
	pulseRest         // none, and somebody is to be woken by the next
)

func newPulse() *pulse { return &pulse{wake: make(chan struct{}, 1)} }

// beat notes a request. It may be called by many goroutines at once.
func (p *pulse) beat() {
	if p.state.Load() == pulseBeat {
		return
	}
	if p.state.Swap(pulseBeat) == pulseRest {
		p.wake <- struct{}{} // there is room: nobody rests before it was taken
	}
}

// felt reports whether there was a beat since it was called last.
func (p *pulse) felt() bool { return p.state.CompareAndSwap(pulseBeat, pulseQuiet) }

// rest has the next beat send to wake, unless there was one since felt was called. Only then it reports true, and wake must be received from before
// it is called again.
func (p *pulse) rest() bool { return p.state.CompareAndSwap(pulseQuiet, pulseRest) }
