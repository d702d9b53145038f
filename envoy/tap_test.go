// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weir-proxy/weir/envoy/native"
	"github.com/weir-proxy/weir/internal/repo"
)

// taps is an Envoy with a listener for each tap and each thing that the processor may ask of it, and a provider that answers as it is told.
type taps struct {
	t        testing.TB
	log      string
	provider *httptest.Server

	mu      sync.Mutex
	scripts map[string]script
}

// script is an answer of the provider.
type script struct {
	status  int
	kind    string   // content-type
	length  bool     // say how long the body is
	pieces  []string // each is sent by itself
	cut     bool     // the connection breaks behind the last
	trailer bool     // something follows the body
}

// asked is what the processor may ask of a tap.
var asked = []map[string]any{
	nil, // not admitted
	{"id": "01890a5d-ac96-774b-bcce-b302099a8057"},
	{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "strip": true, "headers": "x-ratelimit-limit-requests: 10\nx-ratelimit-remaining-tokens: 0:5\n"},
}

func startTaps(t *testing.T) *taps {
	t.Helper()
	binary, err := Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	module, err := WriteTap(t.Context(), binary, dir)
	if err != nil && native.Module(runtime.GOOS, runtime.GOARCH) != nil && os.Getenv("WEIR_REQUIRE_ALL") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("SKIP: no native tap to compare with: %v", err)
	}
	p := &taps{t: t, log: filepath.Join(dir, "log"), scripts: map[string]script{}}
	p.provider = httptest.NewServer(http.HandlerFunc(p.answer))
	t.Cleanup(p.provider.Close)
	b := &bootstrapv3.Bootstrap{
		Admin:           &bootstrapv3.Admin{Address: socket(t, filepath.Join(dir, "admin"))},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{p.cluster()}},
	}
	for kind, module := range map[Tap]string{TapLua: "", TapNative: module} {
		for i := range asked {
			b.StaticResources.Listeners = append(b.StaticResources.Listeners, p.listener(Gateway{TapModule: module}.tap(), p.socket(kind, i), asked[i]))
		}
	}
	config, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var said bytes.Buffer
	go func() {
		done <- Run(ctx, RunOptions{Binary: binary, Bootstrap: config, Dir: dir, Concurrency: 1, Log: &said})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil || t.Failed() {
			t.Logf("envoy: %v\n%s", err, said.String())
		}
	})
	p.eventually("envoy listens", func() bool {
		for i := range asked {
			for _, kind := range []Tap{TapLua, TapNative} {
				c, err := net.Dial("unix", p.socket(kind, i))
				if err != nil {
					return false
				}
				_ = c.Close()
			}
		}
		return true
	})
	return p
}

func (p *taps) socket(kind Tap, i int) string {
	return filepath.Join(filepath.Dir(p.log), string(kind)+strconv.Itoa(i))
}

func socket(t testing.TB, path string) *corev3.Address {
	t.Helper()
	if len(path) > 100 {
		t.Fatalf("%s is too long for a socket", path)
	}
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (p *taps) cluster() *clusterv3.Cluster {
	host, port, err := net.SplitHostPort(p.provider.Listener.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		p.t.Fatal(err)
	}
	return &clusterv3.Cluster{Name: "provider", LoadAssignment: assignment("provider", &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)}},
	}}, "")}
}

func (p *taps) listener(tap namedFilter, path string, meta map[string]any) *listenerv3.Listener {
	list := []namedFilter{tap, {"envoy.filters.http.router", &routerv3.Router{}}}
	if meta != nil {
		value, err := structpb.NewStruct(meta)
		if err != nil {
			p.t.Fatal(err)
		}
		list = append([]namedFilter{{"envoy.filters.http.set_metadata", &metadatav3.Config{
			Metadata: []*metadatav3.Metadata{{MetadataNamespace: "weir.tap", Value: value}},
		}}}, list...)
	}
	filters, err := httpFilters(list)
	if err != nil {
		p.t.Fatal(err)
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: "tap", HttpFilters: filters,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "provider"}}},
			}},
		}}}},
		AccessLog: []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{
			TypedConfig: packed(p.t, &filelogv3.FileAccessLog{Path: p.log, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{
				LogFormat: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{
					Fields: map[string]*structpb.Value{
						"path":  structpb.NewStringValue("%REQ(:PATH)%"),
						"usage": structpb.NewStringValue("%DYNAMIC_METADATA(weir.usage:last)%"),
					},
				}}},
			}}),
		}}},
	}
	return &listenerv3.Listener{
		Name: filepath.Base(path), Address: socket(p.t, path),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(p.t, manager)},
		}}}},
	}
}

func (p *taps) answer(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	s := p.scripts[r.URL.Path]
	p.mu.Unlock()
	w.Header().Set("content-type", s.kind)
	if s.length {
		w.Header().Set("content-length", strconv.Itoa(len(strings.Join(s.pieces, ""))))
	}
	if s.trailer {
		w.Header().Set("trailer", "x-after")
	}
	w.WriteHeader(s.status)
	for _, piece := range s.pieces {
		_, _ = io.WriteString(w, piece) // who has gone needs no answer
		_ = http.NewResponseController(w).Flush()
	}
	if s.cut {
		panic(http.ErrAbortHandler)
	}
	if s.trailer {
		w.Header().Set("x-after", "1")
	}
}

// result is what a client gets, and what is logged.
type result struct {
	Status int
	Header http.Header
	Body   string
	Cut    bool
	Usage  string
}

var parts = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// get asks for the path. What is logged comes later.
func (p *taps) get(kind Tap, i int, path string) result {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.socket(kind, i))
	}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weir"+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		p.t.Fatalf("%s: %v", path, err)
	}
	out := result{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Cut: err != nil}
	for _, noise := range []string{"Date", "X-Envoy-Upstream-Service-Time"} {
		out.Header.Del(noise)
	}
	if id := out.Header.Get("x-weir-exchange-id"); asked[i] == nil && parts.MatchString(id) {
		out.Header.Set("x-weir-exchange-id", "a new one")
	}
	return out
}

// usages waits until n lines are in the log, and returns the usage of each by its path.
func (p *taps) usages(n int) map[string]string {
	p.t.Helper()
	var out map[string]string
	p.eventually(fmt.Sprintf("%d lines", n), func() bool {
		b, _ := os.ReadFile(p.log) // not yet there
		out = map[string]string{}
		for line := range bytes.Lines(b) {
			var l struct {
				Path  string
				Usage string
			}
			if json.Unmarshal(line, &l) == nil {
				out[l.Path] = l.Usage
			}
		}
		return len(out) == n
	})
	return out
}

func (p *taps) eventually(what string, f func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not in time", what)
		}
		<-tick.C
	}
}

const (
	aUsage     = `{"prompt_tokens":9,"completion_tokens":2,"details":{"note":"a } in \" it"}}`
	usageChunk = `data: {"id":"x","choices":[],"usage":` + aUsage + "}\n\n"
	aChunk     = `data: {"id":"x","choices":[{"delta":{"content":"say \"usage\":{"}}],"usage":null}` + "\n\n"
	theEnd     = "data: [DONE]\n\n"
)

// scripts are what providers answer, well and badly.
func scripts() map[string]script {
	sse := "text/event-stream; charset=utf-8"
	stream := aChunk + usageChunk + theEnd
	long := strings.Repeat("y", 70_000)
	all := map[string]script{
		"json":     {status: 200, kind: "application/json", length: true, pieces: []string{`{"choices":[{"text":"a"}],"usage":` + aUsage + "}"}},
		"pretty":   {status: 200, kind: "application/json", pieces: []string{"{\n \"usage\" :\t{\n  \"prompt_tokens\": 9\n }\n}\n"}},
		"long":     {status: 200, kind: "application/json", pieces: []string{`{"text":"` + long + `",`, `"usage":` + aUsage + `,"more":"` + long + `"}`}},
		"empty":    {status: 200, kind: "application/json"},
		"stream":   {status: 200, kind: sse, pieces: []string{aChunk, usageChunk, theEnd}},
		"burst":    {status: 200, kind: sse, length: true, pieces: []string{strings.Repeat(aChunk, 100) + usageChunk + theEnd}},
		"bare":     {status: 200, kind: sse, pieces: []string{strings.ReplaceAll(strings.ReplaceAll(stream, "data: ", "data:"), "\n", "\r\n")}},
		"no sse":   {status: 200, kind: "text/plain", pieces: []string{aChunk, usageChunk, theEnd}},
		"both":     {status: 200, kind: sse, pieces: []string{`data: {"choices":[{"delta":{}}],"usage":` + aUsage + "}\n\n", theEnd}},
		"always":   {status: 200, kind: sse, cut: true, pieces: []string{`data: {"choices":[{}],"usage":` + aUsage + "}\n\n", `data: {"choices":[{}],"usage":{"prompt_tok`}},
		"cut":      {status: 200, kind: sse, cut: true, pieces: []string{aChunk, usageChunk}},
		"held":     {status: 200, kind: sse, pieces: []string{aChunk + `data: {"id":"` + long + `"}` + "\n\n", theEnd}},
		"trailer":  {status: 200, kind: sse, trailer: true, pieces: []string{aChunk, usageChunk, theEnd}},
		"error":    {status: 500, kind: "application/json", pieces: []string{`{"error":{"message":"x"},"usage":` + aUsage + "}"}},
		"limited":  {status: 429, kind: "application/json", length: true, pieces: []string{`{"error":{}}`}},
		"refused":  {status: 401, kind: "application/json", length: true, pieces: []string{`{"error":{"message":"sk-1 is no key"}}`}},
		"forbid":   {status: 403, kind: "text/html", pieces: []string{"<html>", "no", "</html>"}},
		"wordless": {status: 401, kind: "text/plain", length: true},
		"after":    {status: 403, kind: "text/plain", trailer: true, pieces: []string{"no"}},
	}
	for i := 1; i < len(usageChunk); i += 3 {
		all["in two "+strconv.Itoa(i)] = script{status: 200, kind: sse, pieces: []string{aChunk + usageChunk[:i], usageChunk[i:] + theEnd}}
	}
	return all
}

// TestBothTapsDoTheSame sends the same answers through both, in the real Envoy.
func TestBothTapsDoTheSame(t *testing.T) {
	p := startTaps(t)
	all, got := scripts(), map[string]result{}
	path := func(name string, kind Tap, i int) string {
		return fmt.Sprintf("/%s?%s%d", strings.ReplaceAll(name, " ", "-"), kind, i)
	}
	for name, s := range all {
		p.mu.Lock()
		p.scripts["/"+strings.ReplaceAll(name, " ", "-")] = s
		p.mu.Unlock()
		for i := range asked {
			for _, kind := range []Tap{TapLua, TapNative} {
				got[path(name, kind, i)] = p.get(kind, i, path(name, kind, i))
			}
		}
	}
	usages := p.usages(len(got))
	for name, s := range all {
		for i := range asked {
			lua, c := got[path(name, TapLua, i)], got[path(name, TapNative, i)]
			lua.Usage, c.Usage = usages[path(name, TapLua, i)], usages[path(name, TapNative, i)]
			if diff := cmp.Diff(c, lua); diff != "" {
				t.Errorf("%s, asked for %v (-native +lua):\n%s", name, asked[i], diff)
			}
			judge(t, name, s, i, c)
		}
	}
}

// judge says whether a result is right, not only that of both.
func judge(t *testing.T, name string, s script, i int, got result) {
	t.Helper()
	body := strings.Join(s.pieces, "")
	if strings.Contains(s.kind, "event-stream") && asked[i]["strip"] == true {
		body = strings.ReplaceAll(body, usageChunk, "")
		body = strings.ReplaceAll(body, strings.ReplaceAll(strings.ReplaceAll(usageChunk, "data: ", "data:"), "\n", "\r\n"), "")
	}
	status, usage := s.status, ""
	if s.status == 200 && strings.Contains(strings.Join(s.pieces, ""), aUsage) && asked[i] != nil {
		usage = aUsage
	}
	if name == "pretty" && asked[i] != nil {
		usage = "{\n  \"prompt_tokens\": 9\n }"
	}
	if (status == 401 || status == 403) && asked[i] != nil {
		status = 502
		body = `{"error":{"message":"The provider refused the gateway's credential for this model. The operator of the gateway has to mend it.",` +
			`"type":"server_error","param":null,"code":"upstream_auth_failed"}}`
	}
	if got.Status != status || got.Body != body && !got.Cut || got.Usage != usage || got.Cut != s.cut {
		t.Errorf("%s, asked for %v: got %d %q, cut %t, usage %q; want %d %q, cut %t, usage %q",
			name, asked[i], got.Status, got.Body, got.Cut, got.Usage, status, body, s.cut, usage)
	}
	id, _ := asked[i]["id"].(string)
	if asked[i] == nil {
		id = "a new one"
	}
	if h := got.Header; h.Get("x-weir-exchange-id") != id || asked[i]["headers"] != nil && h.Get("x-ratelimit-remaining-tokens") != "0:5" {
		t.Errorf("%s, asked for %v: got %v", name, asked[i], h)
	}
}

func TestWriteTapSaysWhyThereIsNone(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "envoy")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'envoy  version: abc/1.41.0/Clean/RELEASE/BoringSSL'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := WriteTap(t.Context(), old, dir); err == nil || !strings.Contains(err.Error(), "is for Envoy 1.40, not 1.41.0") {
		t.Errorf("another Envoy: got %q, %v", path, err)
	}
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'envoy  version: abc/1.40.0/Clean/RELEASE/BoringSSL'\n[ $1 = --version ] || { echo 'no such extension'; exit 1; }\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := WriteTap(t.Context(), old, dir); err == nil || !strings.Contains(err.Error(), "no such extension") {
		t.Errorf("an Envoy that cannot load it: got %q, %v", path, err)
	}
	if _, err := WriteTap(t.Context(), old, filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "write native tap") {
		t.Errorf("a folder that is not there: got %v", err)
	}
}
