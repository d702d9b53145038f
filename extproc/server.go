// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/weir-proxy/weir/policy"
)

// Options are what a [Server] needs.
type Options struct {
	Engine     *policy.Engine        // decides; required
	Logger     *slog.Logger          // nil means no logs
	Registerer prometheus.Registerer // nil means that the metrics are not exposed
	Clock      func() time.Time      // for durations; nil means time.Now

	// TrustedHops is how many proxies stand before Envoy whose x-forwarded-for is believed; zero: clients connect to Envoy themselves.
	TrustedHops int

	// Shedder refuses requests of Envoys on this machine that waited too long. Nil refuses none.
	Shedder *Shedder
	// Heard is called with each request that Shedder is asked about, before that, by many goroutines at once. It must be quick. May be nil.
	Heard func()

	// Admitted is told of every admission, with the size of the client's body, before Envoy is. With an error the request is refused as
	// unavailable. It is called by many goroutines at once, and every request waits for it. Nil admits all.
	Admitted func(a *policy.Admission, bodyBytes int) error
}

// Server implements Envoy's external processor over an engine.
type Server struct {
	extprocv3.UnimplementedExternalProcessorServer

	engine   *policy.Engine
	log      *slog.Logger
	metrics  *metrics
	clock    func() time.Time
	admitted func(*policy.Admission, int) error
	shedder  *Shedder
	heard    func()

	trustedHops int
}

var _ extprocv3.ExternalProcessorServer = (*Server)(nil)

// New returns a server, to be registered with extprocv3.RegisterExternalProcessorServer. It panics if a metric of its names is
// registered already.
func New(o Options) *Server {
	s := &Server{engine: o.Engine, log: o.Logger, metrics: newMetrics(o.Registerer), clock: o.Clock, admitted: o.Admitted, trustedHops: o.TrustedHops, shedder: o.Shedder, heard: o.Heard}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = time.Now //nolint:forbidigo // the one place where the clock's default is named
	}
	if s.admitted == nil {
		s.admitted = func(*policy.Admission, int) error { return nil }
	}
	if s.heard == nil {
		s.heard = func() {}
	}
	if s.shedder != nil {
		s.shedder.Begin(s.clock())
	}
	return s
}

// ServerOptions returns options that fit a gRPC server which serves [Server] to one Envoy, for request bodies up to the given size.
// Stream workers and other sizes of buffers made no difference that could be measured.
func ServerOptions(maxBodyBytes int64) []grpc.ServerOption {
	const (
		envelope = 1 << 20 // bytes that a message has beyond the body, at most: headers, mostly
		window   = 1 << 20 // bytes that Envoy may send ahead, so that most bodies come in one go
		workers  = 64      // goroutines whose stacks have grown already; more streams at once get goroutines of their own
	)
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(maxBodyBytes) + envelope),
		grpc.MaxSendMsgSize(int(maxBodyBytes) + envelope),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(16 * window),
		grpc.NumStreamWorkers(workers),
	}
}

// Process implements [extprocv3.ExternalProcessorServer]: it is the loop around [session.step], and nothing else.
func (s *Server) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	x := session{server: s, near: s.shedder != nil && near(stream.Context()), route: routeOf(stream.Context())}
	defer s.closed(stream.Context(), &x)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, done := s.timed(stream.Context(), &x, m)
		if answer != nil {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
		if done {
			return nil
		}
	}
}

// near says whether a stream comes from this machine, and so from an Envoy whose clock is ours.
func near(ctx context.Context) bool {
	from, ok := peer.FromContext(ctx)
	return ok && from.Addr.Network() != "tcp"
}

// closed ends a session; a panic on the way is as one in a step.
func (s *Server) closed(ctx context.Context, x *session) {
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.LogAttrs(ctx, slog.LevelError, "panic while closing", slog.Any("panic", p),
				slog.String("exchange_id", x.id()), slog.String("stack", string(debug.Stack())))
		}
	}()
	x.close()
}

// timed makes one step of a session. It is the edge at which a panic ends: it costs one request, not the process.
func (s *Server) timed(ctx context.Context, x *session, m *extprocv3.ProcessingRequest) (answer *extprocv3.ProcessingResponse, done bool) {
	start := s.clock()
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.LogAttrs(ctx, slog.LevelError, "panic while deciding", slog.Any("panic", p),
				slog.String("exchange_id", x.id()), slog.String("stack", string(debug.Stack())))
			answer, done = x.refuse(policy.Internal()), true
		}
		s.metrics.step(m).Observe(s.clock().Sub(start).Seconds())
		if x.fault != "" {
			s.log.LogAttrs(ctx, slog.LevelError, "envoy is not configured as it must be", slog.String("fault", x.fault),
				slog.String("exchange_id", x.id()))
		}
		if done && s.log.Enabled(ctx, slog.LevelDebug) {
			s.log.LogAttrs(ctx, slog.LevelDebug, "decided", slog.String("exchange_id", x.id()), slog.String("code", x.code),
				slog.Any("err", x.err))
		}
	}()
	return x.step(m)
}
