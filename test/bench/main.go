// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
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
		os.Exit(2) //nolint:gocritic // the process ends here
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
	if err := openFiles(uint64(max(2*o.streams, o.idle) + spareFiles)); err != nil {
		return err
	}
	site, err := newSite(ctx, o)
	if err != nil {
		return err
	}
	all := &results{Machine: describe(ctx, site)}
	s := suite{options: o, site: site, out: all, progress: os.Stderr}
	err = s.run(ctx)
	var text bytes.Buffer
	report{options: o, results: all, w: &text}.print()
	_, printErr := os.Stdout.Write(text.Bytes())
	return errors.Join(append(all.faults, err, printErr, keep(o, all, text.String()))...)
}

// openFiles lets this process, and those that it starts, open so many files, or as many as the system allows. Go raises the limit for itself alone.
func openFiles(want uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Max < want && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}) == nil {
		return nil // root may
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Max < want {
		return fmt.Errorf("only %d files may be open, and so many streams take %d: raise the limit (ulimit -Hn), or ask for fewer", limit.Max, want)
	}
	return nil
}

// spareFiles are those of everything but streams. Those are two of Envoy for each that is held, for the client and for the provider, and one for each
// that is idle.
const spareFiles = 2000

// keep writes the results into the files that the options name.
func keep(o options, all *results, text string) error {
	if o.json != "" {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.docs == "" || len(all.faults) > 0 {
		return nil
	}
	b, err := os.ReadFile(o.docs)
	if err != nil {
		return err
	}
	page, err := replaceResults(string(b), text)
	if err != nil {
		return fmt.Errorf("%s: %w", o.docs, err)
	}
	return os.WriteFile(o.docs, []byte(page), 0o644)
}

// Between these lines of a page stands the report of a run.
const (
	docsBegin = "<!-- results -->"
	docsEnd   = "<!-- end of results -->"
)

// replaceResults returns the page with another report.
func replaceResults(page, text string) (string, error) {
	before, rest, ok := strings.Cut(page, docsBegin)
	_, after, ended := strings.Cut(rest, docsEnd)
	if !ok || !ended {
		return "", errors.New("there is no place for results")
	}
	return before + docsBegin + "\n\n" + text + "\n" + docsEnd + after, nil
}
