// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/child"
	"github.com/weir-proxy/weir/internal/postgres"
)

// Ports on 127.0.0.1, from the first. Weir's are where weir dev has them.
const (
	portWeir = iota
	portWeirAdmin
	portWeirEnvoy
	portProvider
	portPostgres
	portBare
	portBareEnvoy
	portContinue
	portContinueEnvoy
	ports
)

// site is where everything runs that is measured: a folder, ports and programs.
type site struct {
	options
	root    string // folder of everything
	dir     string // folder of what runs now; see [site.occupy]
	weir    string // the program
	envoy   string // the program
	install postgres.Install

	cancel context.CancelCauseFunc // ends what runs now, when a part of it has ended by itself
	parts  sync.WaitGroup
}

func (s *site) address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port+port))
}

// newSite makes the folder anew, finds or fetches Envoy and Postgres, and builds Weir unless a program was given.
func newSite(ctx context.Context, o options) (*site, error) {
	root, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	s := &site{options: o, root: root, dir: root, weir: o.weir}
	if err := errors.Join(os.RemoveAll(root), os.MkdirAll(root, 0o755)); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	cache, err := filepath.Abs(cmp.Or(os.Getenv("WEIR_CACHE"), filepath.Join(".weir", "cache")))
	if err != nil {
		return nil, err
	}
	if s.envoy, err = envoy.Find(ctx, os.Getenv("WEIR_ENVOY"), cache); err != nil {
		return nil, fmt.Errorf("find envoy: %w", err)
	}
	if s.install, err = postgres.Find(ctx, cache); err != nil {
		return nil, fmt.Errorf("find postgres: %w", err)
	}
	if s.weir == "" {
		s.weir = s.path("weir-program")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.weir, "github.com/weir-proxy/weir/cmd/weir")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build weir: %w\n%s", err, out)
		}
	}
	return s, nil
}

// occupy lets work start things in a folder of their own, and returns when all of them have ended.
func (s *site) occupy(ctx context.Context, name string, work func(context.Context) error) error {
	s.dir = filepath.Join(s.root, name)
	const longest = 100 // bytes of a Unix socket's path
	if len(s.path("weir", "weir.sock")) > longest {
		return fmt.Errorf("folder %s lies too deep for a Unix socket: choose another with -dir", s.dir)
	}
	if err := os.MkdirAll(s.path("weir", "log"), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for port := range ports {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address(port))
		if err != nil {
			return fmt.Errorf("port %d is taken: choose others with -port", s.port+port)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	ctx, s.cancel = context.WithCancelCause(ctx)
	err := work(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	s.cancel(nil)
	s.parts.Wait()
	return err
}

func (s *site) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// start runs a program until ctx ends. One that ends by itself ends the benchmark.
func (s *site) start(ctx context.Context, name string, cmd *exec.Cmd) (pid int, err error) {
	log, err := os.Create(s.path(name + ".log"))
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	s.parts.Go(func() {
		defer log.Close() //nolint:errcheck // a log
		select {
		case <-ctx.Done():
			p.Stop(syscall.SIGTERM, 15*time.Second)
		case <-p.Done():
			s.cancel(fmt.Errorf("%s ended by itself: %w; see %s", name, cmp.Or(p.Err(), errors.New("exit status 0")), log.Name()))
		}
	})
	return p.PID(), nil
}

// startEnvoy runs an Envoy until ctx ends, and returns once it is ready.
func (s *site) startEnvoy(ctx context.Context, name string, bootstrap []byte, admin string) (pid int, err error) {
	dir := s.path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(dir, "envoy.log"))
	if err != nil {
		return 0, err
	}
	started := make(chan int, 1)
	s.parts.Go(func() {
		defer log.Close() //nolint:errcheck // a log
		err := envoy.Run(ctx, envoy.RunOptions{
			Binary: s.envoy, Bootstrap: bootstrap, Dir: dir, Admin: admin, Concurrency: s.workers, Log: log,
			Started: func(pid int) { started <- pid },
		})
		if err != nil {
			s.cancel(fmt.Errorf("%s: %w; see %s", name, err, log.Name()))
		}
	})
	select {
	case pid = <-started:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return pid, await(ctx, name, func() error { return envoy.Ready(ctx, admin) })
}

// tapModule writes the native tap for Weir's Envoy, unless the one in Lua is to be measured.
func (s *site) tapModule(ctx context.Context) (string, error) {
	if s.tap == string(envoy.TapLua) {
		return "", nil
	}
	return envoy.WriteTap(ctx, s.envoy, s.path("weir"))
}

// startTimeout bounds how long a part may take to be ready.
const startTimeout = time.Minute

// await asks until there is no error.
func await(ctx context.Context, name string, ready func() error) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready: %w", name, err)
		}
		sleepUntil(ctx, time.Now().Add(50*time.Millisecond))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

//go:embed bare.json.tmpl
var bareTemplate string

// bareEnvoy is what the template is filled with.
type bareEnvoy struct {
	Port, Admin, Provider int
	Socket                string // of a processor; may be empty
}

// bootstrap makes the configuration of an Envoy that is not Weir's.
func (b bareEnvoy) bootstrap() ([]byte, error) {
	t, err := template.New("bare").Parse(bareTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
