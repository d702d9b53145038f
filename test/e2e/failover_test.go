// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// pair is a gateway whose first channel is to fail and whose second is well, each with its own key, path and model name.
type pair struct {
	*world
	first, second *rig.Provider
	good          store.Channel
}

func newPair(t *testing.T) *pair {
	t.Helper()
	r := rig.Start(t, rig.Options{Production: true, Config: "timeouts: {first_byte: 2s, first_byte_stream: 1s}\n"})
	p := &pair{
		first:  r.Provider(fake.Options{Account: "first", Credentials: map[string]string{"sk-first": "first"}, KeepBody: 1 << 12}),
		second: r.Provider(fake.Options{Account: "second", Prefix: "/other/v1", Credentials: map[string]string{"sk-second": "second"}, KeepBody: 1 << 12}),
	}
	r.Channel(store.NewChannel{Name: "first", Provider: "openai", BaseURL: p.first.URL, Priority: 10, Models: rig.Models("gpt-4o-mini=first-model")})
	p.good = r.Channel(store.NewChannel{Name: "second", Provider: "openai", BaseURL: p.second.URL, Models: rig.Models("gpt-4o-mini=second-model")})
	p.world = &world{Rig: r}
	p.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	return p
}

func TestAFailingChannelIsSteppedOver(t *testing.T) {
	refusing := func(t *testing.T, p *pair) { //nolint:thelper // the case itself, not a helper of it
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + l.Addr().String() + "/v1"
		l.Close() //nolint:errcheck // what was read is read
		if _, err := p.Store.SetChannel(t.Context(), "first", store.ChannelChange{BaseURL: &url}); err != nil {
			t.Fatal(err)
		}
		p.Settle()
	}
	force := func(b fake.Behavior) func(*testing.T, *pair) {
		return func(_ *testing.T, p *pair) { p.first.Force(b) }
	}
	for name, fail := range map[string]func(*testing.T, *pair){
		"refuses connections": refusing,
		"answers 429":         force(fake.Behavior{Status: 429, RetryAfter: time.Second}),
		"answers 401":         force(fake.Behavior{Status: 401}),
		"answers 500":         force(fake.Behavior{Status: 500}),
		"resets":              force(fake.Behavior{Reset: true}),
		"hangs":               force(fake.Behavior{Hang: true}),
	} {
		for kind, body := range map[string]string{"json": hello, "stream": helloStream} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				p := newPair(t)
				fail(t, p)
				a := p.post(t, "/v1/chat/completions", body)
				if a.status != 200 || !strings.Contains(a.body, `"model":"second-model"`) || !strings.Contains(a.body, "fp_second") {
					t.Fatalf("got %d: %.300s", a.status, a.body)
				}
				got := p.second.Ledger().Attempts(a.exchange)
				if len(got) != 1 || got[0].Path != "/other/v1/chat/completions" || got[0].Credential.Value != "Bearer sk-second" ||
					!strings.Contains(got[0].Body, `"model":"second-model"`) {
					t.Errorf("the second provider got %+v", got)
				}
				row := p.Row(a.exchange)
				sameAsLedger(t, row, p.second)
				if row.Attempts != 2 || row.ChannelID != p.good.ID || row.UpstreamModel != "second-model" || row.Model != "gpt-4o-mini" || row.Status != "ok" {
					t.Errorf("got row %+v", row)
				}
				p.Rows(1)
			})
		}
	}
}

// The processor hears of an attempt that failed, though the exchange went well elsewhere.
func TestAChannelThatFailedRests(t *testing.T) {
	for name, b := range map[string]fake.Behavior{"answers 429": {Status: 429, RetryAfter: time.Minute}, "resets": {Reset: true}} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.first.Force(b)
			if row := p.Row(p.post(t, "/v1/chat/completions", hello).exchange); row.Attempts != 2 {
				t.Errorf("got row %+v", row)
			}
			p.Eventually("the first is left alone", func() error {
				if row := p.Row(p.post(t, "/v1/chat/completions", hello).exchange); row.Attempts != 1 || row.ChannelID != p.good.ID {
					return fmt.Errorf("%d attempts", row.Attempts)
				}
				return nil
			})
		})
	}
}

// A retry goes to another channel or nowhere: never more attempts than channels.
func TestThereAreNoMoreAttemptsThanChannels(t *testing.T) {
	p := newPair(t)
	p.first.Force(fake.Behavior{Status: 503})
	p.second.Force(fake.Behavior{Status: 429})
	a := p.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 429 {
		t.Errorf("got %d %+v, want the last channel's 429", a.status, f)
	}
	if n, m := len(p.first.Ledger().Attempts(a.exchange)), len(p.second.Ledger().Attempts(a.exchange)); n != 1 || m != 1 {
		t.Errorf("got %d and %d attempts, want one each", n, m)
	}
	row := p.Row(a.exchange)
	if row.Status != "upstream_error" || row.Attempts != 2 || row.HTTPStatus != 429 || row.Output != 0 || row.Estimated {
		t.Errorf("got row %+v", row)
	}
}

// After the first byte there is no second attempt: the client would get two beginnings.
func TestAStreamThatIsCutIsNotTriedAgain(t *testing.T) {
	w := newWorld(t, rig.Options{})
	w.Channel(store.NewChannel{Name: "two", BaseURL: w.provider.URL})
	w.Settle()
	a := w.post(t, "/v1/chat/completions", helloStream, "x-fake-cut-after", "3", "x-fake-interval-ms", "20")
	if a.err == nil && strings.Contains(a.body, "[DONE]") {
		t.Fatalf("the stream was not cut: %s", a.body)
	}
	if n := len(w.provider.Ledger().Attempts(a.exchange)); n != 1 {
		t.Errorf("got %d attempts, want 1", n)
	}
	row := w.Row(a.exchange)
	if row.Status != "upstream_error" || !row.Estimated || row.Attempts != 1 || row.Input == 0 {
		t.Errorf("got row %+v", row)
	}
}

// Only the operator can mend a channel's credential; the client's own key is fine and must not be said to be wrong.
func TestAProvidersRefusalOfTheChannelsKeyIsNotTheClients(t *testing.T) {
	underBothTaps(t, aProvidersRefusalOfTheChannelsKeyIsNotTheClients)
}

func aProvidersRefusalOfTheChannelsKeyIsNotTheClients(t *testing.T, w *world) {
	t.Helper()
	w.provider.Force(fake.Behavior{Status: 401})
	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != http.StatusBadGateway || f.Code != "upstream_auth_failed" {
		t.Errorf("got %d %+v, want 502 upstream_auth_failed", a.status, f)
	}
	if row := w.Row(a.exchange); row.Status != "upstream_error" || row.Input != 0 || row.Estimated {
		t.Errorf("got row %+v", row)
	}
}

// A request whose channels cannot be reached at all is admitted, so it is a row; but nobody took it.
func TestNobodyTookIt(t *testing.T) { underBothTaps(t, nobodyTookIt) }

func nobodyTookIt(t *testing.T, w *world) {
	t.Helper()
	w.provider.Stop()
	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 503 || f.Code != "upstream_unavailable" {
		t.Errorf("got %d %+v", a.status, f)
	}
	row := w.Row(a.exchange)
	if row.Status != "upstream_error" || row.ChannelID != 0 || row.Input != 0 || row.Output != 0 || row.Estimated {
		t.Errorf("got row %+v", row)
	}
}

func TestAHangingProviderIsGivenUp(t *testing.T) {
	r := rig.Start(t, rig.Options{Production: true, Config: "timeouts: {first_byte: 1s, first_byte_stream: 1s}\n"})
	w := &world{Rig: r, provider: r.Provider(fake.Options{Behavior: fake.Behavior{Hang: true}})}
	r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 504 || f.Code != "upstream_timeout" {
		t.Errorf("got %d %+v", a.status, f)
	}
	if row := w.Row(a.exchange); row.Status != "timeout" {
		t.Errorf("got row %+v", row)
	}
}
