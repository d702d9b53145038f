// SPDX-License-Identifier: Apache-2.0

package filelock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

func TestOneHasTheLockAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Take(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("took a lock that is taken: %v, want an error of the context", err)
	}
	got := make(chan error, 1)
	go func() {
		again, err := Take(t.Context(), path)
		if err == nil {
			again()
		}
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Errorf("Take after the release: %v", err)
	}
}

func TestPlaceThatIsNotThereIsAnError(t *testing.T) {
	if _, err := Take(t.Context(), filepath.Join(t.TempDir(), "no", "lock")); err == nil {
		t.Error("took a lock in a folder that is not there")
	}
}
