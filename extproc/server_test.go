// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-proxy/weir/policy"
)

// serve runs a server as Envoy meets it, and returns a client of it.
func serve(tb testing.TB, o Options) extprocv3.ExternalProcessorClient {
	tb.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(ServerOptions(o.Engine.MaxBodyBytes())...)
	extprocv3.RegisterExternalProcessorServer(server, New(o))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			tb.Error(err)
		}
		server.Stop()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	return extprocv3.NewExternalProcessorClient(conn)
}

// chat returns the messages of a chat request.
func chat(tb testing.TB, key string, body []byte) (headers, bodyMessage *extprocv3.ProcessingRequest) {
	tb.Helper()
	headers, _ = message(0x40, nil)
	for _, h := range headers.GetRequestHeaders().GetHeaders().GetHeaders() {
		if h.GetKey() == "authorization" {
			h.RawValue = []byte("Bearer " + key)
		}
	}
	bodyMessage, _ = message(0x4A, body)
	return headers, bodyMessage
}

// exchange sends messages one by one and returns the answers; the server must then close the stream by itself, without an error.
func exchange(tb testing.TB, client extprocv3.ExternalProcessorClient, messages ...*extprocv3.ProcessingRequest) []*extprocv3.ProcessingResponse {
	tb.Helper()
	stream, err := client.Process(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var answers []*extprocv3.ProcessingResponse
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			tb.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			tb.Fatal(err)
		}
		answers = append(answers, answer)
	}
	if answer, err := stream.Recv(); !errors.Is(err, io.EOF) {
		tb.Fatalf("after the decision: %v, %v, want the end of the stream", answer, err)
	}
	return answers
}

func TestServerClosesTheStreamAfterTheDecision(t *testing.T) {
	t.Parallel()
	client := serve(t, Options{Engine: testEngine(t)})
	headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o"}`))
	answers := exchange(t, client, headers, body)
	if groups(answers[1].GetDynamicMetadata()) != 2 {
		t.Errorf("admitted with %v, want two channels", answers[1].GetDynamicMetadata())
	}
	headers, _ = chat(t, "sk-wrong", nil)
	if got := exchange(t, client, headers)[0].GetImmediateResponse().GetStatus().GetCode(); got != 401 {
		t.Errorf("a bad key gets %d before the body, want 401", got)
	}
	models, _ := message(1, nil)
	if got := exchange(t, client, models)[0].GetImmediateResponse().GetStatus().GetCode(); got != 200 {
		t.Errorf("models get %d, want 200", got)
	}
}

func TestServerTakesBodiesUpToTheLimit(t *testing.T) {
	t.Parallel()
	engine := testEngine(t)
	client := serve(t, Options{Engine: engine})
	const frame = `{"model":"gpt-4o","stream":true,"x":""}`
	for size, status := range map[int64]int32{engine.MaxBodyBytes(): 0, engine.MaxBodyBytes() + 1: 413} {
		body := []byte(frame[:len(frame)-2] + strings.Repeat("x", int(size)-len(frame)) + frame[len(frame)-2:])
		headers, bodyMessage := chat(t, "sk-good", body)
		answer := exchange(t, client, headers, bodyMessage)[1]
		if got := int32(answer.GetImmediateResponse().GetStatus().GetCode()); got != status {
			t.Errorf("%d bytes: status %d, want %d", size, got, status)
		}
		changed := answer.GetRequestBody().GetResponse().GetBodyMutation().GetBody()
		if status == 0 && len(changed) != len(body)+len(`,"stream_options":{"include_usage":true}`) {
			t.Errorf("%d bytes: %d forwarded", size, len(changed))
		}
	}
}

func TestServerEndsWhenEnvoyDoes(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	client := serve(t, Options{Engine: testEngine(t), Registerer: registry})
	headers, _ := chat(t, "sk-good", nil)

	half, err := client.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(half.Send(headers), half.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if _, err := half.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := half.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after Envoy's half-close: %v, want the end of the stream", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	reset, err := client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := reset.Send(headers); err != nil {
		t.Fatal(err)
	}
	if _, err := reset.Recv(); err != nil {
		t.Fatal(err)
	}
	if got := metric(t, registry, "weir_extproc_streams", ""); got != 1 {
		t.Errorf("%v streams are open, want 1", got)
	}
	cancel()
	deadline := time.Now().Add(10 * time.Second)
	for metric(t, registry, "weir_extproc_streams", "") != 0 {
		if time.Now().After(deadline) {
			t.Fatal("the stream is still open 10s after Envoy reset it")
		}
	}
}

// broken is a Health that panics.
type broken struct{}

func (broken) Cooling(policy.ChannelID, time.Time) bool { panic("health is ill") }

func TestPanicCostsOneRequestOnly(t *testing.T) {
	t.Parallel()
	engine := policy.New(policy.Options{Health: broken{}})
	engine.SetSnapshot(testSnapshot(t))
	registry := prometheus.NewRegistry()
	var log bytes.Buffer
	client := serve(t, Options{Engine: engine, Registerer: registry, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	for range 2 {
		headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o","messages":["private"]}`))
		answer := exchange(t, client, headers, body)[1].GetImmediateResponse()
		if answer.GetStatus().GetCode() != 500 || !strings.Contains(string(answer.GetBody()), policy.CodeInternal) {
			t.Errorf("answer %v, want 500 %s", answer, policy.CodeInternal)
		}
		if strings.Contains(string(answer.GetBody()), "ill") {
			t.Errorf("the client learns of the cause: %s", answer.GetBody())
		}
	}
	if got := metric(t, registry, "weir_extproc_panics_total", ""); got != 2 {
		t.Errorf("%v panics counted, want 2", got)
	}
	for _, want := range []string{"health is ill", "exchange_id", "Cooling"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	for _, secret := range []string{"sk-good", "private"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log says %q", secret)
		}
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	var log bytes.Buffer
	server := New(Options{
		Engine: testEngine(t), Registerer: registry,
		Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	play := func(ops ...byte) {
		x := session{server: server}
		for _, op := range ops {
			m, _ := message(op, nil)
			server.timed(t.Context(), &x, m)
		}
	}
	play(0x40, 0x47) // admitted
	play(0x40, 0x47)
	play(0x41)       // the list of models
	play(0x42)       // a bad key
	play(0x40, 0x4A) // an empty body
	play(0x47)       // a body without headers
	for name, want := range map[string]float64{"admitted": 2, "answered": 1, "invalid_api_key": 1, "invalid_request_error": 1, "internal_error": 1} {
		if got := metric(t, registry, "weir_admissions_total", name); got != want {
			t.Errorf("%s: counted %v, want %v", name, got, want)
		}
	}
	if got := metric(t, registry, "weir_extproc_misconfigured_total", ""); got != 1 {
		t.Errorf("misconfigured: counted %v, want 1", got)
	}
	for phase, want := range map[string]float64{"headers": 5, "body": 4} {
		if got := metric(t, registry, "weir_extproc_step_seconds", phase); got != want {
			t.Errorf("steps of %s: %v observed, want %v", phase, got, want)
		}
	}
	if n := strings.Count(log.String(), `"msg":"decided"`); n != 6 {
		t.Errorf("%d decisions in the debug log, want 6:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "unexpected message") {
		t.Errorf("the log does not say what Envoy did wrong:\n%s", log.String())
	}
}

// metric returns the value of a metric, of those with the label value if that is not empty; a histogram's is its count.
func metric(tb testing.TB, g prometheus.Gatherer, name, label string) float64 {
	tb.Helper()
	families, err := g.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := label == ""
			for _, l := range m.GetLabel() {
				found = found || l.GetValue() == label
			}
			if found {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}
