// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/test/rig"
)

// rules is deploy/grafana/alerts.yaml.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repo.Root(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// expressions returns what the dashboard and the alerts ask Prometheus for, by where they do.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana/weir.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			out[fmt.Sprintf("panel %q, %d", p.Title, i)] = target.Expr
		}
	}
	var r rules
	if err := yaml.Unmarshal([]byte(readFile(t, "deploy/grafana/alerts.yaml")), &r); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Groups[0].Rules {
		out["alert "+a.Alert] = a.Expr
	}
	if len(out) < 50 {
		t.Fatalf("only %d expressions were found", len(out))
	}
	return out
}

// Every metric and every label that the dashboard and the alerts name is exported by a processor and an Envoy that run.
func TestDashboardAndAlertsNameWhatIsExported(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Guest{Request: []byte{}, Traps: true}, admin.NewAttachment{Plugin: "trap", Mode: "open"})
	a := w.post(t, "/v1/chat/completions", hello)
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w.Row(a.exchange)
	w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer sk-nobody")
	w.post(t, "/v1/chat/completions", helloStream)

	var ours string
	w.Eventually("the exchanges are measured", func() error {
		if ours = scrape(t, w.AdminURL+"/metrics"); !strings.Contains(ours, "gen_ai_server_time_per_output_token_seconds_count") {
			return errors.New("no stream is")
		}
		return nil
	})
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*)|[{,]([a-zA-Z_][a-zA-Z0-9_]*)=`).
		FindAllStringSubmatch(ours+scrape(t, "http://"+w.EnvoyAdmin+"/stats/prometheus"), -1) {
		names[m[1]+m[2]] = true
	}
	asked := regexp.MustCompile(`\b(?:weir|envoy|go|process)_[a-z0-9_]+`)
	for where, expr := range expressions(t) {
		for _, name := range asked.FindAllString(expr, -1) {
			if !names[name] {
				t.Errorf("%s names %s, which nobody exports", where, name)
			}
		}
	}
	documented(t, ours)
}

var update = flag.Bool("update", false, "rewrite the table in docs/metrics.md")

// documented holds docs/metrics.md and what the processor exports together.
func documented(t *testing.T, exported string) {
	t.Helper()
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^# HELP ((?:weir|gen_ai)_\w+) (.*)\n# TYPE \w+ (\w+)$`).FindAllStringSubmatch(exported, -1) {
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", m[1], m[3], strings.ReplaceAll(m[2], "|", `\|`)))
	}
	text := readFile(t, "docs/metrics.md")
	head, _, found := strings.Cut(text, "\n| `gen_ai_")
	if want := head + "\n" + strings.Join(rows, "\n") + "\n"; !found || text != want {
		if *update {
			if err := os.WriteFile(filepath.Join(repo.Root(t), "docs", "metrics.md"), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("docs/metrics.md is not what is exported; go test ./test/e2e -run TestDashboard -update rewrites it (-got +want):\n%s", cmp.Diff(text, want))
	}
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(b)
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	var r rules
	if err := yaml.Unmarshal([]byte(readFile(t, "deploy/grafana/alerts.yaml")), &r); err != nil {
		t.Fatal(err)
	}
	manual := readFile(t, "docs/operations.md")
	alerts := map[string]bool{}
	for _, a := range r.Groups[0].Rules {
		alerts[a.Alert] = true
		if a.Annotations["runbook"] != "docs/operations.md#"+strings.ToLower(a.Alert) || a.Annotations["summary"] == "" {
			t.Errorf("%s: annotations %v", a.Alert, a.Annotations)
		}
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", a.Alert, s)
		}
		if !strings.Contains(manual, "\n### "+a.Alert+"\n") {
			t.Errorf("docs/operations.md has no section for %s", a.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Weir\w+)$`).FindAllStringSubmatch(manual, -1) {
		if !alerts[m[1]] {
			t.Errorf("docs/operations.md has a section for %s, and there is no such alert", m[1])
		}
	}
}

// bearer calls an API with a bearer token and returns its answer.
func bearer(t *testing.T, method, url, token, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("authorization", "Bearer "+token)
	r.Header.Set("content-type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// At the most talkative level, with every kind of request and mistake, no file that Weir or Envoy writes holds a key, a credential, or a word of
// what went to a provider or came from it.
func TestNoFileTellsWhatIsNobodysBusiness(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true, Config: "log_level: debug\n"})
	const said = "xylophone-of-the-client"
	body := strings.Replace(hello, "Hello there", said, 1)
	for _, headers := range [][]string{
		nil,
		{"authorization", "", "x-api-key", w.key},
		{"authorization", "", "api-key", w.key},
		{"authorization", "Bearer sk-weir-guessed-by-somebody"},
		{"content-type", "text/plain"},
		{"cookie", "session=cookie-of-the-client", "x-request-id", "id-of-the-client"},
	} {
		w.post(t, "/v1/chat/completions", body, headers...)
	}
	w.post(t, "/v1/chat/completions", strings.Replace(body, `"model"`, `"stream":true,"model"`, 1))
	w.post(t, "/v1/completions", `{"model":"gpt-3.5-turbo-instruct","prompt":"`+said+`"}`)
	w.post(t, "/v1/embeddings", `{"model":"text-embedding-3-small","input":"`+said+`"}`)
	w.post(t, "/v1/responses", `{"model":"o3-mini","stream":true,"input":"`+said+`"}`)
	bearer(t, http.MethodGet, w.URL+"/v1/models", w.key, "")
	bearer(t, http.MethodGet, w.URL+"/v1/models", "sk-weir-guessed-by-somebody", "")
	for _, path := range []string{"/api/v1/keys", "/api/v1/channels", "/api/v1/usage", "/api/v1/audit", "/api/v1/nothing", "/metrics", "/readyz", "/livez"} {
		for _, token := range []string{rig.AdminToken, "token-guessed-by-somebody"} {
			bearer(t, http.MethodGet, w.AdminURL+path, token, "")
		}
	}
	bearer(t, http.MethodPost, w.AdminURL+"/api/v1/channels", rig.AdminToken,
		`{"name":"two","provider":"openai","base_url":"http://127.0.0.1:9/v1","credential":"sk-of-channel-two","models":[{"name":"other"}]}`)
	bearer(t, http.MethodPost, w.AdminURL+"/api/v1/channels", rig.AdminToken, `{"credential":"sk-of-no-channel"`)
	made := bearer(t, http.MethodPost, w.AdminURL+"/api/v1/keys", rig.AdminToken, `{"name":"second"}`)
	w.post(t, "/v1/chat/completions", body+"}")
	w.post(t, "/v1/chat/completions", `{"model":"`+said+`"`)
	w.post(t, "/v1/chat/completions?key="+w.key, body)
	w.provider.Stop()
	failed := w.post(t, "/v1/chat/completions", body)
	if failed.status < 500 {
		t.Errorf("without a provider: %d", failed.status)
	}
	w.Row(failed.exchange)
	w.StopProcessor()
	w.StartProcessor()

	encrypting, err := os.ReadFile(filepath.Join(w.Dir, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{
		w.key, said, "sk-one", "sk-weir-guessed-by-somebody", "cookie-of-the-client", "id-of-the-client", rig.AdminToken,
		strings.Repeat("k", 32), string(encrypting), "Bearer ", "chatcmpl-", "sk-of-channel-two", "sk-of-no-channel", "token-guessed-by-somebody",
	}
	var second struct{ Secret string }
	if err := json.Unmarshal([]byte(made), &second); err != nil || second.Secret == "" {
		t.Errorf("the second key: %v in %s", err, made)
	} else {
		secrets = append(secrets, second.Secret)
	}
	files := 0
	err = filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() || d.Name() == "secret.key" || strings.Contains(path, "/plugins/") {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s has %q in it", strings.TrimPrefix(path, w.Dir), secret)
			}
		}
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("%d files were looked at, %v", files, err)
	}
}
