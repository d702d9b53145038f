// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// Envoy has one set of request headers for all attempts of a request. What a channel's own filters put into them must not reach the next channel: its
// credential least of all, which that channel's provider could use.
func TestNothingOfAChannelReachesTheNext(t *testing.T) {
	const long = "a-name-of-the-model-that-is-much-longer-than-that-which-the-client-uses"
	kinds := map[string]store.NewChannel{
		"azure":     {Provider: "azure", Models: rig.Models("gpt-4o-mini=" + long)},
		"anthropic": {Provider: "anthropic", Models: rig.Models("gpt-4o-mini=x")},
		"openai":    {Provider: "openai", Models: rig.Models("gpt-4o-mini")},
	}
	prefixes := map[string]string{"azure": "/openai/deployments/v1", "anthropic": "/v1", "openai": "/v1"}
	headers := map[string]string{"azure": "api-key", "anthropic": "x-api-key", "openai": "authorization"}
	for first, a := range kinds {
		for second, b := range kinds {
			if first == second {
				continue
			}
			t.Run(first+" then "+second, func(t *testing.T) {
				t.Parallel()
				r := rig.Start(t, rig.Options{Production: true})
				refusing := r.Provider(fake.Options{Prefix: prefixes[first]})
				refusing.Force(fake.Behavior{Status: http.StatusServiceUnavailable})
				serving := r.Provider(fake.Options{Prefix: prefixes[second], KeepHeaders: true, KeepBody: 1 << 12})
				a.Name, a.BaseURL, a.Priority, a.Credential = "first", refusing.URL, 10, "of-the-first"
				b.Name, b.BaseURL, b.Priority, b.Credential = "second", serving.URL, 1, "of-the-second"
				r.Channel(a)
				r.Channel(b)
				w := &world{Rig: r}
				w.key, _ = r.Key(store.NewKey{Name: "k"})
				r.Settle()
				answer := w.post(t, "/v1/chat/completions", hello)
				if answer.status != http.StatusOK {
					t.Fatalf("got %d: %.300s", answer.status, answer.body)
				}
				got := serving.Ledger().Attempts(answer.exchange)
				if len(got) != 1 {
					t.Fatalf("the second provider got %+v", got)
				}
				if want := prefixes[second] + "/chat/completions"; got[0].Path != want {
					t.Errorf("path %q, want %q", got[0].Path, want)
				}
				for _, name := range headers {
					if name != headers[second] && slices.Contains(got[0].HeaderNames, name) {
						t.Errorf("the second provider was sent %s: %q", name, got[0].Headers.Get(name))
					}
				}
				if want := fmt.Sprint(len(got[0].Body)); got[0].Headers.Get("content-length") != want {
					t.Errorf("content-length %q, want %s", got[0].Headers.Get("content-length"), want)
				}
			})
		}
	}
}
