// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/fake"
)

const hello = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello there"}]}`

// start serves a provider on a real port until the test ends, and returns the URL of its root.
func start(t *testing.T, opts fake.Options) (p *fake.Provider, root string) {
	t.Helper()
	p = fake.New(opts)
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, "http://" + ln.Addr().String()
}

// send makes a request. Headers come in pairs.
func send(ctx context.Context, t *testing.T, url, body string, headers ...string) *http.Response {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// ask makes a request and reads its whole answer.
func ask(t *testing.T, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	resp := send(t.Context(), t, url, body, headers...)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return resp, string(b)
}

// errorOf decodes an error in OpenAI's shape.
func errorOf(t *testing.T, body string) (message, kind, code, param string) {
	t.Helper()
	var e struct {
		Error *struct {
			Message, Type string
			Code, Param   *string
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == nil {
		t.Fatalf("not an error of OpenAI's shape: %s", body)
	}
	deref := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return e.Error.Message, e.Error.Type, deref(e.Error.Code), deref(e.Error.Param)
}

// settled polls until an exchange's only attempt has ended: a provider learns that its peer left after the peer does.
func settled(t *testing.T, p *fake.Provider, exchange string) fake.Attempt {
	t.Helper()
	return awaited(t, p, exchange, func(a fake.Attempt) bool { return a.Outcome != fake.Open })
}

// awaited polls until an exchange has one attempt, of which something holds.
func awaited(t *testing.T, p *fake.Provider, exchange string, holds func(fake.Attempt) bool) fake.Attempt {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		if as := p.Ledger().Attempts(exchange); len(as) == 1 && holds(as[0]) {
			return as[0]
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for exchange %q: %+v", exchange, p.Ledger().Attempts(exchange))
		}
	}
}

func TestOnlyAcceptedCredentialsAreServed(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{Credentials: map[string]string{"sk-one": "one", "sk-two": "two"}})
	tests := map[string]struct {
		header, value string
		status        int
		account       string
		want          fake.Credential
	}{
		"bearer":        {"Authorization", "Bearer sk-one", 200, "one", fake.Credential{Header: "authorization", Value: "Bearer sk-one"}},
		"azure":         {"Api-Key", "sk-two", 200, "two", fake.Credential{Header: "api-key", Value: "sk-two"}},
		"anthropic":     {"X-Api-Key", "sk-one", 200, "one", fake.Credential{Header: "x-api-key", Value: "sk-one"}},
		"wrong":         {"Authorization", "Bearer sk-none", 401, "fake", fake.Credential{Header: "authorization", Value: "Bearer sk-none"}},
		"without":       {"X-Other", "sk-one", 401, "fake", fake.Credential{}},
		"not a bearer":  {"Authorization", "Basic sk-one", 401, "fake", fake.Credential{Header: "authorization", Value: "Basic sk-one"}},
		"bearer nobody": {"Authorization", "Bearer", 401, "fake", fake.Credential{Header: "authorization", Value: "Bearer"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := ask(t, root+"/v1/chat/completions", hello, tt.header, tt.value, "X-Client-Request-Id", name)
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status == 401 {
				if _, kind, code, _ := errorOf(t, body); kind != "invalid_request_error" || code != "invalid_api_key" {
					t.Errorf("error = %s, %s", kind, code)
				}
			} else if want := `"system_fingerprint":"fp_` + tt.account + `"`; !strings.Contains(body, want) {
				t.Errorf("answer lacks %s: %s", want, body)
			}
			got := p.Ledger().Attempts(name)[0]
			if got.Account != tt.account || got.Status != tt.status {
				t.Errorf("ledger has account %q, status %d", got.Account, got.Status)
			}
			if diff := cmp.Diff(got.Credential, tt.want); diff != "" {
				t.Errorf("credential (-got +want):\n%s", diff)
			}
		})
	}
}

func TestOtherBasePathIsNotFound(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{Prefix: "/base/v1/"})
	for path, want := range map[string]int{
		"/base/v1/chat/completions": 200, "/v1/chat/completions": 404, "/base/v1chat/completions": 404, "/base/v1/unknown": 404, "/": 404,
	} {
		resp, body := ask(t, root+path, hello)
		if resp.StatusCode != want {
			t.Errorf("%s: status = %d, want %d", path, resp.StatusCode, want)
		}
		if want == 404 {
			errorOf(t, body)
		}
	}
}

func TestModelsAreListedAndRetrieved(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{Models: []string{"gpt-4o-mini"}})
	_, list := ask(t, root+"/v1/models", "")
	want := `{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1767225600,"owned_by":"fake"}]}`
	if list != want {
		t.Errorf("list = %s, want %s", list, want)
	}
	if resp, _ := ask(t, root+"/v1/models/gpt-4o-mini", ""); resp.StatusCode != 200 {
		t.Errorf("known model: status = %d", resp.StatusCode)
	}
	for _, url := range []string{"/v1/models/other", "/v1/chat/completions"} {
		body := ""
		if strings.HasSuffix(url, "completions") {
			body = strings.Replace(hello, "gpt-4o-mini", "other", 1)
		}
		resp, answer := ask(t, root+url, body)
		if _, _, code, _ := errorOf(t, answer); resp.StatusCode != 404 || code != "model_not_found" {
			t.Errorf("%s: status = %d, code = %s", url, resp.StatusCode, code)
		}
	}
	if resp, _ := ask(t, root+"/v1/models", hello); resp.StatusCode != 405 {
		t.Errorf("POST of models: status = %d, want 405", resp.StatusCode)
	}
}

func TestForcedStatusLastsUntilItIsLifted(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{Behavior: fake.Behavior{Status: 429, RetryAfter: 1500 * time.Millisecond}})
	resp, body := ask(t, root+"/v1/chat/completions", hello, "X-Client-Request-Id", "a")
	if _, _, code, _ := errorOf(t, body); resp.StatusCode != 429 || code != "rate_limit_exceeded" || resp.Header.Get("Retry-After") != "2" {
		t.Errorf("status = %d, code = %s, retry-after = %q", resp.StatusCode, code, resp.Header.Get("Retry-After"))
	}
	if a := p.Ledger().Attempts("a")[0]; a.Outcome != fake.Failed || a.Model != "gpt-4o-mini" || a.Tokens != (fake.Tokens{}) {
		t.Errorf("ledger has %+v", a)
	}
	p.Force(fake.Behavior{})
	if resp, _ := ask(t, root+"/v1/chat/completions", hello); resp.StatusCode != 200 {
		t.Errorf("after lifting: status = %d", resp.StatusCode)
	}
}

func TestHangingRequestIsInTheLedgerUntilTheClientLeaves(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{Behavior: fake.Behavior{Hang: true}})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, root+"/v1/chat/completions", strings.NewReader(hello))
		if err == nil {
			req.Header.Set("X-Client-Request-Id", "hung")
			_, err = http.DefaultClient.Do(req)
		}
		errs <- err
	}()
	if a := awaited(t, p, "hung", func(fake.Attempt) bool { return true }); a.Outcome != fake.Open || a.Model != "gpt-4o-mini" {
		t.Errorf("while hanging the ledger has %+v", a)
	}
	if got := p.Ledger().Totals().Open; got != 1 {
		t.Errorf("open = %d, want 1", got)
	}
	cancel()
	if err := <-errs; err == nil {
		t.Error("a hanging request was answered")
	}
	if a := settled(t, p, "hung"); a.Outcome != fake.ClientClosed || a.Status != 0 || a.Tokens != (fake.Tokens{}) {
		t.Errorf("afterwards the ledger has %+v", a)
	}
}

func TestServingEndsWithRequestsInFlightSettled(t *testing.T) {
	t.Parallel()
	p := fake.New(fake.Options{})
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	body := strings.Replace(hello, "{", `{"stream":true,`, 1)
	resp := send(t.Context(), t, "http://"+ln.Addr().String()+"/v1/chat/completions", body, "X-Fake-Interval-Ms", "60000")
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
		t.Fatalf("read the first byte: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if got := p.Ledger().Totals(); got.Open != 0 || got.ClientClosed != 1 {
		t.Errorf("totals = %+v, want nothing open", got)
	}
}

func TestRunFailsWhereItCannotListen(t *testing.T) {
	t.Parallel()
	err := fake.New(fake.Options{}).Run(t.Context(), "127.0.0.1:none")
	if err == nil || !strings.HasPrefix(err.Error(), "listen for the fake provider: ") {
		t.Errorf("Run = %v", err)
	}
}
