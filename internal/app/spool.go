// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/usage"
)

// newSpool makes what looks after the access logs of the Envoys that are connected.
func (p *processor) newSpool() *usage.Spool {
	l := p.cfg.Usage.Log
	return usage.NewSpool(usage.SpoolOptions{
		Dir:         p.cfg.Envoy.LogDir,
		Writers:     p.logWriters,
		RotateBytes: l.RotateBytes,
		RotateAge:   l.RotateAge,
		Keep:        l.Keep,
		MaxBytes:    l.MaxBytes,
		MinFree:     l.MinFree,
		Flush:       envoy.LogFlush,
		Logger:      p.log,
		Registerer:  p.registry,
		Clock:       p.cfg.Clock,
	})
}

// envoyConnects is told of an Envoy before it has a log open. If no other has one, all Envoys whose exchanges might still be waited for
// are dead: what they were in the middle of need not be waited for until its lease ends. Of Envoys that send their lines nothing can be said.
func (p *processor) envoyConnects(e envoy.Node) {
	if e.AccessLog != envoy.AccessLogFile {
		p.remote.Store(true)
	}
	if p.remote.Load() || !p.spool.Abandoned(p.logOf(e)) {
		return
	}
	p.log.Info("no earlier envoy lives: what it left without a line is resolved once its logs are posted", "node", e.ID)
	p.books.intents.EnvoyGone()
}

// logOf returns the name of the log that an Envoy writes.
func (p *processor) logOf(e envoy.Node) string {
	return filepath.Base(envoy.LogFile(gateway(p.cfg).LogFile, e.ID))
}

// logWriters returns who writes logs: the Envoys that are connected and write to a file, and this process for those that send their lines.
func (p *processor) logWriters() []usage.LogWriter {
	out := []usage.LogWriter{p.sent}
	for _, e := range p.xds.Status().Envoys {
		if admin := p.adminOf(e); admin != "" && e.AccessLog == envoy.AccessLogFile {
			out = append(out, logWriter{log: p.logOf(e), admin: admin})
		}
	}
	return out
}

// countSenders shows how many Envoys send their lines: as many as may take some of them along when they end.
func (p *processor) countSenders() {
	promauto.With(p.registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_usage_grpc_envoys", Help: "Envoys that are connected and send the lines of their access log by gRPC.",
	}, func() float64 {
		n := 0
		for _, e := range p.xds.Status().Envoys {
			if e.AccessLog == envoy.AccessLogGRPC {
				n++
			}
		}
		return float64(n)
	})
}

// adminOf returns where the admin interface of an Envoy is. One that was not started by Weir may not have said so.
func (p *processor) adminOf(e envoy.Node) string {
	if e.Admin == "" && e.ID == envoy.NodeID {
		return p.cfg.Envoy.Admin
	}
	return e.Admin
}

// logWriter is an Envoy, as the spool knows it.
type logWriter struct{ log, admin string }

func (w logWriter) LogName() string                  { return w.log }
func (w logWriter) Reopen(ctx context.Context) error { return envoy.Reopen(ctx, w.admin) }
func (w logWriter) WriteFailures(ctx context.Context) (int64, error) {
	return envoy.WriteFailures(ctx, w.admin)
}
