// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/test/rig"
)

// spinning is what came of the requests that a group of clients sent one after the other.
type spinning struct {
	times  []time.Duration
	failed []answer
}

// p99 is the time that one in a hundred requests took longer than.
func (s *spinning) p99() time.Duration {
	slices.Sort(s.times)
	return s.times[len(s.times)*99/100]
}

// load sends requests with a key for as long as it is told, by so many clients.
func (w *world) load(t *testing.T, key string, clients int, goOn func() bool) *spinning {
	t.Helper()
	var mu sync.Mutex
	var all spinning
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for goOn() {
				began := time.Now()
				a := w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer "+key)
				took := time.Since(began)
				mu.Lock()
				all.times = append(all.times, took)
				if a.status != 200 || a.err != nil {
					all.failed = append(all.failed, a)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return &all
}

// The plugin of one tenant uses nearly all of the fuel that a call has, with each of its requests, one after the other. The times are printed: what they come to depends on the
// machine, and on what else it does.
func TestSpinningPluginFailsNobodyElse(t *testing.T) {
	w := newWorld(t, rig.Options{})
	if _, err := w.Store.CreateTenant(t.Context(), "noisy"); err != nil {
		t.Fatal(err)
	}
	noisy, _ := w.Key(store.NewKey{Tenant: "noisy", Name: "noisy"})
	w.Settle()
	attach(t, w, wasmtest.Guest{Request: []byte{}, Spins: 2_500_000}, admin.NewAttachment{
		Plugin: "spin", Tenant: "noisy", Mode: "open", Limits: admin.PluginLimits{TimeMS: 10_000}, // so that it is never left alone
	})
	const clients, phase = 16, 3 * time.Second
	lasting := func() func() bool {
		until := time.Now().Add(phase)
		return func() bool { return time.Now().Before(until) }
	}
	w.load(t, w.key, clients, lasting()) // warm
	quiet := w.load(t, w.key, clients, lasting())

	var stop atomic.Bool
	var noise *spinning
	var group sync.WaitGroup
	group.Go(func() { noise = w.load(t, noisy, 4, func() bool { return !stop.Load() }) })
	loud := w.load(t, w.key, clients, lasting())
	stop.Store(true)
	group.Wait()

	for name, s := range map[string]*spinning{"before": quiet, "beside the spinning plugin": loud, "of the tenant with the plugin": noise} {
		if len(s.failed) > 0 {
			t.Errorf("%s: %d of %d requests failed, the first with %d %s %v", name, len(s.failed), len(s.times), s.failed[0].status, s.failed[0].body, s.failed[0].err)
		}
	}
	calls, err := w.Metric(`weir_plugin_calls_total{outcome="continue",plugin="spin"}`)
	if err != nil || int(calls) != len(noise.times) || len(noise.times) == 0 {
		t.Errorf("the plugin went on %v times for %d requests: %v", calls, len(noise.times), err)
	}
	t.Logf("alone: %.0f requests/s, p99 %v; beside %d calls of %s: %.0f requests/s, p99 %v",
		float64(len(quiet.times))/phase.Seconds(), quiet.p99(), len(noise.times), "a plugin that spins", float64(len(loud.times))/phase.Seconds(), loud.p99())
}
