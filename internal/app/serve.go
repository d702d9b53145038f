// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/extproc"
	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/loader"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/internal/telemetry"
	"github.com/weir-proxy/weir/internal/version"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/usage"
)

// processor is the parts of one running processor.
type processor struct {
	cfg       config.Config
	log       *slog.Logger
	store     *store.Store
	engine    *policy.Engine
	cooldowns *policy.Cooldowns
	xds       *envoy.Server
	registry  *prometheus.Registry
	spool     *usage.Spool
	sent      *usage.Appender // the log of the lines that Envoys send
	remote    atomic.Bool     // an Envoy has been here that sends its lines
	plugins   *loader.Loader
	edge      edge
	state     *state
	books     books
	life      *life
}

// edge is what clients meet before a decision.
type edge struct {
	tls     certificates
	shedder *extproc.Shedder // nil if nothing is refused for how long it waited
	pulse   *pulse           // of the requests that it is asked about
}

// Serve runs the processor until ctx ends. Then it admits nothing any more, waits for the lines of what is in flight for as long as
// processor.drain says, ships what Envoy's log holds, says in one line what it leaves on the disk, and returns nil.
//
// A database that cannot be reached at the start is waited for, while requests are decided by what is kept on the disk, or refused if that is too old or missing; what
// waiting does not mend, such as a wrong password, is an error with a hint. Another processor with the same state_dir is waited for too, since it may be about to stop.
func Serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	tuneCollector(ctx)
	keys, err := cfg.EncryptionKeys()
	if err != nil {
		return fmt.Errorf("secret_key: %w", err)
	}
	if err := makeFolders(cfg.StateDir, cfg.Envoy.LogDir, filepath.Dir(cfg.Processor.Socket)); err != nil {
		return err
	}
	s, err := store.Open(ctx, cfg.Database.URL.Reveal(), store.Options{
		SecretKey: keys[0], FormerKeys: keys[1:], Logger: log, MaxConns: cfg.Database.MaxConns,
	})
	if err != nil {
		return hinted{fmt.Errorf("open database: %w", err), databaseForm}
	}
	defer s.Close()
	p, err := newProcessor(ctx, cfg, s, log)
	if err != nil {
		return err
	}
	if err := p.openBooks(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // it was told to stop while it waited for another processor
		}
		return err
	}
	err = p.run(ctx)
	p.closeBooks()
	return err
}

func newProcessor(ctx context.Context, cfg config.Config, s *store.Store, log *slog.Logger) (*processor, error) {
	p := &processor{cfg: cfg, log: log, store: s, cooldowns: &policy.Cooldowns{}, registry: prometheus.NewRegistry(), life: newLife()}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.sent = usage.NewAppender(cfg.Envoy.LogDir, log)
	p.spool = p.newSpool()
	if err := p.newState(); err != nil {
		return nil, err
	}
	var err error
	if p.plugins, err = p.newPlugins(ctx); err != nil {
		return nil, err
	}
	if err := p.openLimits(); err != nil {
		return nil, err
	}
	p.books.costs = p.newCosts()
	p.books.budgets = newBudgets(s, budget.Options{Clock: cfg.Clock, Outage: cfg.Limits.Budgets.OutageStatus}, log)
	p.books.budgets.expose(p.registry)
	p.engine = policy.New(policy.Options{
		Clock:           cfg.Clock,
		MaxBodyBytes:    cfg.Gateway.MaxBodyBytes,
		Dev:             cfg.Dev,
		Health:          p.cooldowns,
		Gate:            p.gate,
		Judge:           p.plugins.Judge,
		Estimate:        p.books.costs.Estimate,
		Exact:           p.books.costs.Exact,
		Accountants:     []policy.Accountant{p.books.limits.limiter, p.books.budgets.book},
		FirstByte:       cfg.Timeouts.FirstByte,
		FirstByteStream: cfg.Timeouts.FirstByteStream,
	})
	if p.books.telemetry, err = telemetry.Open(ctx, telemetry.Options{
		Config: cfg.Telemetry, Getenv: os.Getenv, Version: version.String(), Logger: log, Registerer: p.registry,
	}); err != nil {
		return nil, hinted{err, "see telemetry in weir.yaml, and the variables OTEL_…"}
	}
	p.edge.pulse = newPulse()
	if cfg.Processor.Wait > 0 {
		p.edge.shedder = extproc.NewShedder(cfg.Processor.Wait)
	}
	if p.edge.tls.gateway, err = openCertificate(cfg.Gateway.TLS, p.registry, log); err != nil {
		return nil, err
	}
	if p.edge.tls.envoys, err = openPeers(cfg.Processor.TLS, p.registry, log); err != nil {
		return nil, err
	}
	told := gateway(cfg)
	told.Edge.Certificate = p.edge.tls.gateway.first
	told.Tracing = tracing(cfg.Telemetry)
	p.xds = envoy.NewServer(told, log)
	p.xds.OnConnect(p.envoyConnects)
	p.countSenders()
	p.registry.MustRegister(newHealth(p.ready, func() int { return len(p.xds.Status().Envoys) }))
	return p, nil
}

// gateway is the part of the configuration that Envoy is told.
func gateway(cfg config.Config) envoy.Gateway {
	lacks, _ := envoy.LacksOf(cfg.Envoy.Oldest) // the configuration was checked
	return envoy.Gateway{
		Lacks:        lacks,
		Listen:       cfg.Gateway.Listen,
		AccessLog:    envoy.AccessLog(cfg.Envoy.AccessLog),
		LogFile:      filepath.Join(cfg.Envoy.LogDir, usage.ActiveLog),
		CAFile:       cfg.Envoy.CAFile,
		MaxBodyBytes: int(cfg.Gateway.MaxBodyBytes),
		Timeouts:     envoy.Timeouts{Connect: cfg.Timeouts.Connect, FirstByte: cfg.Timeouts.FirstByte, Idle: cfg.Timeouts.Idle, Total: cfg.Timeouts.Total},
		LogInterval:  logInterval(cfg.Usage.Lease),
		ForwardFake:  cfg.Dev,
		TrustedHops:  cfg.Gateway.TrustedHops,
		Stamped:      cfg.Processor.Wait > 0,

		PolicyHeaders: append([]string{":authority"}, cfg.Plugins.Headers...), // every plugin that speaks proxy-wasm is shown it

		Edge: envoy.Edge{ProxyProtocol: cfg.Gateway.ProxyProtocol, HTTP3: cfg.Gateway.TLS.HTTP3},
	}
}

// tracing is what Envoy has to do for traces.
func tracing(c config.Telemetry) envoy.Tracing {
	if !telemetry.SignalsOf(c, os.Getenv).Traces {
		return envoy.Tracing{}
	}
	return envoy.Tracing{Lines: true, Service: c.Service + "-envoy", Ratio: c.SampleRatio, Distrust: !c.TrustClients}
}

// run starts every part and waits for all of them. The first that fails ends the others.
func (p *processor) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.decide(ctx) })
	group.Go(func() error { return p.administer(ctx) })
	group.Go(func() error { return p.account(ctx) })
	group.Go(func() error { p.shed(ctx); return nil })
	group.Go(func() error { return p.spool.Run(ctx) })
	group.Go(func() error { return p.plugins.Run(ctx) })
	group.Go(func() error { return p.keepState(ctx) })
	group.Go(func() error { return p.follow(ctx) })
	group.Go(func() error { return p.edge.tls.gateway.watch(ctx, p.xds.SetCertificate) })
	group.Go(func() error { return p.edge.tls.envoys.watch(ctx, p.edge.tls.envoys.put) })
	p.log.Info("processor started", "socket", p.cfg.Processor.Socket, "admin", p.cfg.Admin.Listen, "version", version.String())
	err := group.Wait()
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// follow waits for the database, and then does what needs one.
func (p *processor) follow(ctx context.Context) error {
	if err := p.awaitDatabase(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.watch(ctx) })
	group.Go(func() error { return p.keepHouse(ctx) })
	group.Go(func() error { return p.resolve(ctx) })
	group.Go(func() error { return p.shareLimits(ctx) })
	group.Go(func() error { return p.notify(ctx) })
	group.Go(func() error { p.books.budgets.run(ctx, p.books.shipper.DrainedAt, p.life.closed); return nil })
	return group.Wait()
}

// listenUnix listens on a socket that a processor that was killed may have left behind.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, hinted{fmt.Errorf("another processor serves %s", path), "stop it, or set another processor.socket"}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// Who can write to the socket can decide nothing, but reads the providers' credentials by xDS: the group is as far as it goes.
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

// administer serves the admin API.
func (p *processor) administer(ctx context.Context) error {
	prober := admin.NewProber()
	if err := prober.TrustFile(p.cfg.Envoy.CAFile); err != nil {
		p.log.Warn("channel tests trust the system's certificates only", "err", err)
	}
	own := prometheus.NewRegistry() // its size is up to plugins, so that it is not among ours
	own.MustRegister(p.plugins.Own())
	handler := admin.New(admin.Options{
		Store:         p.store,
		Token:         store.Secret(p.cfg.Admin.Token.Reveal()),
		Metrics:       promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}),
		Ready:         p.ready,
		Version:       version.String(),
		Logger:        p.log,
		ChannelTester: prober,
		Plugins:       p.plugins,
		Database:      p.databaseState,
		Settled:       p.settled,
		PluginMetrics: promhttp.HandlerFor(own, promhttp.HandlerOpts{}),
	})
	listener, err := listenTCP(ctx, "admin.listen", p.cfg.Admin.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn)}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(grace) // whoever still waits has had two seconds
		_ = server.Close()
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin API: %w", err)
	}
	return nil
}

// attempt tells the engine of a channel that failed, as of when it did: an old log says nothing of a channel today.
func (p *processor) attempt(a usage.Attempt) {
	p.cooldowns.Failed(policy.Failure{
		Channel: a.Channel, Status: a.Status, RetryAfter: a.RetryAfter, Connect: a.Unreached,
	}, a.Time())
}
