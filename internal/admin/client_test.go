// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/admin"
)

func TestClientRefusesWhatIsNoURL(t *testing.T) {
	for _, base := range []string{"", "127.0.0.1:10001", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y", "http://["} {
		if _, err := admin.NewClient(base, ""); err == nil {
			t.Errorf("%q is taken", base)
		}
	}
	for base, want := range map[string]string{
		"http://x":          "http://x",
		"http://x:1/":       "http://x:1",
		"https://x/api/v1/": "https://x",
		"https://x/weir":    "https://x/weir",
	} {
		c, err := admin.NewClient(base, "")
		if err != nil {
			t.Errorf("%q: %v", base, err)
			continue
		}
		if got := c.URL(); got != want {
			t.Errorf("%q: got %q, want %q", base, got, want)
		}
	}
}

func TestClientTellsWeirFromWhateverElseAnswers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(404)
		},
		"broken JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("["))
		},
		"broken error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
		},
		"redirect": http.RedirectHandler("https://elsewhere.invalid", http.StatusFound).ServeHTTP,
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("{"))
		},
		"aborted":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"bad gateway":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"empty success": func(http.ResponseWriter, *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(handler)
			defer s.Close()
			c, err := admin.NewClient(s.URL, "hunter2")
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Version(t.Context())
			e, ok := errors.AsType[*admin.Unreachable](err)
			if !ok || e.URL != s.URL || e.Hint == "" || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestClientSaysThatNothingAnswers(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	c, err := admin.NewClient(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Version(t.Context())
	e, ok := errors.AsType[*admin.Unreachable](err)
	if !ok || !strings.Contains(e.Hint, "is it running?") || strings.Count(err.Error(), s.URL) != 1 {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Version(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
}

func TestClientReadsWhatIsMissingFromAServerThatIsNotReady(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"ready":false,"checks":[{"name":"envoy","verdict":"fail","detail":"not connected"}]}`))
	}))
	defer s.Close()
	c, err := admin.NewClient(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Ready(t.Context())
	if err != nil || got.Ready || len(got.Checks) != 1 || got.Checks[0].Name != "envoy" {
		t.Errorf("got %+v, %v", got, err)
	}
}
