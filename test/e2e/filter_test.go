// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/test/rig"
)

// A plugin that speaks proxy-wasm pauses each request until its upstream has answered, and then the request goes on, or the plugin answers itself.
func TestFilterAsksItsUpstream(t *testing.T) {
	w := newWorld(t, rig.Options{})
	var status, asked atomic.Int64
	status.Store(200)
	judge := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/judge" {
			asked.Add(1)
		}
		rw.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(judge.Close)
	a := attach(t, w, wasmtest.Filter{Upstream: "judge", Body: strings.Replace(hello, "Hello", "[judged]", 1), Header: "yes"}, admin.NewAttachment{
		Plugin: "judge", Upstreams: []admin.PluginUpstream{{Name: "judge", URL: judge.URL + "/v1", Private: true}}, RequestOnly: true,
	})
	got := w.post(t, "/v1/chat/completions", hello)
	tries := w.provider.Ledger().Attempts(got.exchange)
	if got.status != 200 || asked.Load() != 1 || len(tries) != 1 || !strings.Contains(tries[0].Body, "[judged] there") {
		t.Errorf("let through: %d %s, asked %d times; the provider got %+v", got.status, got.body, asked.Load(), tries)
	}
	if row := w.Row(got.exchange); row.Status != "ok" || row.Estimated {
		t.Errorf("row %+v", row)
	}
	status.Store(500)
	if got := w.post(t, "/v1/chat/completions", hello); got.status != 403 || got.body != "judged" || len(w.provider.Ledger().Attempts(got.exchange)) != 0 {
		t.Errorf("refused: %d %q", got.status, got.body)
	}
	none := []admin.PluginUpstream{}
	if _, err := administer(t, w).SetAttachment(t.Context(), a.ID, admin.AttachmentChange{Upstreams: &none}); err != nil {
		t.Fatal(err)
	}
	inForce(t, w)
	before := asked.Load()
	got = w.post(t, "/v1/chat/completions", hello)
	if got.status != 403 || got.body != "judged" || asked.Load() != before {
		t.Errorf("without its upstream: %d %s, asked %d times", got.status, got.body, asked.Load()-before)
	}
}

func TestFilterSeesTheStream(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Filter{Tail: ": seen\n\n"}, admin.NewAttachment{Plugin: "tail"})
	got := w.post(t, "/v1/chat/completions", strings.Replace(hello, "{", `{"stream":true,`, 1))
	if got.status != 200 || !strings.HasSuffix(got.body, "data: [DONE]\n\n: seen\n\n") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if row := w.Row(got.exchange); row.Status != "ok" || row.Estimated || !row.Stream {
		t.Errorf("row %+v", row)
	}
}

func TestFilterIsShownWhereTheClientCame(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Filter{Copy: ":authority"}, admin.NewAttachment{Plugin: "host", RequestOnly: true})
	got := w.post(t, "/v1/chat/completions", hello)
	want := strings.TrimPrefix(w.URL, "http://")
	if tries := w.provider.Ledger().Attempts(got.exchange); len(tries) != 1 || tries[0].Headers.Get("x-filter") != want {
		t.Errorf("the provider got %+v, want x-filter: %s", tries, want)
	}
}
