// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/test/rig"
)

// restartAfter is how soon a processor that ended by itself is started again.
const restartAfter = 200 * time.Millisecond

// keeper keeps a processor running, as systemd does.
type keeper struct {
	rig  *rig.Rig
	stop func() // ends the processor and the keeper

	mu      sync.Mutex // guards all below
	pid     int        // zero while there is none
	ordered bool       // the processor was told to end
	pause   time.Duration
	deaths  int   // how often a processor ended by itself since the last look
	err     error // of a processor that could not be started
}

// keep takes over the processor that the rig has started.
func keep(r *rig.Rig) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{rig: r, pid: r.ProcessorPID()}
	done := make(chan struct{})
	k.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		k.run(ctx)
	}()
	return k
}

func (k *keeper) run(ctx context.Context) {
	for {
		p := k.rig.Processor()
		select {
		case <-p.Done():
		case <-ctx.Done():
			p.Stop(syscall.SIGTERM, 15*time.Second)
			return
		}
		pause := time.NewTimer(k.ended())
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		p, err := k.rig.LaunchProcessor()
		k.mu.Lock()
		if k.err = err; err == nil {
			k.pid = p.PID()
		}
		k.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// ended notes that the processor is gone, and says when to start the next.
func (k *keeper) ended() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pid = 0
	if !k.ordered {
		k.deaths++
		return restartAfter
	}
	k.ordered = false
	return k.pause
}

// signal ends the processor, if there is one. The next starts when pause has passed after its end.
func (k *keeper) signal(sig syscall.Signal, pause time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pid == 0 {
		return
	}
	k.ordered, k.pause = true, pause
	_ = syscall.Kill(k.pid, sig) // it may have ended this moment
}

// took returns how often a processor ended by itself since the last call, and why none could be started.
func (k *keeper) took() (deaths int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	deaths, k.deaths = k.deaths, 0
	return deaths, k.err
}
