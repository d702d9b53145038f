// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"runtime"
	"time"

	"github.com/weir-proxy/weir/plugins/meter"
)

// Slices of fuel. Between two of them a guest runs without giving way to the garbage collector: 1 µs of ordinary code, and 2.3 ms of code that touches a page
// of memory with each store, which is the dearest thing that a little fuel buys (BenchmarkSlice). Where there are few pages to touch a slice may be longer, which saves a small guest a
// tenth of its time: the kernel copies each page once in a call, and a guest that grows asks for fuel at once.
const (
	slice      = 4 << 10
	wide       = 4              // slices in one, for a guest with little memory
	wideMemory = 3 << 20        // bytes that little memory is; 768 pages
	looksEvery = 32             // slices, between looks at the clock
	yieldEvery = 4 * looksEvery // slices, between chances for other goroutines
)

// call is what the host knows of a call that is under way.
type call struct {
	budget int64 // fuel
	left   int64 // of it, besides what the guest holds
	slices int   // that it was given
	until  time.Time
	done   <-chan struct{} // closed when the caller goes away; may be nil
	now    time.Time       // as the plugin sees it
	tenant int64
	random uint64 // state of random_get
	log    *logs
	input  int          // bytes
	tokens func() int64 // of the request; nil: not known
}

// refuel is called by the guest when its fuel is below zero, and when its memory has grown. It returns what the guest may use next, or does not return.
func (i *instance) refuel(balance int64) int64 {
	c := &i.call
	if balance == meter.StackExhausted {
		panic(&stop{OutOfStack, "its calls went deeper than its stack"})
	}
	if c.left += balance; c.left < 0 {
		panic(&stop{OutOfFuel, fmt.Sprintf("it used up its fuel of %d", c.budget)})
	}
	n := 1
	if i.mod.Memory().Size() <= wideMemory {
		n = wide
	}
	before := c.slices
	c.slices += n
	if c.slices/looksEvery != before/looksEvery {
		c.look(i.plugin.host.clock)
	}
	if c.slices/yieldEvery != before/yieldEvery {
		runtime.Gosched()
	}
	give := min(int64(n)*slice, c.left)
	c.left -= give
	return give
}

// look ends a call that nobody waits for any more, or that takes too long.
func (c *call) look(clock func() time.Time) {
	select {
	case <-c.done:
		panic(&stop{Canceled, "the caller went away"})
	default:
	}
	if clock().After(c.until) {
		panic(&stop{OutOfTime, fmt.Sprintf("it was not done in time, with %d fuel used", c.budget-c.left)})
	}
}

// charge takes fuel for what a helper does.
func (i *instance) charge(n int64) {
	balance := int64(i.fuel.Get()) - n
	if balance < 0 {
		balance = i.refuel(balance)
	}
	i.fuel.Set(uint64(balance))
}

// bytes returns a view of memory that the guest named.
func (i *instance) bytes(at, n uint64) []byte {
	b, ok := i.mod.Memory().Read(uint32(at), uint32(n))
	if !ok {
		panic(&stop{BadPointer, fmt.Sprintf("it names %d bytes at address %d, which are not in its memory of %d", uint32(n), uint32(at), i.mod.Memory().Size())})
	}
	return b
}

// LogLine is a line that a plugin logged.
type LogLine struct {
	Level   int // 0 debug, 1 info, 2 warn, 3 error
	Message string
}

// logs are the lines of a call.
type logs struct {
	limits  *Limits
	lines   []LogLine
	bytes   int
	dropped int
}

func (l *logs) add(level int, message []byte) {
	if len(l.lines) >= l.limits.LogLines || l.bytes+len(message) > l.limits.LogBytes {
		l.dropped++
		return
	}
	l.bytes += len(message)
	l.lines = append(l.lines, LogLine{min(max(level, 0), 3), string(message)})
}
