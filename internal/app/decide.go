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

// decide serves ext_proc, xDS and the lines that Envoys send, on the Unix socket and, if there is one, on the TCP listener.
func (p *processor) decide(ctx context.Context) error {
	listeners, err := p.listen(ctx)
	if err != nil {
		return err
	}
	server := grpc.NewServer(append(extproc.ServerOptions(p.cfg.Gateway.MaxBodyBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastKeepalive, PermitWithoutStream: true}))...)
	extprocv3.RegisterExternalProcessorServer(server, extproc.New(extproc.Options{
		Engine: p.engine, Admitted: p.books.intents.Admitted, Logger: p.log, Registerer: p.registry,
	}))
	envoy.NewLogServer(envoy.LogServerOptions{Append: p.sent.Append, Logger: p.log, Registerer: p.registry}).Register(server)
	p.xds.Register(ctx, server)
	stop := context.AfterFunc(ctx, func() {
		// Discovery streams end with ctx; a decision takes microseconds. What is left after a second is not worth waiting for.
		timer := time.AfterFunc(time.Second, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	})
	defer stop()
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
	return group.Wait()
}

// listen listens wherever Envoys may come from.
func (p *processor) listen(ctx context.Context) ([]net.Listener, error) {
	local, err := listenUnix(p.cfg.Processor.Socket)
	if err != nil || p.cfg.Processor.Listen == "" {
		return []net.Listener{local}, err
	}
	remote, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.Processor.Listen)
	if err != nil {
		_ = local.Close()
		return nil, fmt.Errorf("listen for Envoys: %w", err)
	}
	return []net.Listener{local, remote}, nil
}
