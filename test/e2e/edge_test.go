// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// edgeCertificate writes a certificate and its key to where the gateway is told that they are.
func edgeCertificate(t *testing.T, a *authority.Authority, dir, name string) {
	t.Helper()
	chain, key := a.Sign(t, name)
	for file, b := range map[string][]byte{"tls.crt": chain, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A new certificate is taken up without a restart: new connections have it, a stream that runs goes on, and one that does not fit changes nothing.
func TestClientsSpeakTLSWithTheCertificateOfTheDay(t *testing.T) {
	ca, dir := authority.New(t), t.TempDir()
	edgeCertificate(t, ca, dir, "one.example")
	w := newWorld(t, rig.Options{
		Production: true, Gateway: fmt.Sprintf("tls: {cert: %q, key: %q}", filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")),
	})
	gate := w.gated(t)
	secure := "https" + strings.TrimPrefix(w.URL, "http")
	roots := ca.Pool()
	client := func(name string, versions ...string) *http.Client {
		c := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, NextProtos: versions}, ForceAttemptHTTP2: len(versions) == 0,
		}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	ask := func(c *http.Client, body string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, secure+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("authorization", "Bearer "+w.key)
		return c.Do(r)
	}
	for want, c := range map[string]*http.Client{"HTTP/2.0": client("one.example"), "HTTP/1.1": client("one.example", "http/1.1")} {
		resp, err := ask(c, hello)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || resp.Proto != want {
			t.Errorf("got %d by %s, want 200 by %s", resp.StatusCode, resp.Proto, want)
		}
		w.Row(resp.Header.Get("x-weir-exchange-id"))
	}
	if resp, err := http.Post(w.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello)); err == nil {
		_ = resp.Body.Close()
		t.Errorf("plain HTTP is answered with %d", resp.StatusCode)
	}

	long := client("one.example")
	running, err := ask(long, gatedStream)
	if err != nil {
		t.Fatal(err)
	}
	edgeCertificate(t, ca, dir, "two.example")
	w.Eventually("the other certificate is served", func() error {
		resp, err := ask(client("two.example"), hello)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	close(gate)
	if b, err := io.ReadAll(running.Body); err != nil || !strings.Contains(string(b), "[DONE]") {
		t.Errorf("the stream that ran before: %q, %v", b, err)
	}
	_ = running.Body.Close()

	if err := os.WriteFile(filepath.Join(dir, "tls.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the mistake is reported", func() error {
		if n, err := w.Metric("weir_gateway_certificate_failing"); err != nil || n != 1 {
			return fmt.Errorf("failing %v, %w", n, err)
		}
		return nil
	})
	resp, err := ask(client("two.example"), hello)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("after the mistake: %v", err)
	}
	_ = resp.Body.Close()
}

// With the PROXY protocol the client is who the header says, and without the header there is nobody.
func TestAddressesComeByTheProxyProtocol(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true, Gateway: "proxy_protocol: true"})
	host := strings.TrimPrefix(w.URL, "http://")
	for _, header := range []string{
		"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xc0\x00\x02\x01" + "\x12\x67\x01\xbb",
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%sPOST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s", header, w.key, len(hello), hello)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", header, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = conn.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%q: got %d", header, resp.StatusCode)
		}
		w.Row(resp.Header.Get("x-weir-exchange-id"))
	}
	if resp, err := http.Post(w.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello)); err == nil {
		_ = resp.Body.Close()
		t.Errorf("a connection without the header is answered with %d", resp.StatusCode)
	}
}

// An Envoy that is told to stop refuses connections at once, and ends when its last stream has.
func TestEnvoyDrainsItsStreams(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true, EnvoyDrain: time.Minute})
	gate := w.gated(t)
	const streams = 20
	running := make([]*http.Response, streams)
	for i := range running {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(gatedStream))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("authorization", "Bearer "+w.key)
		if running[i], err = http.DefaultClient.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	go func() {
		w.StopEnvoy()
		close(ended)
	}()
	w.Eventually("connections are refused", func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
		if err != nil {
			return nil //nolint:nilerr // as it should be
		}
		return errors.Join(errors.New("one was taken"), conn.Close())
	})
	if n, err := envoy.Active(t.Context(), w.EnvoyAdmin); err != nil || n != streams {
		t.Errorf("%d streams are under way, %v; want all %d", n, err, streams)
	}
	close(gate)
	for i, resp := range running {
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(b), "[DONE]") {
			t.Errorf("stream %d was cut after %d bytes: %v", i, len(b), err)
		}
	}
	<-ended
	for _, row := range w.Rows(streams) {
		if row.Status != "ok" || row.Output != 1 || row.Estimated {
			t.Errorf("row %+v", row)
		}
	}
	w.StartEnvoy() // for what every test checks at its end
}

const gatedStream = `{"model":"gated","stream":true,"messages":[{"role":"user","content":"Hello there"}]}`

// gated adds a channel whose streams have begun and do not end until the gate is closed. Its model gated-json does not even read until then.
func (w *world) gated(t *testing.T) (gate chan struct{}) {
	t.Helper()
	gate = make(chan struct{})
	const chunk = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gated","choices":[%s],"usage":%s}` + "\n\n"
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(io.LimitReader(r.Body, 32)); strings.Contains(string(body), "gated-json") { // the rest stays where it is
			w.holds.Add(1)
			select {
			case <-gate:
			case <-r.Context().Done():
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("content-type", "application/json")
			fmt.Fprint(rw, `{"id":"c","object":"chat.completion","created":1,"model":"gated-json","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		rw.Header().Set("content-type", "text/event-stream")
		fmt.Fprintf(rw, chunk, `{"index":0,"delta":{"content":"Hi"},"finish_reason":null}`, "null")
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(rw, chunk, `{"index":0,"delta":{},"finish_reason":"stop"}`, "null")
		fmt.Fprintf(rw, chunk, "", `{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}`)
		fmt.Fprint(rw, "data: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	w.Channel(store.NewChannel{Name: "gated", Provider: "openai", BaseURL: s.URL + "/v1", Models: rig.Models("gated", "gated-json")})
	w.Settle()
	return gate
}

// A second Envoy listens on the same port while the first drains: whoever comes is served, and who was there is not cut. This is how Envoy is
// replaced on a host without a load balancer.
func TestASecondEnvoyTakesOverThePort(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true, EnvoyDrain: time.Minute})
	gate := w.gated(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(gatedStream))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	running, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	stopSecond := w.StartSecondEnvoy("b")
	ended := make(chan struct{})
	go func() {
		w.StopEnvoy()
		close(ended)
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for served := 0; served < 50; {
		select {
		case <-ended:
			t.Fatal("the first Envoy has ended, and with it the stream")
		default:
		}
		if err := w.ask(client, hello, "usage"); err != nil {
			// A connection that the kernel had given to the first one's queue goes with it.
			if served > 20 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Fatalf("after %d that were served: %v", served, err)
			}
			continue
		}
		served++
	}
	close(gate)
	if b, err := io.ReadAll(running.Body); err != nil || !strings.Contains(string(b), "[DONE]") {
		t.Errorf("the stream of before: %q, %v", b, err)
	}
	_ = running.Body.Close()
	<-ended
	if err := w.ask(client, hello, "usage"); err != nil {
		t.Errorf("by the second alone: %v", err)
	}
	w.Rows(52)
	w.StartEnvoy()
	stopSecond()
}

// With a limit of memory, Envoy refuses what does not fit, at once and in the words of the API, serves what it has taken, and is itself again
// when that has gone.
func TestEnvoyTurnsWorkAwayInsteadOfGrowing(t *testing.T) {
	const heap, enough = 128 << 20, 20
	w := newWorld(t, rig.Options{Production: true, EnvoyLimits: envoy.Limits{HeapBytes: heap}})
	gate := w.gated(t)
	body := strings.Replace(gatedRequest, "Hello there", strings.Repeat("Hello there ", 70_000), 1) // 0.8 MB
	served, refused := make(chan answer, 1000), 0
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	taken := 0
	for taken+refused < cap(served) && refused < enough {
		answers := make(chan answer, 1)
		go func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				answers <- answer{err: err}
				return
			}
			r.Header.Set("authorization", "Bearer "+w.key)
			resp, err := client.Do(r)
			if err != nil {
				answers <- answer{err: err}
				return
			}
			defer resp.Body.Close() //nolint:errcheck // it is read to its end
			b, err := io.ReadAll(resp.Body)
			answers <- answer{status: resp.StatusCode, header: resp.Header, body: string(b), err: err}
		}()
		w.Eventually("it is held by the provider, or answered", func() error {
			if w.holds.Load() > int64(taken) || len(answers) > 0 {
				return nil
			}
			return errors.New("neither")
		})
		if len(answers) == 0 {
			taken++
			go func() { served <- <-answers }()
			continue
		}
		refused++
		if a := <-answers; a.err != nil || a.status != http.StatusServiceUnavailable || a.refusal(t).Code != "overloaded" {
			t.Fatalf("with %d taken: got %d %s, %v; want 503 overloaded", taken, a.status, a.body, a.err)
		}
	}
	if taken < 20 || refused < enough {
		t.Errorf("%d were taken and %d refused", taken, refused)
	}
	close(gate)
	for range taken {
		if a := <-served; a.err != nil || a.status != http.StatusOK {
			t.Errorf("one that was taken: got %d %s, %v", a.status, a.body, a.err)
		}
	}
	w.Eventually("it serves again", func() error { return w.ask(client, hello, "usage") })
	w.Rows(taken + 1)
}

const gatedRequest = `{"model":"gated-json","messages":[{"role":"user","content":"Hello there"}]}`
