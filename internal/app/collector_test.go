// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// TestEachCollectionIsToldOf: again and again, until the context ends.
func TestEachCollectionIsToldOf(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	collected := collections(ctx)
	for i := range 5 {
		runtime.GC()
		select {
		case <-collected:
		case <-time.After(20 * time.Second):
			t.Fatalf("collection %d was not told of", i)
		}
	}
	cancel()
}

func TestCollectorLeavesLessGarbageWhenMuchIsAlive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 400}, {10 << 20, 400}, {16 << 20, 400}, {32 << 20, 200}, {40 << 20, 150}, {64 << 20, 100}, {100 << 20, 50}, {200 << 20, 25}, {1 << 30, 25}} {
		if got := collectorPercent(c.live); got != c.want {
			t.Errorf("with %d MiB alive: %d percent, want %d", c.live>>20, got, c.want)
		}
		if garbage := c.live * uint64(collectorPercent(c.live)) / 100; garbage > max(garbageBytes, c.live/4) {
			t.Errorf("with %d MiB alive there may be %d MiB of garbage", c.live>>20, garbage>>20)
		}
	}
}
