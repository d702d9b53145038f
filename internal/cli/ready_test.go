// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
)

func TestReadyWaitsForAProcessorThatBegins(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		asked++
		switch asked {
		case 1: // nobody who would be understood is there
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusBadGateway)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"ready":false,"checks":[{"name":"envoy","verdict":"fail"}]}`))
		default:
			_, _ = w.Write([]byte(`{"ready":true,"checks":[]}`))
		}
	}))
	defer s.Close()
	client, err := admin.NewClient(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := awaitReady(t.Context(), client, time.Minute); err != nil || !got.Ready || asked != 3 {
		t.Errorf("got %+v, %v after %d questions", got, err, asked)
	}
	asked = 1
	if got, err := awaitReady(t.Context(), client, 0); err != nil || got.Ready || len(got.Checks) != 1 {
		t.Errorf("without waiting: got %+v, %v", got, err)
	}
}
