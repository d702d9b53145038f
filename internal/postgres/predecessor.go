// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// predecessorGrace is how long a server gets to end that runs on the data already: it may be ending because its parent died.
const predecessorGrace = 5 * time.Second

// awaitPredecessor returns when no server runs on the data any more. The lock file of one that was killed is removed when its
// process id has gone to another program since, which Postgres would take for the server.
func awaitPredecessor(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, predecessorGrace)
	defer cancel()
	file := filepath.Join(data, "postmaster.pid")
	for {
		b, err := os.ReadFile(file) //nolint:gosec // a file of ours
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil || pid <= 0 {
			return remove(file) // torn when it was written
		}
		running, err := serves(pid, data)
		if err != nil {
			return err
		}
		if !running {
			return remove(file)
		}
		if sleep(ctx, readyPoll) != nil {
			return fmt.Errorf("a server (process %d) runs on %s already: stop it, or the weir that started it, first", pid, data)
		}
	}
}

// remove removes a file that may have gone by itself.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
