// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
)

// drainTime is how long an Envoy that was told to stop lets exchanges in flight go on.
const drainTime = 10 * time.Minute

// Envoy runs one Envoy until ctx ends; then it takes no more connections, and exchanges in flight may go on for some minutes.
func Envoy(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	run, err := envoyOptions(ctx, cfg)
	if err != nil {
		return err
	}
	run.Drain = drainTime
	run.Log = os.Stderr
	run.Started = func(pid int) {
		log.Info("envoy started", "pid", pid, "binary", run.Binary, "listen", cfg.Gateway.Listen)
	}
	return envoy.Run(ctx, run)
}

// envoyOptions finds or fetches Envoy and makes what it is started with.
func envoyOptions(ctx context.Context, cfg config.Config) (envoy.RunOptions, error) {
	for _, dir := range []string{cfg.StateDir, cfg.Envoy.LogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return envoy.RunOptions{}, fmt.Errorf("make folder: %w", err)
		}
	}
	binary, err := envoy.Find(ctx, cfg.Envoy.Path, cacheDir(cfg.StateDir))
	if err != nil {
		return envoy.RunOptions{}, err
	}
	boot, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Socket: cfg.Processor.Socket, Processor: cfg.Envoy.Processor, Admin: cfg.Envoy.Admin, Node: cfg.Envoy.Node,
		Instance: uuid.NewString(), AccessLog: envoy.AccessLog(cfg.Envoy.AccessLog),
	})
	if err != nil {
		return envoy.RunOptions{}, err
	}
	return envoy.RunOptions{
		Binary: binary, Bootstrap: boot, Dir: cfg.StateDir, Node: cfg.Envoy.Node, Admin: cfg.Envoy.Admin,
		AccessLog: envoy.AccessLog(cfg.Envoy.AccessLog), Concurrency: cfg.Envoy.Concurrency, Log: io.Discard,
	}, nil
}

// cacheDir is where fetched programs are kept: $WEIR_CACHE, which several Weirs of one machine may share, else below the state.
func cacheDir(state string) string {
	if dir := os.Getenv("WEIR_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(state, "cache")
}
