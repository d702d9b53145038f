// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// relayQueue is how many messages of Envoys wait for a collector that is slow. Each has the spans of up to five seconds.
const relayQueue = 256

// relay hands on what Envoys send: they know the processor alone, and neither the collector nor the credentials for it.
type relay struct {
	client otlptrace.Client
	m      *metrics
	failed func(error)
	queue  chan []*tracepb.ResourceSpans
	stop   chan struct{}
	done   chan struct{}
	ctx    context.Context //nolint:containedctx // the life of the relay, which sends in the background
	cancel context.CancelFunc
}

func newRelay(client otlptrace.Client, m *metrics, failed func(error)) *relay {
	r := &relay{
		client: client, m: m, failed: failed, queue: make(chan []*tracepb.ResourceSpans, relayQueue), stop: make(chan struct{}), done: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.run() // until close
	return r
}

// Register adds the service that Envoys send their spans to, if spans are wanted.
func (t *Telemetry) Register(g *grpc.Server) {
	if t.relay == nil {
		return
	}
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: collectorpb.TraceService_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: exportHandler}},
	}, t.relay)
}

// exportHandler receives a message without looking into it: to a message without fields all fields are unknown, and those it keeps as they are.
//
//nolint:revive // the order of the parameters is that of grpc.MethodHandler
func exportHandler(srv any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var raw emptypb.Empty
	if err := read(&raw); err != nil {
		return nil, err
	}
	m, err := decode(raw.ProtoReflect().GetUnknown())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	srv.(*relay).take(m)
	return &emptypb.Empty{}, nil
}

// decode reads a message, whatever its texts are.
func decode(b []byte) (*collectorpb.ExportTraceServiceRequest, error) {
	var m collectorpb.ExportTraceServiceRequest
	if proto.Unmarshal(b, &m) == nil {
		return &m, nil
	}
	b, err := mend(b, request)
	if err != nil {
		return nil, err
	}
	m.Reset()
	return &m, proto.Unmarshal(b, &m)
}

// take takes a message of an Envoy. It is answered at once: what cannot be handed on is dropped, and Envoy need not wait for that.
func (r *relay) take(m *collectorpb.ExportTraceServiceRequest) {
	n := 0
	for _, one := range m.GetResourceSpans() {
		for _, s := range one.GetScopeSpans() {
			n += len(s.GetSpans())
		}
	}
	r.m.relayed.Add(float64(n))
	select {
	case r.queue <- m.GetResourceSpans():
	default:
		r.m.dropped.Add(float64(n))
	}
}

func (r *relay) run() {
	defer close(r.done)
	for {
		select {
		case m := <-r.queue:
			r.send(m)
			continue
		default:
		}
		select {
		case m := <-r.queue:
			r.send(m)
		case <-r.stop:
			return
		}
	}
}

func (r *relay) send(m []*tracepb.ResourceSpans) {
	if err := r.client.UploadTraces(r.ctx, m); err != nil {
		r.failed(err)
	}
}

// close sends what waits, until ctx ends.
func (r *relay) close(ctx context.Context) error {
	close(r.stop)
	defer r.cancel()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		r.cancel()
		<-r.done
		return ctx.Err()
	}
}
