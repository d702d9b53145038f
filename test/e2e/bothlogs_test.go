// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
	"github.com/weir-proxy/weir/usage"
)

// Whether Envoy writes a line or sends it must make no difference: one Envoy does both here.
func TestALineThatWasSentIsTheLineOfTheFile(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	second := w.Provider(fakeAt("/v1"))
	other := w.Channel(store.NewChannel{Name: "two", BaseURL: second.URL, Priority: -1})
	w.Settle()
	file := filepath.Join(t.TempDir(), "exchanges.jsonl")
	w.URL = startBoth(t, w, file, []store.Channel{w.channel, other}, []string{w.provider.URL, second.URL})

	w.post(t, "/v1/chat/completions", hello)
	w.post(t, "/v1/chat/completions", helloStream)
	w.post(t, "/v1/embeddings", `{"model":"text-embedding-3-small","input":"ä"}`)
	w.post(t, "/v1/chat/completions", helloStream, "x-fake-cut-after", "3", "x-fake-interval-ms", "20")
	w.post(t, "/v1/chat/completions", helloStream, "x-fake-tokens", "120", "x-fake-interval-ms", "20") // lines of a stream that lives
	leave(t, w)
	w.provider.Force(fake.Behavior{Status: 429, RetryAfter: time.Second})
	if a := w.post(t, "/v1/chat/completions", hello); a.status != 200 {
		t.Errorf("failover: status %d", a.status)
	}
	second.Stop()
	w.post(t, "/v1/chat/completions", hello) // a 429, and no connection

	w.Eventually("all is in both logs", func() error {
		written, sent := linesOf(t, file), linesOf(t, filepath.Join(w.LogDir, usage.SentLog))
		if count(written, `"log_type":"DownstreamEnd"`) != 8 || count(written, `"kind":"attempt"`) < 4 || len(written) != len(sent) {
			return fmt.Errorf("%d lines were written, %d sent:\n%s", len(written), len(sent), strings.Join(written, "\n"))
		}
		return nil
	})
	written, sent := linesOf(t, file), linesOf(t, filepath.Join(w.LogDir, usage.SentLog))
	if n := count(written, `"log_type":"DownstreamPeriodic"`); n == 0 {
		t.Error("there is no line of a stream that lives")
	}
	// The two logs are told of an exchange that is under way one after the other, so a millisecond may pass between them.
	under := regexp.MustCompile(`"duration":\d+(.*"log_type":"DownstreamPeriodic")`)
	for _, lines := range [][]string{sent, written} {
		for i := range lines {
			lines[i] = under.ReplaceAllString(lines[i], `"duration":0$1`)
		}
		slices.Sort(lines)
	}
	if diff := cmp.Diff(sent, written); diff != "" {
		t.Errorf("sent -, written +:\n%s", diff)
	}
	w.Rows(8)
}

func count(lines []string, what string) (n int) {
	for _, l := range lines {
		if strings.Contains(l, what) {
			n++
		}
	}
	return n
}

// linesOf returns the lines of a log; without one, none.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// leave begins a stream and hangs up in the middle of it.
func leave(t *testing.T, w *world) (exchange string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(helloStream))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	r.Header.Set("x-fake-interval-ms", "20")
	r.Header.Set("x-fake-tokens", "1000")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 2000); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = resp.Body.Close()
	return resp.Header.Get("x-weir-exchange-id")
}

// startBoth runs a second Envoy that has its configuration from a file, and logs in both ways. It returns where it listens.
func startBoth(t *testing.T, w *world, file string, channels []store.Channel, urls []string) string {
	t.Helper()
	var list []envoy.Channel
	for i, c := range channels {
		list = append(list, envoy.Channel{ID: c.ID, Name: c.Name, Dialect: envoy.Fake, BaseURL: urls[i], Credential: "sk-" + c.Name})
	}
	g := envoy.Gateway{
		Listen: freeAddress(t), LogFile: file, CAFile: "/dev/null", MaxBodyBytes: 1 << 20, ForwardFake: true,
		Timeouts: envoy.Timeouts{Connect: time.Second, FirstByte: 10 * time.Second, Idle: time.Minute, Total: time.Minute},
	}
	written, err := envoy.Resources(g, list)
	if err != nil {
		t.Fatal(err)
	}
	g.AccessLog = envoy.AccessLogGRPC
	sent, err := envoy.Resources(g, list)
	if err != nil {
		t.Fatal(err)
	}
	admin := freeAddress(t)
	raw, err := envoy.Bootstrap(envoy.BootstrapOptions{Socket: filepath.Join(w.Dir, "weir.sock"), Admin: admin})
	if err != nil {
		t.Fatal(err)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	b.DynamicResources = nil
	l := written[resourcev3.ListenerType][0].(*listenerv3.Listener)
	merge(t, l, sent[resourcev3.ListenerType][0].(*listenerv3.Listener))
	b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	for _, c := range written[resourcev3.ClusterType] {
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c.(*clusterv3.Cluster))
	}
	for _, s := range written[resourcev3.SecretType] {
		b.StaticResources.Secrets = append(b.StaticResources.Secrets, s.(*tlsv3.Secret))
	}
	runBoth(t, w, staticJSON(t, b), admin)
	return "http://" + g.Listen
}

// merge has a listener log in the way of another too, and tell of long streams each second.
func merge(t *testing.T, into, from *listenerv3.Listener) {
	t.Helper()
	a, b := &hcmv3.HttpConnectionManager{}, &hcmv3.HttpConnectionManager{}
	unpack(t, into.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), a)
	unpack(t, from.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), b)
	a.AccessLog = append(a.AccessLog, b.GetAccessLog()...)
	a.AccessLogOptions.AccessLogFlushInterval = durationpb.New(time.Second)
	last := len(a.GetHttpFilters()) - 1
	x, y := &routerv3.Router{}, &routerv3.Router{}
	unpack(t, a.GetHttpFilters()[last].GetTypedConfig(), x)
	unpack(t, b.GetHttpFilters()[last].GetTypedConfig(), y)
	x.UpstreamLog = append(x.UpstreamLog, y.GetUpstreamLog()...)
	a.HttpFilters[last].ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, x)}
	into.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, a)}
}

func unpack(t *testing.T, from *anypb.Any, into proto.Message) {
	t.Helper()
	if err := from.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// staticJSON is a bootstrap whose clusters take their credentials from the secrets in it.
func staticJSON(t *testing.T, b *bootstrapv3.Bootstrap) []byte {
	t.Helper()
	raw, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var drop func(any)
	drop = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "sdsConfig")
			for _, e := range v {
				drop(e)
			}
		case []any:
			for _, e := range v {
				drop(e)
			}
		}
	}
	drop(v)
	raw, err = json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func runBoth(t *testing.T, w *world, bootstrap []byte, admin string) {
	t.Helper()
	binary, err := envoy.Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- envoy.Run(ctx, envoy.RunOptions{
			Binary: binary, Bootstrap: bootstrap, Dir: w.Dir, Node: "both", Admin: admin, Concurrency: 1, Log: &log,
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil || t.Failed() {
			t.Errorf("the second Envoy: %v\n%s", err, &log)
		}
	})
	w.Eventually("the second Envoy is ready", func() error { return envoy.Ready(t.Context(), admin) })
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was there for its address
	return l.Addr().String()
}
