// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/sdks"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// place is a way to have Weir in an Istio mesh.
type place struct {
	folder string // of deploy/istio
	render []string
	workload
	host string // by which clients call it
}

var places = []place{
	{
		"ingress",
		[]string{"--labels", "istio=ingressgateway"},
		workload{kind: "router", name: "gateway", namespace: "istio-ingress", label: [2]string{"istio", "ingressgateway"}, address: "10.99.0.1"},
		"llm.example.com",
	},
	{
		"gateway-api",
		[]string{"--gateway", "llm"},
		workload{kind: "router", name: "llm-istio", namespace: "istio-ingress", label: [2]string{"gateway.networking.k8s.io/gateway-name", "llm"}, address: "10.99.0.2"},
		"llm.example.com",
	},
	{
		"egress",
		[]string{"--labels", "istio=egressgateway"},
		workload{kind: "router", name: "egress", namespace: "istio-egress", label: [2]string{"istio", "egressgateway"}, address: "10.99.0.3"},
		"llm.istio-egress",
	},
	{
		"sidecar",
		[]string{"--at", "sidecar", "--labels", "weir=sidecar"},
		workload{kind: "sidecar", name: "client", namespace: "apps", label: [2]string{"weir", "sidecar"}, address: "10.99.0.4"},
		"llm",
	},
}

// world is a processor with two channels, and an Envoy that a mesh configures.
type world struct {
	*rig.Rig
	t       *testing.T
	limited *rig.Provider // the first channel: it can be told to refuse
	serving *rig.Provider // the second
	key     string
	base    string // of the Envoy
	host    string
	admin   string // of the Envoy
	oldest  string // envoy.oldest; empty means its default
}

// newRig runs a processor to which no Envoy of Weir's is connected.
func newRig(t *testing.T, oldest string) *world {
	t.Helper()
	var section string
	if oldest != "" {
		section = fmt.Sprintf("oldest: %q", oldest)
	}
	r := rig.Start(t, rig.Options{Production: true, Envoy: section})
	r.KillEnvoy()
	keep := fake.Options{KeepHeaders: true}
	w := &world{Rig: r, t: t, oldest: oldest, limited: r.Provider(keep), serving: r.Provider(keep)}
	r.Channel(store.NewChannel{Name: "limited", BaseURL: w.limited.URL, Priority: 2, Models: rig.Models("gpt-4o-mini", "limited")})
	r.Channel(store.NewChannel{Name: "serving", BaseURL: w.serving.URL, Priority: 1, Models: rig.Models("gpt-4o-mini=served-name")})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	c, err := r.Store.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Eventually("the processor has the configuration", func() error {
		n, err := r.Metric("weir_configuration_revision")
		if err == nil && int64(n) < c.Revision {
			err = fmt.Errorf("revision %v, want %d", n, c.Revision)
		}
		return err
	})
	return w
}

// newWorld brings a folder of deploy/istio to life.
func newWorld(t *testing.T, p place) *world {
	t.Helper()
	oldest, _, _ := cutLast(p.version)
	w := newRig(t, oldest)
	port := freePort(t)
	w.host, w.base = p.host, fmt.Sprintf("http://127.0.0.1:%d", port)
	socket := filepath.Join(w.Dir, "weir.sock")
	var b bundle
	for _, name := range []string{"bootstrap.yaml", "route.yaml"} {
		b.read(t, readFile(t, "deploy", "istio", p.folder, name), socket, port)
	}
	filters := readFile(t, "deploy", "istio", p.folder, "filters.yaml")
	if oldest != "" {
		filters = w.rendered(append([]string{"istio", "filters", "--namespace", p.namespace}, p.render...)...)
	}
	b.read(t, filters, socket, port)
	b.read(t, w.rendered(append([]string{"istio", "channels", "--namespace", p.namespace}, p.render...)...), socket, port)
	if p.folder == "gateway-api" {
		b.read(t, readFile(t, "deploy", "istio", p.folder, "gateway.yaml"), socket, port)
		b.read(t, p.service(port), socket, port)
	}
	w.admin = p.startEnvoy(t, w.Rig, startIstiod(t, b), b.bootstrap)
	w.Eventually("the route is there", func() error {
		status, body := w.ask("/v1/models", "", nil)
		if status != http.StatusOK {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
	return w
}

// rendered is what weir render prints for the processor.
func (w *world) rendered(args ...string) string {
	w.t.Helper()
	args = append([]string{"render"}, args...)
	config := filepath.Join(w.t.TempDir(), "weir.yaml")
	text := readFile(w.t, "deploy", args[1], "weir.yaml")
	if w.oldest != "" {
		text += fmt.Sprintf("  oldest: %q\n", w.oldest) // the section envoy is its last
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	args = append(args, "--url", w.AdminURL, "--token", rig.AdminToken, "--config", config)
	cmd := exec.CommandContext(w.t.Context(), rig.Binary(w.t), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%v: %v\n%s", cmd.Args, err, errs.String())
	}
	return string(out)
}

// ask sends a request with the key of the world and returns the status and the body of its answer.
func (w *world) ask(path, body string, header http.Header) (int, string) {
	resp, b := w.exchange(path, body, header)
	if resp == nil {
		return 0, b
	}
	return resp.StatusCode, b
}

func (w *world) exchange(path, body string, header http.Header) (*http.Response, string) {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Host = w.host
	r.Header.Set("content-type", "application/json")
	r.Header.Set("authorization", "Bearer "+w.key)
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or not at all
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err.Error()
	}
	return resp, string(b)
}

const (
	hello       = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello there"}]}`
	helloStream = `{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hello there"}]}`
)

func TestIstioServesChatByEveryWay(t *testing.T) {
	for _, p := range places {
		t.Run(p.folder, func(t *testing.T) {
			w := newWorld(t, p)
			t.Run("chat", w.servesChat)
			t.Run("stream", w.servesStream)
			t.Run("SDK", w.servesAnSDK)
			t.Run("failover", w.failsOver)
			t.Run("bad key", w.refusesABadKey)
			t.Run("client's words", w.ignoresWhatAClientMayNotSay)
			t.Run("processor away", w.admitsNothingWithoutAProcessor)
		})
	}
}

func (w *world) servesChat(t *testing.T) {
	resp, body := w.exchange("/v1/chat/completions", hello, nil)
	if resp == nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("no answer: %v %s", resp, body)
	}
	var answer struct {
		Usage struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	row := w.Row(resp.Header.Get("x-weir-exchange-id"))
	got := fmt.Sprint(row.Status, row.Input, row.Output, row.Estimated)
	if want := fmt.Sprint("ok", answer.Usage.Prompt, answer.Usage.Completion, false); got != want {
		t.Errorf("row %s, want %s", got, want)
	}
}

func (w *world) servesStream(t *testing.T) {
	resp, body := w.exchange("/v1/chat/completions", helloStream, nil)
	if resp == nil || resp.StatusCode != http.StatusOK || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Fatalf("no stream: %v %s", resp, body)
	}
	if strings.Contains(body, `"usage":{`) {
		t.Errorf("the client did not ask for usage: %s", body)
	}
	if row := w.Row(resp.Header.Get("x-weir-exchange-id")); row.Estimated || row.Output == 0 {
		t.Errorf("row %+v, want counted tokens", row)
	}
}

// servesAnSDK asks with OpenAI's own package for Python.
func (w *world) servesAnSDK(t *testing.T) {
	python, site := sdks.Python(t)
	cmd := exec.CommandContext(t.Context(), python, "-c", sdkChat, w.base+"/v1", w.key, w.host)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+site)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	exchange, tokens, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if row := w.Row(exchange); fmt.Sprint(row.Input+row.Output) != tokens {
		t.Errorf("row has %d tokens, the SDK says %s", row.Input+row.Output, tokens)
	}
}

const sdkChat = `
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], default_headers={"Host": sys.argv[3]}, max_retries=0)
raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello there"}])
answer = raw.parse()
assert answer.choices[0].message.content
print(raw.headers["x-weir-exchange-id"], answer.usage.total_tokens)
`

// failsOver also shows that each attempt carries its channel's credential and name of the model.
func (w *world) failsOver(t *testing.T) {
	w.limited.Stop()
	resp, body := w.exchange("/v1/chat/completions", hello, nil)
	if resp == nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("no answer: %v %s", resp, body)
	}
	row := w.Row(resp.Header.Get("x-weir-exchange-id"))
	if row.Attempts != 2 {
		t.Errorf("%d attempts, want 2", row.Attempts)
	}
	attempts := w.serving.Ledger().Attempts(row.Exchange.String())
	if len(attempts) != 1 {
		t.Fatalf("the second channel was asked %d times, want once", len(attempts))
	}
	if got := attempts[0].Credential.Value; got != "Bearer sk-serving" {
		t.Errorf("credential %q, want that of the channel", got)
	}
	if got := attempts[0].Model; got != "served-name" {
		t.Errorf("model %q, want the channel's name of it", got)
	}
	w.Eventually("the processor knows of the failed attempt", func() error {
		n, err := w.Metric("weir_usage_grpc_lines_total")
		if err == nil && n == 0 {
			err = errors.New("no line")
		}
		return err
	})
}

func (w *world) refusesABadKey(t *testing.T) {
	before := w.serving.Ledger().Totals().Requests
	resp, body := w.exchange("/v1/chat/completions", hello, http.Header{"Authorization": {"Bearer sk-nobody"}})
	if resp == nil || resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `"invalid_api_key"`) {
		t.Errorf("got %v %s, want 401 in OpenAI's shape", resp, body)
	}
	if n := w.serving.Ledger().Totals().Requests; n != before {
		t.Errorf("the provider served %d, want %d", n, before)
	}
}

func (w *world) ignoresWhatAClientMayNotSay(t *testing.T) {
	resp, body := w.exchange("/v1/chat/completions", hello, http.Header{
		"X-Weir-Cluster": {"nowhere"}, "X-Envoy-Upstream-Rq-Timeout-Ms": {"1"}, "X-Envoy-Max-Retries": {"9"},
	})
	if resp == nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("no answer: %v %s", resp, body)
	}
	attempts := w.serving.Ledger().Attempts(resp.Header.Get("x-weir-exchange-id"))
	if len(attempts) != 1 {
		t.Fatalf("the provider was asked %d times, want once", len(attempts))
	}
	for name := range attempts[0].Headers {
		if n := strings.ToLower(name); strings.HasPrefix(n, "x-weir-") || n == "x-envoy-upstream-rq-timeout-ms" || n == "x-request-id" {
			t.Errorf("the provider was sent %s", name)
		}
	}
}

func (w *world) admitsNothingWithoutAProcessor(t *testing.T) {
	w.KillProcessor()
	status, body := w.ask("/v1/chat/completions", hello, nil)
	if status != http.StatusServiceUnavailable || !strings.Contains(body, `"processor_unavailable"`) {
		t.Errorf("got %d %s, want 503 in OpenAI's shape", status, body)
	}
	w.StartProcessor()
	w.Eventually("the processor is back", func() error {
		if status, body := w.ask("/v1/chat/completions", hello, nil); status != http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
}
