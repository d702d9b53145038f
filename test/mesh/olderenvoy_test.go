// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// older is the ingress gateway with an Envoy from before priority groups.
func older(version string) place {
	p := places[0]
	p.version = version
	return p
}

// cutLast cuts the patch off a version.
func cutLast(version string) (minor, patch string, found bool) {
	at := strings.LastIndexByte(version, '.')
	if at < 0 {
		return version, "", false
	}
	return version[:at], version[at+1:], true
}

// Envoy 1.39 can send a retry to another cluster, but not take an order of clusters from metadata.
func TestAnEnvoyWithoutPriorityGroupsFailsOver(t *testing.T) {
	w := newWorld(t, older("1.39.3"))
	t.Run("chat", w.servesChat)
	t.Run("stream", w.servesStream)
	t.Run("client's words", w.choosesNoChannelForAClient)
	t.Run("failover", w.failsOver)
	t.Run("bad key", w.refusesABadKey)
	t.Run("processor away", w.admitsNothingWithoutAProcessor)
}

// Before 1.39 a request has one attempt. The processor learns from it, and the next goes elsewhere.
func TestAnEnvoyWithoutClusterRefreshGoesElsewhereWithTheNextRequest(t *testing.T) {
	w := newWorld(t, older("1.37.0"))
	t.Run("chat", w.servesChat)
	t.Run("stream", w.servesStream)
	t.Run("client's words", w.choosesNoChannelForAClient)
	t.Run("bad key", w.refusesABadKey)
	t.Run("next request", w.goesElsewhereNext)
	t.Run("processor away", w.admitsNothingWithoutAProcessor)
}

// choosesNoChannelForAClient has a client name a channel that is there and one that is not, in the header by which the route finds its cluster.
func (w *world) choosesNoChannelForAClient(t *testing.T) {
	for _, name := range []string{"channel-2", "channel-999", "weir-denied", "outbound|80||elsewhere"} {
		resp, body := w.exchange("/v1/chat/completions", hello, http.Header{"X-Weir-Channel": {name}, "X-Envoy-Max-Retries": {"9"}})
		if resp == nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: no answer: %v %s", name, resp, body)
		}
		if got := len(w.limited.Ledger().Attempts(resp.Header.Get("x-weir-exchange-id"))); got != 1 {
			t.Errorf("%s: the first channel was asked %d times, want once", name, got)
		}
	}
}

func (w *world) goesElsewhereNext(t *testing.T) {
	w.limited.Stop()
	resp, body := w.exchange("/v1/chat/completions", hello, nil)
	if resp == nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"upstream_unavailable"`) {
		t.Fatalf("got %v %s, want 503 in OpenAI's shape", resp, body)
	}
	if row := w.Row(resp.Header.Get("x-weir-exchange-id")); row.Attempts != 1 || row.Status != "upstream_error" {
		t.Errorf("row %+v, want one attempt that failed", row)
	}
	w.Eventually("the next request goes elsewhere", func() error {
		resp, body = w.exchange("/v1/chat/completions", hello, nil)
		if resp == nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%v %s", resp, body)
		}
		return nil
	})
	id := resp.Header.Get("x-weir-exchange-id")
	row := w.Row(id)
	if row.Attempts != 1 || row.Channel != "serving" {
		t.Errorf("row %+v, want one attempt at the second channel", row)
	}
	attempts := w.serving.Ledger().Attempts(id)
	if len(attempts) != 1 || attempts[0].Credential.Value != "Bearer sk-serving" || attempts[0].Model != "served-name" {
		t.Errorf("the second channel got %+v", attempts)
	}
}
