// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// profileLoad puts a load on Weir, without measuring it, and has the processor profiled meanwhile. The files are named for the load.
func (s *suite) profileLoad(ctx context.Context, b *lab, g *gateway, r run) error {
	fmt.Fprintf(s.progress, "profile: %s\n", r.load.about)
	return s.profiled(ctx, g, r.load.name, func() error {
		_, err := b.measure(ctx, g, r)
		return err
	})
}

// profiled has the processor profiled while do runs. The files begin with name.
func (s *suite) profiled(ctx context.Context, g *gateway, name string, do func() error) error {
	if err := syscall.Kill(g.processor, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("begin profile: %w", err)
	}
	if err := do(); err != nil {
		return err
	}
	if err := syscall.Kill(g.processor, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("end profile: %w", err)
	}
	pattern := filepath.Join(s.profile, fmt.Sprintf("%d-*.", g.processor))
	if err := await(ctx, "profile", func() error { // the last of the files
		if found, _ := filepath.Glob(pattern + "allocs.pprof"); len(found) == 0 {
			return errors.New("it is not written")
		}
		return nil
	}); err != nil {
		return err
	}
	files, err := filepath.Glob(pattern + "*.pprof")
	for _, f := range files {
		_, kind, _ := strings.Cut(filepath.Base(f), ".")
		err = errors.Join(err, os.Rename(f, filepath.Join(s.profile, name+"."+kind)))
	}
	return err
}
