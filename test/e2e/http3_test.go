// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/sdks"
	"github.com/weir-proxy/weir/test/rig"
)

// A client of HTTP/3 gets an answer, a stream and a refusal, as others do, and each exchange is a row; whoever comes by TCP is told of it.
func TestClientsSpeakHTTP3(t *testing.T) {
	python, site := sdks.Python(t)
	ca, dir := authority.New(t), t.TempDir()
	edgeCertificate(t, ca, dir, "one.example")
	w := newWorld(t, rig.Options{
		Production: true, Gateway: fmt.Sprintf("tls: {cert: %q, key: %q, http3: true}", filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")),
	})
	port := w.URL[strings.LastIndexByte(w.URL, ':')+1:]

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "one.example"}}}
	t.Cleanup(client.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https"+strings.TrimPrefix(w.URL, "http")+"/v1/chat/completions", strings.NewReader(hello))
	if err != nil {
		t.Fatal(err)
	}
	byTCP := do(t, client, r, "authorization", "Bearer "+w.key)
	if want := fmt.Sprintf(`h3=":%s"; ma=86400`, port); byTCP.status != http.StatusOK || byTCP.header.Get("alt-svc") != want {
		t.Errorf("by TCP: got %d, alt-svc %q, want %q", byTCP.status, byTCP.header.Get("alt-svc"), want)
	}

	stream := strings.Replace(hello, `"model"`, `"stream":true,"model"`, 1)
	cmd := exec.CommandContext(t.Context(), python, filepath.Join(repo.Root(t), "test", "e2e", "sdk", "http3.py"), port, "one.example", fileOf(t, ca), w.key,
		hello, stream, strings.Replace(hello, "gpt-4o-mini", "no-such-model", 1))
	cmd.Env = append(os.Environ(), "PYTHONPATH="+site)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	type reply struct {
		Headers map[string]string
		Body    string
	}
	var got []reply
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var a reply
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	if len(got) != 3 {
		t.Fatalf("got %d answers: %s", len(got), out)
	}
	for i, want := range []struct{ status, has string }{{"200", `"usage"`}, {"200", "data: [DONE]\n\n"}, {"404", `"model_not_found"`}} {
		if got[i].Headers[":status"] != want.status || !strings.Contains(got[i].Body, want.has) {
			t.Errorf("answer %d: %s %s, want %s with %s", i, got[i].Headers[":status"], got[i].Body, want.status, want.has)
		}
	}
	for _, a := range got[:2] {
		row := w.Row(a.Headers["x-weir-exchange-id"])
		sameAsLedger(t, row, w.provider)
		if row.Status != "ok" || row.Estimated {
			t.Errorf("row %+v", row)
		}
	}
}
