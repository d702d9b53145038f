// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"net"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/extproc"
)

// leastKeepalive is how often an Envoy on another machine may ask whether this one still lives. It does so each five seconds.
const leastKeepalive = time.Second

// lastDecisions is how long decisions may take that are under way when the processor is told to stop: most take microseconds, but a client
// may be slow to send its body.
const lastDecisions = time.Second

// decide serves ext_proc, xDS and the lines that Envoys send, on the Unix socket and, if there is one, on the TCP listener, once there is
// something to decide by.
func (p *processor) decide(ctx context.Context) error {
	defer close(p.life.closed)
	if !p.awaitConfiguration(ctx) {
		return nil
	}
	listeners, err := p.listen(ctx)
	if err != nil {
		return err
	}
	server := grpc.NewServer(append(extproc.ServerOptions(p.cfg.Gateway.MaxBodyBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastKeepalive, PermitWithoutStream: true}))...)
	extprocv3.RegisterExternalProcessorServer(server, extproc.New(extproc.Options{
		Engine: p.engine, TrustedHops: p.cfg.Gateway.TrustedHops, Shedder: p.edge.shedder, Heard: p.edge.pulse.beat, Admitted: p.books.intents.Admitted, Logger: p.log, Registerer: p.registry,
	}))
	envoy.NewLogServer(envoy.LogServerOptions{Append: p.sent.Append, Logger: p.log, Registerer: p.registry}).Register(server)
	p.books.telemetry.Register(server)
	p.xds.Register(ctx, server)
	envoy.RegisterEndServer(ctx, server, p.books.limits.limiter.Release)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		// Discovery streams end with ctx. What is not decided when this is over is decided by the next processor, or refused.
		timer := time.AfterFunc(lastDecisions, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	})
	var group errgroup.Group
	for _, l := range listeners {
		group.Go(func() error {
			if err := server.Serve(l); err != nil {
				server.Stop() // one without the other is no processor
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	err = group.Wait()
	if !stop() {
		<-stopped // the last decisions are made
	}
	return err
}

// listen listens wherever Envoys may come from.
func (p *processor) listen(ctx context.Context) ([]net.Listener, error) {
	local, err := listenUnix(p.cfg.Processor.Socket)
	if err != nil || p.cfg.Processor.Listen == "" {
		return []net.Listener{local}, err
	}
	remote, err := listenTCP(ctx, "processor.listen", p.cfg.Processor.Listen)
	if err != nil {
		_ = local.Close()
		return nil, err
	}
	return []net.Listener{local, p.edge.tls.envoys.over(remote)}, nil
}
