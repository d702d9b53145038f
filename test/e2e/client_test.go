// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

const hello = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello there"}]}`

const helloStream = `{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hello there"}]}`

// world is a gateway with one provider, one channel and one key.
type world struct {
	*rig.Rig
	provider *rig.Provider
	channel  store.Channel
	key      string
	holds    atomic.Int64 // requests that a gated provider has and does not answer yet
}

func newWorld(t *testing.T, o rig.Options) *world {
	t.Helper()
	r := rig.Start(t, o)
	w := &world{Rig: r, provider: r.Provider(fake.Options{KeepHeaders: true, KeepBody: 1 << 16})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	t.Cleanup(func() { w.clean(t) })
	return w
}

// underBothTaps runs a test on a gateway with each of the taps.
func underBothTaps(t *testing.T, f func(*testing.T, *world)) {
	t.Helper()
	for _, tap := range []envoy.Tap{envoy.TapNative, envoy.TapLua} {
		t.Run(string(tap), func(t *testing.T) { f(t, newWorld(t, rig.Options{Tap: tap})) })
	}
}

// clean checks, at the end of a test, what must hold whatever the test did: no filter went wrong, and the processor's log tells nothing
// that is nobody's business.
func (w *world) clean(t *testing.T) {
	t.Helper()
	names := []string{
		"http.weir.ext_proc.spurious_msgs_received", "http.weir.ext_proc.rejected_header_mutations",
		"http.weir.ext_proc.message_timeouts", "http.weir.ext_proc.clear_route_cache_ignored",
	}
	if w.Tap == envoy.TapLua {
		names = append(names, "http.weir.lua.errors")
	}
	for _, name := range names {
		if n := w.Stat(name); n != 0 {
			t.Errorf("envoy counts %s: %d, want 0", name, n)
		}
	}
	log, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{w.key, "sk-one", "Hello there", rig.AdminToken} {
		if bytes.Contains(log, []byte(secret)) {
			t.Errorf("the processor's log has %q in it", secret)
		}
	}
}

// answer is a response that has been read to its end.
type answer struct {
	status   int
	header   http.Header
	body     string
	exchange string
	err      error // of reading the body
}

// failure is the error object of an answer.
type failure struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Code    string  `json:"code"`
	Param   *string `json:"param"`
}

// refusal reads an answer as an OpenAI error, and fails the test when it is none.
func (a answer) refusal(t *testing.T) failure {
	t.Helper()
	var f struct{ Error failure }
	d := json.NewDecoder(strings.NewReader(a.body))
	if err := d.Decode(&f); err != nil || f.Error.Message == "" || f.Error.Type == "" || f.Error.Code == "" {
		t.Errorf("status %d: not an OpenAI error: %q (%v)", a.status, a.body, err)
	}
	if !strings.HasPrefix(a.header.Get("content-type"), "application/json") {
		t.Errorf("content-type %q, want JSON", a.header.Get("content-type"))
	}
	return f.Error
}

// post sends a body with the world's key. Headers are given as names and values in turn.
func (w *world) post(t *testing.T, path, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	r.Header.Set("content-type", "application/json")
	return do(t, http.DefaultClient, r, headers...)
}

// do sends a request and reads the answer. Every answer must name its exchange by a UUID of version 7.
func do(t *testing.T, c *http.Client, r *http.Request, headers ...string) answer {
	t.Helper()
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is read
	b, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(b), exchange: resp.Header.Get("x-weir-exchange-id"), err: err}
	if id, err := uuid.Parse(a.exchange); err != nil || id.Version() != 7 {
		t.Errorf("status %d: x-weir-exchange-id %q is no UUID of version 7", a.status, a.exchange)
	}
	return a
}

// events splits a stream into the data of its events.
func events(t *testing.T, body string) []string {
	t.Helper()
	var out []string
	s := bufio.NewScanner(bytes.NewBufferString(body))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			out = append(out, data)
		}
	}
	return out
}

// sameAsLedger compares a row with what the provider that served it last has written down.
func sameAsLedger(t *testing.T, row store.UsageRow, p *rig.Provider) {
	t.Helper()
	attempts := p.Ledger().Attempts(row.Exchange.String())
	if len(attempts) == 0 {
		t.Fatalf("the provider has not seen exchange %s", row.Exchange)
	}
	got := fake.Tokens{Input: row.Input, CachedInput: row.CachedInput, Output: row.Output, Reasoning: row.Reasoning}
	if want := attempts[len(attempts)-1].Tokens; got != want {
		t.Errorf("exchange %s: row has %+v, the provider's ledger %+v", row.Exchange, got, want)
	}
}

func fakeAt(prefix string) fake.Options {
	return fake.Options{Prefix: prefix, KeepHeaders: true, KeepBody: 1 << 16}
}
