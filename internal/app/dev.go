// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/postgres"
)

// DevAdminToken is the admin token of every development gateway.
const DevAdminToken = "weir-dev-admin"

// DevOptions say where a development gateway lives.
type DevOptions struct {
	Dir  string // its state; a second start in the same folder keeps the data
	Port int    // of the gateway; the next four are the admin API, Envoy's admin interface, the fake provider and Postgres
	Out  io.Writer
	Log  *slog.Logger
}

// dev is a development gateway that is being run.
type dev struct {
	DevOptions
	cfg config.Config
	dsn string
}

// Dev runs everything on this machine until ctx ends: Postgres, unless $DATABASE_URL names one, the fake provider, the processor
// and Envoy. The processor is a process of its own, as it is in production, and is started again when it dies; so is Envoy.
func Dev(ctx context.Context, o DevOptions) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return hinted{fmt.Errorf("make state folder: %w", err), "choose another folder with --dir or WEIR_DEV_DIR"}
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	d := &dev{DevOptions: o}
	if err := d.portsFree(ctx); err != nil {
		return err
	}
	d.dsn = os.Getenv("DATABASE_URL")
	if d.dsn == "" {
		server, err := d.postgres(ctx)
		if err != nil {
			return err
		}
		defer func() {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			if err := server.Stop(stop); err != nil {
				o.Log.Warn("stop postgres", "err", err)
			}
		}()
		d.dsn = server.DSN()
	}
	if d.cfg, err = devConfig(dir, o.Port, d.dsn); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		return err
	}
	return nil // or it was told to stop while it started
}

func address(port, offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+offset))
}

// devWait is processor.wait of development gateways: a machine that people work on stands still at times for other reasons than its requests.
const devWait = time.Second

// devConfig is the configuration that the parts of a development gateway share.
func devConfig(dir string, port int, dsn string) (config.Config, error) {
	key, err := devSecretKey(dir)
	if err != nil {
		return config.Config{}, err
	}
	cfg := config.Default()
	cfg.Dev = true
	cfg.StateDir = dir
	cfg.SecretKey = config.Secret(key)
	cfg.Gateway.Listen = address(port, 0)
	cfg.Admin.Listen = address(port, 1)
	cfg.Admin.Token = DevAdminToken
	cfg.Envoy.Admin = address(port, 2)
	cfg.Envoy.Path = os.Getenv("WEIR_ENVOY")
	cfg.Database.URL = config.Secret(dsn)
	cfg.Processor.Socket = socketPath(dir)
	cfg.Plugins.Headers = strings.FieldsFunc(strings.ToLower(os.Getenv("WEIR_DEV_PLUGIN_HEADERS")), func(r rune) bool { return r == ',' || r == ' ' })
	cfg.Processor.Wait = devWait
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return config.Config{}, err
	}
	return cfg, nil
}

// portsFree says which program to stop, or that another base would do, before anything is started.
func (d *dev) portsFree(ctx context.Context) error {
	for i, what := range []string{"the gateway", "the admin API", "Envoy's admin interface", "the fake provider", "Postgres"} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address(d.Port, i))
		if err != nil {
			return hinted{fmt.Errorf("port %d, for %s, is taken", d.Port+i, what), "choose other ports with --port or WEIR_DEV_PORT"}
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (d *dev) postgres(ctx context.Context) (*postgres.Server, error) {
	cache := cacheDir(d.Dir)
	install, err := fetching(d.Log, "Postgres", cache, func() (postgres.Install, error) { return postgres.Find(ctx, cache) })
	if err != nil {
		return nil, hinted{fmt.Errorf("find postgres: %w", err), fmt.Sprintf("install Postgres %d or later, or name a database by DATABASE_URL", postgres.Oldest)}
	}
	server, err := postgres.Start(ctx, postgres.Options{
		Install: install, Dir: filepath.Join(d.Dir, "postgres"), Port: d.Port + 4, LogFile: filepath.Join(d.Dir, "log", "postgres.log"),
	})
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	return server, nil
}

// run starts the parts, in the order in which they need each other, and waits for ctx.
func (d *dev) run(ctx context.Context) error {
	provider, err := d.seed(ctx)
	if err != nil {
		return err
	}
	options, err := envoyOptions(ctx, d.cfg, d.Log)
	if err != nil {
		return err
	}
	if err := d.writeAdminFile(); err != nil {
		return err
	}
	// The parts end after one another: first Envoy, so that its last lines are shipped by the processor.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	group, gctx := errgroup.WithContext(parts)
	group.Go(func() error { return fake.New(fake.Options{}).Run(gctx, address(d.Port, 3)) })
	group.Go(func() error { return keep(gctx, d.Log, "processor", d.processor) })

	front, stopFront := context.WithCancel(gctx)
	defer stopFront()
	envoyDone := make(chan struct{})
	group.Go(func() error {
		defer close(envoyDone)
		return keep(front, d.Log, "envoy", func(ctx context.Context) error { return d.envoy(ctx, options) })
	})
	ready := make(chan error, 1)
	go func() { ready <- d.awaitReady(front) }()
	select {
	case err := <-ready:
		if err == nil {
			d.banner(provider)
			select {
			case <-ctx.Done():
			case <-gctx.Done():
			}
		} else if ctx.Err() == nil && gctx.Err() == nil {
			stopParts()
			return errors.Join(err, group.Wait())
		}
	case <-ctx.Done():
	case <-gctx.Done():
	}
	stopFront()
	<-envoyDone
	stopParts()
	return group.Wait()
}

// keep runs a part until ctx ends, and again, after a pause that grows with its failures in a row, whenever it ends before.
func keep(ctx context.Context, log *slog.Logger, name string, run func(context.Context) error) error {
	const first, most = 200 * time.Millisecond, 5 * time.Second
	pause := first
	for {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for is no failure
		}
		if time.Since(began) > most {
			pause = first
		}
		log.Warn("ended by itself and is started again", "part", name, "err", cmp.Or(err, errors.New("exit status 0")), "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, most)
	}
}

// envoy runs Envoy once.
func (d *dev) envoy(ctx context.Context, o envoy.RunOptions) error {
	log, err := d.logFile("envoy.log")
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // what was read is read
	o.Log = log
	o.Drain = 2 * time.Second
	return envoy.Run(ctx, o)
}

func (d *dev) logFile(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(d.Dir, "log", name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
