// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// What cannot be served is refused in the shape of an OpenAI error, and no provider hears of it.
func TestBadInputIsRefusedAndForwardedNowhere(t *testing.T) {
	w := newWorld(t, rig.Options{})
	limited, _ := w.Key(store.NewKey{Name: "limited", Models: []string{"text-*"}})
	disabled, k := w.Key(store.NewKey{Name: "disabled"})
	yes := true
	if _, err := w.Store.SetKey(t.Context(), k.Name, store.KeyChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	revoked, k := w.Key(store.NewKey{Name: "revoked"})
	if _, err := w.Store.RevokeKey(t.Context(), k.Name); err != nil {
		t.Fatal(err)
	}
	w.Channel(store.NewChannel{Name: "off", BaseURL: w.provider.URL, Models: rig.Models("switched-off")})
	if _, err := w.Store.SetChannel(t.Context(), "off", store.ChannelChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	w.Settle()

	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	fmt.Fprint(zw, hello)
	zw.Close() //nolint:errcheck // what was read is read
	const chat = "/v1/chat/completions"
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		code               string
	}{
		"no key":            {"POST", chat, hello, []string{"authorization", ""}, 401, "invalid_api_key"},
		"unknown key":       {"POST", chat, hello, []string{"authorization", "Bearer sk-nobody"}, 401, "invalid_api_key"},
		"dev key elsewhere": {"POST", chat, hello, []string{"authorization", "Bearer sk-weir-dev"}, 401, "invalid_api_key"},
		"basic auth":        {"POST", chat, hello, []string{"authorization", "Basic c2s6c2s="}, 401, "invalid_api_key"},
		"disabled key":      {"POST", chat, hello, []string{"authorization", "Bearer " + disabled}, 401, "invalid_api_key"},
		"revoked key":       {"POST", chat, hello, []string{"authorization", "Bearer " + revoked}, 401, "invalid_api_key"},
		"model not allowed": {"POST", chat, hello, []string{"authorization", "Bearer " + limited}, 403, "model_not_allowed"},
		"unknown model":     {"POST", chat, `{"model":"nothing"}`, nil, 404, "model_not_found"},
		"no channel":        {"POST", chat, `{"model":"switched-off"}`, nil, 503, "no_channel"},
		"not JSON":          {"POST", chat, `{"model"`, nil, 400, "invalid_json"},
		"not an object":     {"POST", chat, `["model"]`, nil, 400, ""},
		"trailing data":     {"POST", chat, hello + `{}`, nil, 400, "invalid_json"},
		"duplicate model":   {"POST", chat, `{"model":"gpt-4o-mini","model":"gpt-4o"}`, nil, 400, ""},
		"escaped duplicate": {"POST", chat, `{"model":"gpt-4o-mini","mod\u0065l":"gpt-4o"}`, nil, 400, ""},
		"other case":        {"POST", chat, `{"model":"gpt-4o-mini","MODEL":"gpt-4o"}`, nil, 400, ""},
		"duplicate stream":  {"POST", chat, `{"model":"gpt-4o-mini","stream":false,"stream":true}`, nil, 400, ""},
		"long s in stream":  {"POST", chat, `{"model":"gpt-4o-mini","ſtream":true}`, nil, 400, ""},
		"stream no boolean": {"POST", chat, `{"model":"gpt-4o-mini","stream":"yes"}`, nil, 400, "invalid_request_error"},
		"model no string":   {"POST", chat, `{"model":5}`, nil, 400, "invalid_request_error"},
		"model missing":     {"POST", chat, `{}`, nil, 400, "invalid_request_error"},
		"body too large":    {"POST", chat, `{"model":"gpt-4o-mini","x":"` + strings.Repeat("x", 33<<20) + `"}`, nil, 413, ""},
		"unknown path":      {"POST", "/v1/nothing", hello, nil, 404, "unknown_url"},
		"root":              {"GET", "/", "", nil, 404, "unknown_url"},
		"escaped slash":     {"POST", "/v1/chat%2Fcompletions", hello, nil, 400, ""},
		"wrong method":      {"GET", chat, "", nil, 405, ""},
		"GET with a body":   {"GET", "/v1/models", hello, nil, 400, "invalid_request_error"},
		"POST without one":  {"POST", chat, "", nil, 400, ""},
		"nested arrays":     {"POST", chat, `{"model":"gpt-4o-mini","x":` + strings.Repeat("[", 10<<20), nil, 400, "invalid_json"},
		"gzip":              {"POST", chat, gz.String(), []string{"content-encoding", "gzip"}, 415, "unsupported_content_encoding"},
		"large headers":     {"POST", chat, hello, []string{"x-large", strings.Repeat("x", 70<<10)}, 431, "headers_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), c.method, w.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("authorization", "Bearer "+w.key)
			a := do(t, &http.Client{Transport: &http.Transport{}}, r, c.headers...)
			f := a.refusal(t)
			if a.status != c.status || c.code != "" && f.Code != c.code {
				t.Errorf("got %d %s, want %d %s: %s", a.status, f.Code, c.status, c.code, a.body)
			}
			for _, secret := range []string{w.key, disabled, revoked, limited} {
				if strings.Contains(a.body, secret) {
					t.Error("the answer has a key in it")
				}
			}
		})
	}
	t.Run("two keys", func(t *testing.T) {
		got := raw(t, w.URL, fmt.Sprintf("POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer %s\r\nauthorization: Bearer sk-x\r\ncontent-length: %d\r\n\r\n%s",
			chat, w.key, len(hello), hello))
		if !strings.HasPrefix(got, "HTTP/1.1 401 ") || !strings.Contains(got, "invalid_api_key") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no HTTP", func(t *testing.T) {
		if got := raw(t, w.URL, "HELLO\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("got %q", got)
		}
	})
	if got := w.provider.Ledger().Totals().Requests; got != 0 {
		t.Errorf("%d requests reached the provider, want none", got)
	}
	if rss := residentBytes(t, w.ProcessorPID()); rss > 600<<20 {
		t.Errorf("the processor holds %d MB after all that, want less than 600", rss>>20)
	}
	if a := w.post(t, chat, hello); a.status != 200 {
		t.Errorf("a good request afterwards: got %d: %s", a.status, a.body)
	}
	w.Rows(1) // a refusal is no row
}

// residentBytes is how much memory a process holds.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Logf("memory is not checked on this system: %v", err)
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Input that is odd, but right, is served.
func TestOddInputIsServed(t *testing.T) {
	w := newWorld(t, rig.Options{})
	const chat = "/v1/chat/completions"

	t.Run("key in every accepted header", func(t *testing.T) {
		for _, h := range [][]string{
			{"authorization", "Bearer " + w.key},
			{"authorization", "bearer " + w.key},
			{"authorization", "", "api-key", w.key},
			{"authorization", "", "x-api-key", w.key},
		} {
			if a := w.post(t, chat, hello, h...); a.status != 200 {
				t.Errorf("%q: got %d: %s", h[0], a.status, a.body)
			}
		}
	})
	t.Run("chunked body", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+chat, io.MultiReader(strings.NewReader(hello[:20]), strings.NewReader(hello[20:])))
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, http.DefaultClient, r, "authorization", "Bearer "+w.key); a.status != 200 {
			t.Errorf("got %d: %s", a.status, a.body)
		}
	})
	t.Run("unknown fields arrive byte for byte", func(t *testing.T) {
		body := "{\n  \"model\":\t\"gpt-4o-mini\", \"messages\":[{\"role\":\"user\",\"content\":\"é\\u00e9\"}], \"new_field\": {\"a\":[1.0,1e3,null]} , \"temperature\":0.70 }\n"
		a := w.post(t, chat, body)
		if got := w.provider.Ledger().Attempts(a.exchange); len(got) != 1 || got[0].Body != body {
			t.Errorf("the provider got %+v", got)
		}
	})
	t.Run("image of 20 MB in a data URL", func(t *testing.T) {
		image := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x89, 'P', 'N', 'G'}, 15<<20/4))
		body := `{"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + image + `"}}]}]}`
		a := w.post(t, chat, body)
		if a.status != 200 {
			t.Fatalf("got %d: %.300s", a.status, a.body)
		}
		if got := w.provider.Ledger().Attempts(a.exchange)[0].BodyBytes; got != int64(len(body)) {
			t.Errorf("the provider got %d bytes, want %d", got, len(body))
		}
	})
	t.Run("content type of a form", func(t *testing.T) { // as curl -d sends it
		a := w.post(t, chat, hello, "content-type", "application/x-www-form-urlencoded")
		got := w.provider.Ledger().Attempts(a.exchange)
		if len(got) != 1 || got[0].Headers.Get("content-type") != "application/json" {
			t.Errorf("the provider got %+v", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{}}
		tr.Protocols.SetUnencryptedHTTP2(true)
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+chat, strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, &http.Client{Transport: tr}, r, "authorization", "Bearer "+w.key); a.status != 200 {
			t.Errorf("got %d: %s", a.status, a.body)
		}
	})
	t.Run("HTTP/2 with trailers", func(t *testing.T) {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+chat, io.MultiReader(strings.NewReader(hello)))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Checksum": {"abc"}}
		if a := do(t, &http.Client{Transport: tr}, r, "authorization", "Bearer "+w.key); a.status != 200 {
			t.Errorf("got %d: %s", a.status, a.body)
		}
	})
	t.Run("a body that Weir changes has its length", func(t *testing.T) {
		a := w.post(t, chat, helloStream)
		got := w.provider.Ledger().Attempts(a.exchange)
		if len(got) != 1 || got[0].Headers.Get("content-length") != strconv.FormatInt(got[0].BodyBytes, 10) || !strings.Contains(got[0].Body, `"include_usage":true`) {
			t.Errorf("the provider got %+v", got)
		}
	})
	for name, request := range map[string]string{
		"HTTP/1.0":             "POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s",
		"Expect: 100-continue": "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s",
	} {
		t.Run(name, func(t *testing.T) {
			got := raw(t, w.URL, fmt.Sprintf(request, w.key, len(hello), hello))
			if !strings.Contains(got, " 200 OK\r\n") || !strings.Contains(got, `"object":"chat.completion"`) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// raw sends bytes and returns all that comes back until the connection is closed.
func raw(t *testing.T, url, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // what was read is read
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is Weir's, Envoy's, or of the client's own connection never reaches a provider; neither does the client's key.
func TestHeadersThatAreNobodysBusinessAreGone(t *testing.T) {
	w := newWorld(t, rig.Options{})
	r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+"/v1/chat/completions", strings.NewReader(hello))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"authorization": "Bearer " + w.key, "x-weir-exchange-id": "forged", "X-Weir-Channel": "1", "x-envoy-max-retries": "50",
		"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx", "X-Envoy-Original-Path": "/x", "openai-organization": "org-client",
		"openai-project": "proj-client", "cookie": "a=b", "te": "trailers", "proxy-authorization": "Basic x", "keep-alive": "timeout=5",
		"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1", "x-real-ip": "10.0.0.1", "x-request-id": "mine", "x-mine": "kept",
		"x-client-request-id": "forged", "accept-encoding": "gzip",
	} {
		r.Header.Set(k, v)
	}
	a := do(t, http.DefaultClient, r)
	if a.status != 200 {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	got := w.provider.Ledger().Attempts(a.exchange)
	if len(got) != 1 {
		t.Fatalf("got %d attempts under %s, want 1", len(got), a.exchange)
	}
	allowed := map[string]bool{
		"accept-encoding": true, "authorization": true, "content-length": true, "content-type": true, "user-agent": true,
		"x-client-request-id": true, "x-mine": true, "host": true,
	}
	for name, values := range got[0].Headers {
		if !allowed[strings.ToLower(name)] {
			t.Errorf("%s reached the provider: %q", name, values)
		}
		if strings.Contains(strings.Join(values, ","), w.key) {
			t.Errorf("the client's key reached the provider in %s", name)
		}
	}
	if h := got[0].Headers; h.Get("authorization") != "Bearer sk-one" || h.Get("accept-encoding") != "identity" || h.Get("x-mine") != "kept" {
		t.Errorf("the provider got %v", h)
	}
	for _, name := range []string{"openai-organization", "set-cookie", "x-envoy-upstream-service-time", "x-ratelimit-limit-requests"} {
		if v := a.header.Get(name); v != "" {
			t.Errorf("the client got %s: %s", name, v)
		}
	}
}

func TestModelsAreThoseThatTheKeyMayUse(t *testing.T) {
	w := newWorld(t, rig.Options{})
	limited, _ := w.Key(store.NewKey{Name: "limited", Models: []string{"gpt-4o*"}})
	w.Settle()
	get := func(path string) answer {
		r, err := http.NewRequestWithContext(t.Context(), "GET", w.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return do(t, http.DefaultClient, r, "authorization", "Bearer "+limited)
	}
	a := get("/v1/models")
	if a.status != 200 || !strings.Contains(a.body, `"gpt-4o-mini"`) || strings.Contains(a.body, "embedding") {
		t.Errorf("got %d: %s", a.status, a.body)
	}
	if a := get("/v1/models/gpt-4o"); a.status != 200 || !strings.Contains(a.body, `"id":"gpt-4o"`) {
		t.Errorf("got %d: %s", a.status, a.body)
	}
	if a := get("/v1/models/text-embedding-3-small"); a.status != 404 || a.refusal(t).Code != "model_not_found" {
		t.Errorf("got %d: %s", a.status, a.body)
	}
}

// TestKeyRevokedWhileABodyIsOnItsWayIsRefused: a client that keeps requests open has none in store for after its key was revoked.
func TestKeyRevokedWhileABodyIsOnItsWayIsRefused(t *testing.T) {
	w := newWorld(t, rig.Options{})
	secret, k := w.Key(store.NewKey{Name: "slow"})
	w.Settle()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // what was read is read
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
		secret, len(hello), hello[:10])
	w.Eventually("the head is decided on", func() error {
		open, err := w.Metric("weir_extproc_streams")
		if err == nil && open != 1 {
			err = fmt.Errorf("%v streams are open", open)
		}
		return err
	})
	if _, err := w.Store.RevokeKey(t.Context(), k.Name); err != nil {
		t.Fatal(err)
	}
	w.Settle()
	fmt.Fprint(conn, hello[10:])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is read
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), "revoked") {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
	if n := w.provider.Ledger().Totals().Requests; n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}
