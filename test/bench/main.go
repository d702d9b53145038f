// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == continueCommand {
		exit(serveContinue(ctx, os.Args[2]))
	}
	o, err := parseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	exit(bench(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench measures, and prints and keeps what it found.
func bench(ctx context.Context, o options) error {
	if o.profile != "" {
		dir, err := filepath.Abs(o.profile)
		if err != nil {
			return err
		}
		if o.profile = dir; os.MkdirAll(dir, 0o755) != nil {
			return fmt.Errorf("make folder for profiles: %w", err)
		}
	}
	site, err := newSite(ctx, o)
	if err != nil {
		return err
	}
	all := &results{Machine: describe(ctx, site, os.Args[1:])}
	s := suite{options: o, site: site, out: all, progress: os.Stderr}
	err = s.run(ctx)
	report{options: o, results: all, w: os.Stdout}.print()
	if o.json != "" {
		b, jsonErr := json.MarshalIndent(all, "", "  ")
		if jsonErr == nil {
			jsonErr = os.WriteFile(o.json, append(b, '\n'), 0o644)
		}
		err = errors.Join(err, jsonErr)
	}
	return errors.Join(append(all.faults, err)...)
}
