// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// serve runs a server on a Unix socket and returns a client of it.
func serve(t *testing.T, s *Server) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(t.Context(), g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

// node returns what an Envoy with this bootstrap says of itself.
func node(t *testing.T, o BootstrapOptions) *corev3.Node {
	t.Helper()
	b, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Node json.RawMessage }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	var n corev3.Node
	if err := protojson.Unmarshal(all.Node, &n); err != nil {
		t.Fatal(err)
	}
	return &n
}

type stream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// listen asks for the listener as an Envoy does, and returns what the server answers.
func listen(ctx context.Context, t *testing.T, c discoveryv3.AggregatedDiscoveryServiceClient, n *corev3.Node) (stream, string, error) {
	t.Helper()
	str, err := c.DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := str.Send(&discoveryv3.DeltaDiscoveryRequest{Node: n, TypeUrl: resourcev3.ListenerType}); err != nil {
		t.Fatal(err)
	}
	answer, err := str.Recv()
	if err != nil {
		return str, "", err
	}
	if len(answer.GetResources()) != 1 {
		t.Fatalf("got %d listeners", len(answer.GetResources()))
	}
	return str, string(answer.GetResources()[0].GetResource().GetValue()), nil
}

func TestEachEnvoyIsToldALogOfItsOwn(t *testing.T) {
	s := NewServer(testGateway(), slog.New(slog.DiscardHandler))
	client := serve(t, s)
	if err := s.Set(t.Context(), goldens()["openai"]); err != nil {
		t.Fatal(err)
	}
	_, first, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1"}))
	if err != nil || !strings.Contains(first, "log/exchanges.jsonl") {
		t.Errorf("got %v, want the usual log in %q", err, first)
	}
	second, l, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:2", Node: "second"}))
	if err != nil || !strings.Contains(l, "log/exchanges.second.jsonl") || strings.Contains(l, "log/exchanges.jsonl") {
		t.Errorf("got %v, want a log of its own in %q", err, l)
	}
	st := s.Status()
	if len(st.Envoys) != 2 || st.Envoys[0].ID != "second" || st.Envoys[0].Admin != "127.0.0.1:2" || st.Envoys[1].ID != NodeID {
		t.Errorf("got %+v", st)
	}

	g := s.gateway
	s.gateway.Listen = "127.0.0.1:9999" // any change: both hear of it, each still with its own log
	if err := s.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.gateway = g
	if err := second.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ListenerType, ResponseNonce: "1"}); err != nil {
		t.Fatal(err)
	}
	answer, err := second.Recv()
	if err != nil || !strings.Contains(string(answer.GetResources()[0].GetResource().GetValue()), "log/exchanges.second.jsonl") {
		t.Errorf("after a change: got %v, %v", answer, err)
	}
}

func TestEachEnvoyIsToldToLogAsItSays(t *testing.T) {
	const file, grpc = "/envoy.extensions.access_loggers.file.v3.FileAccessLog", "/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"
	for usual, want := range map[AccessLog]string{"": file, AccessLogFile: file, AccessLogGRPC: grpc} {
		g := testGateway()
		g.AccessLog = usual
		s := NewServer(g, slog.New(slog.DiscardHandler))
		client := serve(t, s)
		if err := s.Set(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			node string
			says AccessLog
			want string
		}{{"silent", "", want}, {"near", AccessLogFile, file}, {"far", AccessLogGRPC, grpc}} {
			_, l, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1", Node: c.node, AccessLog: c.says}))
			if err != nil || strings.Count(l, c.want) != 2 || strings.Count(l, file)+strings.Count(l, grpc) != 2 {
				t.Errorf("processor says %q, Envoy %q: got %v, want two times %s", usual, c.says, err, c.want)
			}
		}
		for _, e := range s.Status().Envoys {
			if e.ID == "far" && e.AccessLog != AccessLogGRPC || e.ID == "near" && e.AccessLog != AccessLogFile || e.AccessLog == "" {
				t.Errorf("got %+v", e)
			}
		}
	}
	client := serve(t, NewServer(testGateway(), slog.New(slog.DiscardHandler)))
	about, err := structpb.NewStruct(map[string]any{"access_log": "both"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := listen(t.Context(), t, client, &corev3.Node{Id: "weir", Metadata: about}); err == nil || !strings.Contains(err.Error(), `"both" is neither file nor grpc`) {
		t.Errorf("an unknown way: got %v", err)
	}
}

func TestAnEnvoyIsGivenTheTapThatItHas(t *testing.T) {
	const native, lua = "/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter", "/envoy.extensions.filters.http.lua.v3.Lua"
	s := NewServer(testGateway(), slog.New(slog.DiscardHandler))
	client := serve(t, s)
	if err := s.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		node, module, want, not string
		tap                     Tap
	}{
		{"ours", "/var/lib/weir/tap-1.so", native, lua, TapNative},
		{"other", "", lua, native, TapLua},
	} {
		_, l, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1", Node: c.node, TapModule: c.module}))
		if err != nil || !strings.Contains(l, c.want) || strings.Contains(l, c.not) || !strings.Contains(l, c.module) {
			t.Errorf("%s: got %v, want %s with %q", c.node, err, c.want, c.module)
		}
		for _, e := range s.Status().Envoys {
			if e.ID == c.node && e.Tap != c.tap {
				t.Errorf("%s: got %s, want %s", c.node, e.Tap, c.tap)
			}
		}
	}
}

func TestBootstrapRefusesWhatCannotBeReached(t *testing.T) {
	for _, o := range []BootstrapOptions{
		{Processor: "weir.internal", Admin: "127.0.0.1:1"},
		{Processor: "weir.internal:x", Admin: "127.0.0.1:1"},
		{Socket: "s", Admin: "127.0.0.1:1", AccessLog: "both"},
		{Socket: "s", Admin: "127.0.0.1"},
		{Socket: "s", Admin: "127.0.0.1:x"},
	} {
		if b, err := Bootstrap(o); err == nil {
			t.Errorf("%+v: got %s", o, b)
		}
	}
	for processor, want := range map[string]string{"": `"path":`, "10.0.0.5:10005": `"STATIC"`, "weir.internal:10005": `"envoy.cluster.dns"`} {
		b, err := Bootstrap(BootstrapOptions{Socket: "s", Processor: processor, Admin: "127.0.0.1:1"})
		if err != nil || !strings.Contains(strings.ReplaceAll(string(b), `": `, `":`), want) {
			t.Errorf("%q: got %v, want %s in %s", processor, err, want, b)
		}
	}
}

// TestABareConfigurationIsForNewcomersOnly: an Envoy that was configured by an earlier processor keeps its clusters, and so its exchanges,
// while there is nothing to configure it by.
func TestABareConfigurationIsForNewcomersOnly(t *testing.T) {
	s := NewServer(testGateway(), slog.New(slog.DiscardHandler))
	client := serve(t, s)
	if err := s.Bare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, l, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1"})); err != nil || l == "" {
		t.Errorf("a newcomer got %q, %v; want a listener", l, err)
	}
	old, err := client.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:2", Node: "old"}), TypeUrl: resourcev3.ClusterType,
		InitialResourceVersions: map[string]string{"channel-1": "x", deniedCluster: "x"},
	}); err != nil {
		t.Fatal(err)
	}
	for len(s.Status().Envoys) < 2 { // until it was heard
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
		runtime.Gosched()
	}
	if _, err := s.cache.GetSnapshot("old"); err == nil {
		t.Error("an Envoy with a configuration was given a bare one")
	}
	if err := s.Set(t.Context(), goldens()["openai"]); err != nil {
		t.Fatal(err)
	}
	answer, err := old.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GetResources()) == 0 {
		t.Errorf("with channels it got %v, want clusters", answer)
	}
}

func TestConnectionIsToldOfBeforeTheConfiguration(t *testing.T) {
	s := NewServer(testGateway(), slog.New(slog.DiscardHandler))
	var told []string
	s.OnConnect(func(n Node) {
		if _, err := s.cache.GetSnapshot(n.ID); err == nil {
			t.Errorf("%s has its configuration already", n.ID)
		}
		told = append(told, n.ID)
	})
	client := serve(t, s)
	if err := s.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		str, _, err := listen(t.Context(), t, client, node(t, BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1", Node: name}))
		if err != nil {
			t.Fatal(err)
		}
		if err := str.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType}); err != nil {
			t.Fatal(err)
		}
		if _, err := str.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(told, []string{"a", "b"}) {
		t.Errorf("told of %v", told)
	}
}

func TestSecondEnvoyOfTheSameNameIsTurnedAwayUntilTheFirstIsGone(t *testing.T) {
	s := NewServer(testGateway(), slog.New(slog.DiscardHandler))
	client := serve(t, s)
	if err := s.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	o := BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1"}
	first := node(t, o)
	ctx, leave := context.WithCancel(t.Context())
	if _, _, err := listen(ctx, t, client, first); err != nil {
		t.Fatal(err)
	}
	o.Instance = "other"
	if _, _, err := listen(t.Context(), t, client, node(t, o)); err == nil || !strings.Contains(err.Error(), `another Envoy is called "weir" already`) {
		t.Errorf("a second one: got %v", err)
	}
	again, leaveAgain := context.WithCancel(t.Context())
	if _, _, err := listen(again, t, client, first); err != nil { // the same one, whose old stream is not known to be dead yet
		t.Errorf("the same one: got %v", err)
	}
	leave()
	leaveAgain()
	for len(s.Status().Envoys) > 0 {
		if t.Context().Err() != nil {
			t.Fatal("it is never seen to be gone")
		}
	}
	if _, _, err := listen(t.Context(), t, client, node(t, o)); err != nil {
		t.Errorf("its successor: got %v", err)
	}
}

func TestEnvoyAsksForItsConfigurationEachSecond(t *testing.T) {
	raw, err := Bootstrap(BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	services := b.GetDynamicResources().GetAdsConfig().GetGrpcServices()
	pause := services[0].GetEnvoyGrpc().GetRetryPolicy().GetRetryBackOff()
	if most := pause.GetMaxInterval().AsDuration(); most <= 0 || most > time.Second {
		t.Errorf("a processor that was away is without Envoys for up to %v; Envoy's own measure is 30 s", most)
	}
	if first := pause.GetBaseInterval().AsDuration(); first < 10*time.Millisecond {
		t.Errorf("a processor that is away is asked each %v", first)
	}
}

func TestNamesOfEnvoysAreFitForFiles(t *testing.T) {
	for name, ok := range map[string]bool{
		"weir": true, "b": true, "node-12": true, strings.Repeat("x", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a/b": false, "..": false, "jsonl": false, "grpc": false, strings.Repeat("x", 33): false, "ä": false,
	} {
		if err := CheckNode(name); (err == nil) != ok {
			t.Errorf("%q: got %v", name, err)
		}
	}
	if _, err := Bootstrap(BootstrapOptions{Socket: "s", Admin: "127.0.0.1:1", Node: "a/b"}); err == nil {
		t.Error("a bootstrap was made for a/b")
	}
	client := serve(t, NewServer(testGateway(), slog.New(slog.DiscardHandler)))
	if _, _, err := listen(t.Context(), t, client, &corev3.Node{Id: "../a"}); err == nil {
		t.Error("a configuration was served to ../a")
	}
	if got := LogFile("/d.x/exchanges.jsonl", "b"); got != "/d.x/exchanges.b.jsonl" {
		t.Errorf("got %s", got)
	}
}

func TestWhatEnvoySaysOfItsLogs(t *testing.T) {
	stats, reopen := "", http.StatusOK
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /reopen_logs":
			w.WriteHeader(reopen)
		case "GET /stats":
			_, _ = w.Write([]byte(stats))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer admin.Close()
	address := admin.Listener.Addr().String()
	if err := Reopen(t.Context(), address); err != nil {
		t.Error(err)
	}
	reopen = http.StatusBadRequest
	if err := Reopen(t.Context(), address); err == nil || !strings.Contains(err.Error(), "status 400") {
		t.Errorf("got %v", err)
	}
	stats = "filesystem.reopen_failed: 1\nfilesystem.write_failed: 41\n"
	if n, err := WriteFailures(t.Context(), address); err != nil || n != 42 {
		t.Errorf("got %d, %v, want 42", n, err)
	}
	for _, stats = range []string{"", "filesystem.write_failed: 1\n", "filesystem.reopen_failed: x\nfilesystem.write_failed: 1\n"} {
		if n, err := WriteFailures(t.Context(), address); err == nil {
			t.Errorf("%q: got %d", stats, n)
		}
	}
	admin.Close()
	if _, err := WriteFailures(t.Context(), address); err == nil {
		t.Error("an Envoy that is gone answered")
	}
}
