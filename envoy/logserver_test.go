// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// exporter serves s and returns what an Envoy does: it sends a message and gets the code of the answer.
func exporter(t *testing.T, s *LogServer) func(message []byte) codes.Code {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(message []byte) codes.Code {
		var in, out emptypb.Empty
		in.ProtoReflect().SetUnknown(message)
		return status.Code(conn.Invoke(t.Context(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export", &in, &out))
	}
}

func TestMessageIsAnsweredOnceItsLinesAreTaken(t *testing.T) {
	var log, taken bytes.Buffer
	var full error
	registry := prometheus.NewRegistry()
	export := exporter(t, NewLogServer(LogServerOptions{
		Append: func(lines []byte) error {
			if full == nil {
				taken.Write(lines)
			}
			return full
		},
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry,
	}))
	one := sentMessage(sentRecord("kind", "attempt", "exchange", "1\xff"), sentRecord("kind", "attempt", "exchange", "2"))
	if c := export(one); c != codes.OK {
		t.Errorf("got %s", c)
	}
	full = errors.New("no space")
	if c := export(one); c != codes.Unavailable {
		t.Errorf("with a full volume: got %s, want one that Envoy tries again after", c)
	}
	full = io.EOF
	if c := export(field(nil, 1, []byte{0x12, 0xff})); c != codes.InvalidArgument {
		t.Errorf("what is no message: got %s, want one that Envoy gives up after", c)
	}
	if c := export(nil); c != codes.OK {
		t.Errorf("nothing: got %s", c)
	}
	full = nil
	if c := export(sentMessage(sentRecord("kind", "other"), sentRecord("kind", "attempt"))); c != codes.OK {
		t.Errorf("an unknown record: got %s", c)
	}
	if n := strings.Count(taken.String(), "\n"); n != 3 {
		t.Errorf("got %d lines, want 3: %s", n, &taken)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("got %d errors in the log, want 2:\n%s", n, &log)
	}
	want := map[string]float64{
		"weir_usage_grpc_messages_total": 3, "weir_usage_grpc_lines_total": 3, "weir_usage_grpc_refused_messages_total": 1, "weir_usage_grpc_malformed_total": 2,
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if got := f.GetMetric()[0].GetCounter().GetValue(); got != want[f.GetName()] {
			t.Errorf("%s is %v, want %v", f.GetName(), got, want[f.GetName()])
		}
		delete(want, f.GetName())
	}
	if len(want) > 0 {
		t.Errorf("there is no %v", want)
	}
}
