// SPDX-License-Identifier: Apache-2.0

// Package profile lets an operator take profiles of a running process, for go tool pprof.
//
// It opens no port. A process that was started with [Variable] in its environment begins a profile when it gets SIGUSR1, and writes
// it to files in that folder when it gets SIGUSR1 again. Between the two it is a few percent slower; before and after, not at all.
package profile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// Variable is the environment variable that names the folder.
const Variable = "WEIR_PROFILE_DIR"

// Rates while a profile is taken.
const (
	mutexFraction = 10      // of contention events, one in so many is kept
	blockRate     = 100_000 // nanoseconds of blocking, of which one event is kept on average
)

// OnSignal serves signals until ctx ends. The n-th profile of process pid is in pid-n.cpu.pprof, .mutex.pprof, .block.pprof and
// .allocs.pprof; the last of these appears last, and all but the first count since the process began. A profile that is under way when ctx ends is dropped.
// It is an error if dir is not a folder.
func OnSignal(ctx context.Context, dir string, log *slog.Logger) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("folder for profiles: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("folder for profiles: %s is not a folder", dir)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	log.Info("profiles are taken between one SIGUSR1 and the next", "dir", dir)
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
		}
		var cpu bytes.Buffer
		if err := begin(&cpu); err != nil {
			return err
		}
		log.Info("profile begun", "n", n)
		select {
		case <-ctx.Done():
			end()
			return nil
		case <-signals:
		}
		end()
		if err := write(dir, n, cpu.Bytes()); err != nil {
			return err
		}
		log.Info("profile written", "n", n, "dir", dir)
	}
}

func begin(cpu *bytes.Buffer) error {
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return fmt.Errorf("begin profile: %w", err)
	}
	runtime.SetMutexProfileFraction(mutexFraction)
	runtime.SetBlockProfileRate(blockRate)
	return nil
}

func end() {
	pprof.StopCPUProfile()
	runtime.SetMutexProfileFraction(0)
	runtime.SetBlockProfileRate(0)
}

func write(dir string, n int, cpu []byte) error {
	name := func(kind string) string {
		return filepath.Join(dir, fmt.Sprintf("%d-%d.%s.pprof", os.Getpid(), n, kind))
	}
	if err := os.WriteFile(name("cpu"), cpu, 0o600); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	for _, kind := range []string{"mutex", "block", "allocs"} {
		f, err := os.OpenFile(name(kind)+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("write profile: %w", err)
		}
		if err := errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close(), os.Rename(f.Name(), name(kind))); err != nil {
			return fmt.Errorf("write profile: %w", err)
		}
	}
	return nil
}
