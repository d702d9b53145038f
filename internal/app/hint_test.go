// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/config"
)

// configured is a configuration whose parts are all in a folder of the test, with no Envoy or Postgres near it.
func configured(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	cfg.Processor.Socket = filepath.Join(cfg.StateDir, "s")
	cfg.Admin.Listen, cfg.Admin.Token = "127.0.0.1:0", "token"
	cfg.SecretKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	cfg.Database.URL = "postgres://postgres@127.0.0.1:1/x?sslmode=disable"
	return cfg.Complete()
}

func TestProgramsThatCannotStartSayWhatToDo(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // only held
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho envoy  version: 0123abcd/1.39.2/Clean/RELEASE/BoringSSL\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*config.Config)
		run    func(context.Context, config.Config, *slog.Logger) error
		says   string
		hint   string
	}{
		"admin port taken":     {func(c *config.Config) { c.Admin.Listen = taken.Addr().String() }, Serve, "address already in use", "set another admin.listen"},
		"processor port taken": {func(c *config.Config) { c.Processor.Listen = taken.Addr().String() }, Serve, "address already in use", "set another processor.listen"},
		"state below a file":   {func(c *config.Config) { c.StateDir = filepath.Join(file, "state") }, Serve, "make folder", "state_dir"},
		"malformed address":    {func(c *config.Config) { c.Database.URL = "postgres://h:port/x" }, Serve, "invalid port", "postgres://user:password@host:port/database"},
		"old Envoy":            {func(c *config.Config) { c.Envoy.Path = file }, Envoy, "Envoy 1.39.2: too old", "install Envoy 1.40 or later"},
		"no Envoy":             {func(c *config.Config) { c.Envoy.Path = file + "none" }, Envoy, "no such file", "envoy.path"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configured(t)
			c.change(&cfg)
			err := c.run(t.Context(), cfg, log)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the error is %v, want one that says %q", err, c.says)
			}
			if h, ok := errors.AsType[hinted](err); !ok || !strings.Contains(h.Hint(), c.hint) {
				t.Errorf("%v has the hint %q, want one that says %q", err, h.hint, c.hint)
			}
		})
	}
}

// Whoever starts a second processor of a folder and thinks better of it has seen no failure.
func TestWaitingForAnotherProcessorEndsWhenTold(t *testing.T) {
	cfg := configured(t)
	ctx, stop := context.WithCancel(t.Context())
	first := make(chan error, 1)
	started, waiting := make(chan struct{}), make(chan struct{})
	go func() { first <- Serve(ctx, cfg, slog.New(signals{"processor started": started})) }()
	<-started
	second, stopSecond := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(second, cfg, slog.New(signals{"waiting for another processor to stop": waiting}))
	}()
	<-waiting
	stopSecond()
	if err := <-ended; err != nil {
		t.Errorf("the second processor ended with %v", err)
	}
	stop()
	if err := <-first; err != nil {
		t.Errorf("the first processor ended with %v", err)
	}
}

// signals is a handler of logs that closes the channel of a message when it comes; each must come once.
type signals map[string]chan struct{}

func (signals) Enabled(context.Context, slog.Level) bool { return true }
func (s signals) WithAttrs([]slog.Attr) slog.Handler     { return s }
func (s signals) WithGroup(string) slog.Handler          { return s }

func (s signals) Handle(_ context.Context, r slog.Record) error {
	if c, ok := s[r.Message]; ok {
		close(c)
	}
	return nil
}
