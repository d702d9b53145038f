// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The processor's live heap is small and short-lived messages are most of what it allocates, so collecting less often costs some tens
// of megabytes and saves CPU on each request. When much is alive, as while a long outage of Postgres is caught up with, the same share would be
// hundreds of megabytes: so the garbage between two collections is at most garbageBytes, or a quarter of what is alive. That is looked at after each collection, since
// what is alive can grow by tens of megabytes in a second, and is known only then. The limit takes over where large bodies pile up. GOGC and GOMEMLIMIT win over all of this.
const (
	gcMost       = 400 // percent of what is alive
	gcLeast      = 25  // intents hold no pointers, so marking them costs little
	garbageBytes = 64 << 20
	memoryLimit  = 2 << 30 // bytes
)

// tuneCollector sets the collector's pace until ctx ends.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(gcMost)
	collected := collections(ctx)
	go func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		percent := gcMost
		for {
			select {
			case <-ctx.Done():
				return
			case <-collected:
			}
			metrics.Read(live)
			if now := collectorPercent(live[0].Value.Uint64()); now != percent {
				percent = now
				debug.SetGCPercent(percent)
			}
		}
	}()
}

// collections returns a channel that receives after each collection, once for several that nobody has received, until ctx ends.
func collections(ctx context.Context) <-chan struct{} {
	collected := make(chan struct{}, 1)
	var await func()
	await = func() {
		garbage := new([64]byte) // which the next collection finds
		runtime.AddCleanup(garbage, func(struct{}) {
			select {
			case collected <- struct{}{}:
			default:
			}
			if ctx.Err() == nil {
				await()
			}
		}, struct{}{})
	}
	await()
	return collected
}

// collectorPercent returns how much garbage there may be, in percent of the bytes that were alive at the last collection. It changes in steps: each change
// stops the world for a moment.
func collectorPercent(live uint64) int {
	const step = 50
	percent := garbageBytes * 100 / max(live, 1)
	return int(min(max(percent/step*step, gcLeast), gcMost)) //nolint:gosec // it is at most gcMost
}
