// SPDX-License-Identifier: Apache-2.0

// Package filelock lets one process at a time do a thing on this machine. A lock is a file that is locked: it ends with the process that has it, however that
// dies, and the file stays, since removing it would let two processes hold two locks.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// interval is between two tries.
const interval = 50 * time.Millisecond

// Take waits until the file at path, which is made if need be, is locked by this process and returns what ends that. The error tells of a file that
// cannot be opened or locked, or is that of ctx, if it ends first. Any number of goroutines and processes may call it.
func Take(ctx context.Context, path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // holds nothing
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil //nolint:errcheck,gosec // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the process that has locked %s: %w", path, ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}
