// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// hinted is an error with advice to the operator.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// databaseForm is the hint for an address that cannot be understood.
const databaseForm = "DATABASE_URL has the form postgres://user:password@host:port/database"

// makeFolders makes the folders that a program keeps its files in.
func makeFolders(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return hinted{
				fmt.Errorf("make folder: %w", err),
				"state_dir, envoy.log_dir and processor.socket say where folders are wanted: make this one, or let the user that weir runs as make it",
			}
		}
	}
	return nil
}

// listenTCP listens where a key of the configuration says.
func listenTCP(ctx context.Context, key, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	err = fmt.Errorf("%s: %w", key, err)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, hinted{err, "another program listens there, and ss -ltnp names it: stop it, or set another " + key}
	}
	return nil, err
}

// fetchPatience is how long nothing need be said to people while something may be fetched.
const fetchPatience = 2 * time.Second

// fetching runs find, which may have pip fetch something, and tells why nothing seems to happen if that takes its time.
func fetching[T any](log *slog.Logger, what, dir string, find func() (T, error)) (T, error) {
	patience := time.AfterFunc(fetchPatience, func() { log.Info("fetching by pip, once", "what", what, "into", dir) })
	defer patience.Stop()
	return find()
}
