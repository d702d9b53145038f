// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

func channelOf(provider, base string, models ...policy.Model) store.Channel {
	return store.Channel{Channel: policy.Channel{Name: "c", Models: models}, Provider: provider, BaseURL: base, Credential: "hunter2"}
}

func TestProberSpeaksEachDialect(t *testing.T) {
	for provider, want := range map[string]http.Header{
		"openai":    {"Authorization": {"Bearer hunter2"}},
		"fake":      {"Authorization": {"Bearer hunter2"}},
		"azure":     {"Api-Key": {"hunter2"}},
		"anthropic": {"X-Api-Key": {"hunter2"}, "Anthropic-Version": {"2023-06-01"}},
	} {
		t.Run(provider, func(t *testing.T) {
			var got http.Header
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "GET" || r.URL.Path != "/base/v1/models" {
					w.WriteHeader(http.StatusNotFound)
				}
				got = r.Header
			}))
			defer s.Close()
			res := admin.NewProber().TestChannel(t.Context(), channelOf(provider, s.URL+"/base/v1"))
			if !res.OK || res.Status != http.StatusOK || res.URL != s.URL+"/base/v1/models" {
				t.Errorf("got %+v", res)
			}
			for _, name := range []string{"Authorization", "Api-Key", "X-Api-Key", "Anthropic-Version"} {
				if diff := cmp.Diff(got[name], want[name]); diff != "" {
					t.Errorf("%s (-got +want):\n%s", name, diff)
				}
			}
		})
	}
}

func TestProberExplainsEveryStatus(t *testing.T) {
	for status, want := range map[int]string{
		301: "redirects", 400: "status 400", 401: "refuses the credential", 403: "refuses the credential", 404: "no list of models",
		405: "no list of models", 429: "limit", 500: "fails with status 500", 503: "fails with status 503",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = w.Write([]byte("the key hunter2 is wrong"))
		}))
		got := admin.NewProber().TestChannel(t.Context(), channelOf("openai", s.URL))
		s.Close()
		if got.OK || got.Status != status || !strings.Contains(got.Detail, want) || got.Hint == "" || strings.Contains(got.Detail+got.Hint, "hunter2") {
			t.Errorf("%d: got %+v, want %q in the detail", status, got, want)
		}
	}
}

func TestProberWithoutACredentialSendsNone(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a credential is sent")
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	c := channelOf("openai", s.URL)
	c.Credential = ""
	if got := admin.NewProber().TestChannel(t.Context(), c); !strings.Contains(got.Detail, "the channel has none") {
		t.Errorf("got %+v", got)
	}
}

func TestProberDoesNotFollowRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect is followed") }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer s.Close()
	if got := admin.NewProber().TestChannel(t.Context(), channelOf("openai", s.URL)); got.OK || got.Status != http.StatusFound {
		t.Errorf("got %+v", got)
	}
}

func TestProberSaysWhyThereIsNoAnswer(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("{"))
	}))
	defer cut.Close()
	for name, c := range map[string]struct{ base, want string }{
		"refused":   {gone.URL, "connection refused"},
		"no TLS":    {strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS"},
		"untrusted": {secure.URL, "certificate is not trusted"},
		"cut":       {cut.URL, "answer was cut"},
		"bad url":   {"http://[", "cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			got := admin.NewProber().TestChannel(t.Context(), channelOf("openai", c.base))
			if got.OK || !strings.Contains(got.Detail, c.want) || got.Hint == "" {
				t.Errorf("got %+v, want %q in the detail", got, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := admin.NewProber().TestChannel(ctx, channelOf("openai", plain.URL)); got.OK {
		t.Errorf("canceled: got %+v", got)
	}
}

func TestProberTrustsTheFileThatItIsGiven(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	p := admin.NewProber()
	if err := p.TrustFile(path); err != nil {
		t.Fatal(err)
	}
	if got := p.TestChannel(t.Context(), channelOf("openai", s.URL)); !got.OK {
		t.Errorf("got %+v", got)
	}
	if err := p.TrustFile(path + "x"); err == nil {
		t.Error("a missing file is no error")
	}
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.TrustFile(path); err == nil {
		t.Error("a file without certificates is no error")
	}
}

func TestProberNamesTheModelsThatTheProviderLacks(t *testing.T) {
	models := []policy.Model{{Name: "a"}, {Name: "small", Upstream: "b"}, {Name: "c"}}
	for name, c := range map[string]struct {
		provider, body string
		want           []string
	}{
		"all listed":     {"openai", `{"data":[{"id":"a"},{"id":"b"},{"id":"c"}]}`, []string{}},
		"some missing":   {"openai", `{"data":[{"id":"a"},{"id":"x"}]}`, []string{"b", "c"}},
		"more pages":     {"anthropic", `{"data":[{"id":"a"}],"has_more":true}`, []string{}},
		"deployments":    {"azure", `{"data":[{"id":"x"}]}`, []string{}},
		"fake":           {"fake", `{"data":[{"id":"x"}]}`, []string{}},
		"empty":          {"openai", `{"data":[]}`, []string{}},
		"not JSON":       {"openai", `<html>`, []string{}},
		"another format": {"openai", `{"data":"x"}`, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.body)) }))
			defer s.Close()
			got := admin.NewProber().TestChannel(t.Context(), channelOf(c.provider, s.URL, models...))
			if !got.OK || !slices.Equal(got.MissingModels, c.want) || (got.Hint != "") != (len(c.want) > 0) {
				t.Errorf("got %+v, want %v missing", got, c.want)
			}
		})
	}
}
