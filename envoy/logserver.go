// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// LogServer takes the lines of Envoys that send them ([AccessLogGRPC]), by OTLP, and hands them on as if Envoy had written them to a file.
//
// An Envoy sends a message until it is answered, or turned away for good. So a message is answered once its lines are handed on, and with
// UNAVAILABLE, upon which Envoy keeps it and sends it again, only if none of them is.
type LogServer struct {
	o       LogServerOptions
	metrics logServerMetrics
}

// LogServerOptions are what a [LogServer] needs.
type LogServerOptions struct {
	// Append takes whole lines, all of them or, with an error, none. It is called by many goroutines at once and must not keep lines.
	Append     func(lines []byte) error
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: no metrics
}

type logServerMetrics struct {
	messages  prometheus.Counter
	lines     prometheus.Counter
	refused   prometheus.Counter
	malformed prometheus.Counter
}

// NewLogServer returns a server. It panics if a metric of its names is registered already.
func NewLogServer(o LogServerOptions) *LogServer {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := promauto.With(o.Registerer)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &LogServer{o: o, metrics: logServerMetrics{
		messages: counter("weir_usage_grpc_messages_total", "Messages with lines of the access log that Envoys sent and that were taken."),
		lines:    counter("weir_usage_grpc_lines_total", "Lines of the access log that Envoys sent and that were written to the log of the processor."),
		refused: counter("weir_usage_grpc_refused_messages_total",
			"Messages with lines that could not be written. Envoy keeps them and sends them again, in up to 15 seconds."),
		malformed: counter("weir_usage_grpc_malformed_total",
			"Messages, or records in them, that no Envoy of this version sends. Exchanges that they tell of become unresolved rows."),
	}}
}

// Register adds the service to the processor's gRPC server.
func (s *LogServer) Register(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: exportHandler}},
	}, s)
}

// exportHandler receives a message without looking into it: to a message without fields all fields are unknown, and those it keeps as they are.
//
//nolint:revive // the order of the parameters is that of grpc.MethodHandler
func exportHandler(srv any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var raw emptypb.Empty
	if err := decode(&raw); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, srv.(*LogServer).export(raw.ProtoReflect().GetUnknown())
}

// export hands on the lines of a message. An Envoy that has given up waiting does not send it again, so that does not matter here.
func (s *LogServer) export(message []byte) error {
	lines, n, unknown, err := appendLines(nil, message)
	if err != nil || unknown > 0 {
		s.metrics.malformed.Add(float64(max(unknown, 1)))
		s.o.Logger.Error("an Envoy sent what is no line of an access log", "records", unknown, "err", err)
	}
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if n > 0 {
		if err := s.o.Append(lines); err != nil {
			s.metrics.refused.Inc()
			return status.Error(codes.Unavailable, "the lines could not be written")
		}
	}
	s.metrics.messages.Inc()
	s.metrics.lines.Add(float64(n))
	return nil
}
