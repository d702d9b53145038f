// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"io"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// endLog has Envoy tell at once when an exchange has ended that counts among those at once: the client may send its next request in the same moment, and must
// not be refused for the one before. The line of the access log, which tells more and is never lost, comes up to half a second later.
func endLog() (*accesslogv3.AccessLog, error) {
	packed, err := anypb.New(&grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: "weir_ends",
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: processorCluster},
		}},
		TransportApiVersion: corev3.ApiVersion_V3,
		BufferSizeBytes:     wrapperspb.UInt32(0), // each by itself, and at once
	}})
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.http_grpc",
		Filter: allOf(present("weir.tap", "counted"), &accesslogv3.AccessLogFilter{
			FilterSpecifier: &accesslogv3.AccessLogFilter_LogTypeFilter{
				LogTypeFilter: &accesslogv3.LogTypeFilter{Types: []datav3.AccessLogType{datav3.AccessLogType_DownstreamEnd}},
			},
		}),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed},
	}, err
}

// EndServer hears from Envoys which exchanges have ended, of those that count among exchanges at once. What is said while nobody listens is lost.
type EndServer struct {
	servicev3.UnimplementedAccessLogServiceServer

	ctx   context.Context //nolint:containedctx // the life of the server, not of a call: streams last until one of them ends
	ended func(exchange uuid.UUID)
}

var _ servicev3.AccessLogServiceServer = (*EndServer)(nil)

// RegisterEndServer adds an [EndServer] to the processor's gRPC server. Its streams end with ctx. Ended is called by a goroutine for each Envoy, and must return
// quickly.
func RegisterEndServer(ctx context.Context, g *grpc.Server, ended func(exchange uuid.UUID)) {
	servicev3.RegisterAccessLogServiceServer(g, &EndServer{ctx: ctx, ended: ended})
}

// StreamAccessLogs implements [servicev3.AccessLogServiceServer].
func (s *EndServer) StreamAccessLogs(stream servicev3.AccessLogService_StreamAccessLogsServer) error {
	done := make(chan error, 1)
	go func() { done <- s.receive(stream) }() // ends with the stream, and that with this call
	select {
	case err := <-done:
		return err
	case <-s.ctx.Done():
		return nil
	}
}

func (s *EndServer) receive(stream servicev3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			weir := e.GetCommonProperties().GetMetadata().GetFilterMetadata()["weir"]
			if id, err := uuid.Parse(weir.GetFields()["exchange"].GetStringValue()); err == nil {
				s.ended(id)
			}
		}
	}
}
