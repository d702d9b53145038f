// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// A key that is held to a network works from there, and what a client claims of its address counts only behind proxies that are trusted.
func TestKeyIsHeldToItsNetworks(t *testing.T) {
	for name, hops := range map[string]int{"direct": 0, "behind a proxy": 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, rig.Options{Production: true, Gateway: fmt.Sprintf("trusted_hops: %d", hops)})
			office, _ := w.Key(store.NewKey{Name: "office", Networks: []string{"203.0.113.0/24"}})
			local, _ := w.Key(store.NewKey{Name: "local", Networks: []string{"127.0.0.0/8"}})
			w.Settle()
			for _, tt := range []struct {
				key, forwarded string
				served         bool
			}{
				{office, "203.0.113.9", hops == 1},
				{office, "6.6.6.6, 203.0.113.9", hops == 1},
				{office, "203.0.113.9, 6.6.6.6", false},
				{office, "", false},
				{local, "", true},
				{local, "203.0.113.9", hops == 0},
				{w.key, "nonsense", true},
			} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(hello))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("authorization", "Bearer "+tt.key)
				if tt.forwarded != "" {
					r.Header.Set("x-forwarded-for", tt.forwarded)
				}
				a := do(t, http.DefaultClient, r)
				if tt.served && a.status != 200 || !tt.served && (a.status != 401 || !strings.Contains(a.body, "ip_not_authorized")) {
					t.Errorf("x-forwarded-for %q: %d %s, want served %v", tt.forwarded, a.status, a.body, tt.served)
				}
			}
		})
	}
}

// The tags of a key are in the rows of its exchanges, and a key that may be pinned goes to the channel that it names.
func TestKeyTagsAndPinsItsExchanges(t *testing.T) {
	w := newWorld(t, rig.Options{})
	other := w.Channel(store.NewChannel{Name: "east-1", BaseURL: w.provider.URL, Priority: -1, Groups: []string{"east"}})
	pinned, _ := w.Key(store.NewKey{Name: "pinned", Pinnable: true, Tags: map[string]string{"team": "search"}})
	grouped, _ := w.Key(store.NewKey{Name: "grouped", Groups: []string{"east"}})
	w.Settle()
	for secret, channel := range map[string]string{pinned: w.channel.Name, pinned + "-east-1": other.Name, grouped: other.Name} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("authorization", "Bearer "+secret)
		a := do(t, http.DefaultClient, r)
		if a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
			continue
		}
		row := w.Row(a.exchange)
		if row.Channel != channel {
			t.Errorf("went to %q, want %q", row.Channel, channel)
		}
		if secret != grouped && row.Tags["team"] != "search" {
			t.Errorf("tags %v", row.Tags)
		}
	}
}
