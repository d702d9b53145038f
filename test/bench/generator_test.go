// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/fake"
)

// target starts a server and returns a generator of a load for it.
func target(t *testing.T, h http.Handler, l load, want expectation, clients int) *generator {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	g, err := newGenerator(t.Context(), address, l.request(address), want, clients)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

func TestEveryLoadIsAnsweredAsItSays(t *testing.T) {
	t.Parallel()
	for _, l := range append(loads(), crowd(4), held(4)) {
		if l.lasts > time.Second {
			l.steer = l.steer[:1] // without the pause between events
		}
		provider := fake.New(fake.Options{})
		g := target(t, provider, l, expectation{events: l.events}, 4)
		got := g.once(t.Context(), 0)
		if err := got.err(); err != nil || len(got.total) != 4 {
			t.Errorf("%s: %d answers, %v", l.name, len(got.total), err)
		}
		totals := provider.Ledger().Totals()
		if totals.Completed != 4 || totals.BodyBytes != int64(4*l.body) {
			t.Errorf("%s: the provider saw %d requests with %d bytes, want 4 with %d", l.name, totals.Completed, totals.BodyBytes, 4*l.body)
		}
		if l.events == 0 && (totals.ResponseBytes < 4*950 || totals.ResponseBytes > 4*1100) {
			t.Errorf("%s: the provider wrote %d bytes in 4 answers, which is not 1 KB each", l.name, totals.ResponseBytes)
		}
	}
}

func TestClosedLoopCountsWhatTheServerServed(t *testing.T) {
	t.Parallel()
	provider := fake.New(fake.Options{})
	g := target(t, provider, loads()[0], expectation{}, 3)
	got := g.closed(t.Context(), 50*time.Millisecond, 5*time.Millisecond)
	if err := got.err(); err != nil {
		t.Fatal(err)
	}
	if served := provider.Ledger().Totals().Completed; int64(len(got.total)) != served || len(got.first) != len(got.total) {
		t.Errorf("got %d latencies and %d first bytes, the server served %d", len(got.total), len(got.first), served)
	}
	if n := got.perSecond(0, time.Hour) * 3600; math.Round(n) != float64(len(got.total)) {
		t.Errorf("%v answers have a time, of %d", n, len(got.total))
	}
	again := g.closed(t.Context(), 20*time.Millisecond, 0)
	if served := provider.Ledger().Totals().Completed; int64(len(got.total)+len(again.total)) < served {
		t.Errorf("a second run counts %d, and the server served %d in both", len(again.total), served)
	}
}

func TestOpenLoopSendsEveryArrivalOnceAndCountsFromWhenItWasDue(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	blocked := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if served.Add(1) == 1 {
			<-blocked // the first holds the only client up
		}
		_, _ = w.Write([]byte("ok"))
	})
	g := target(t, h, loads()[0], expectation{bytes: 2}, 1)
	due := []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}
	const stall = 60 * time.Millisecond
	time.AfterFunc(stall, func() { close(blocked) })
	got := g.open(t.Context(), due)
	if err := got.err(); err != nil {
		t.Fatal(err)
	}
	if len(got.total) != len(due) || served.Load() != int64(len(due)) {
		t.Fatalf("got %d answers, the server served %d, want %d", len(got.total), served.Load(), len(due))
	}
	if least := quantile(got.total, 0); least < stall-3*time.Millisecond-10*time.Millisecond {
		t.Errorf("the least latency is %v: the requests behind the stalled one were not counted from when they were due", least)
	}
}

func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		answer http.HandlerFunc
		want   expectation
		text   string
	}{
		"status": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no channel", http.StatusServiceUnavailable)
		}, expectation{}, "status 503: no channel"},
		"bytes":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("abc")) }, expectation{bytes: 2}, "3 bytes instead of 2"},
		"events": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a\n\n")) }, expectation{events: 2}, "1 events instead of 2"},
		"cut":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, expectation{}, "EOF"},
	}
	for name, a := range answers {
		g := target(t, a.answer, loads()[0], a.want, 2)
		got := g.once(t.Context(), 0)
		err := got.err()
		if err == nil || got.failed != 2 || len(got.total) != 0 || !strings.Contains(err.Error(), a.text) {
			t.Errorf("%s: got %d failures, %d answers, %v; want 2 failures with %q", name, got.failed, len(got.total), err, a.text)
		}
	}
}

func TestAConnectionThatEndsWithItsAnswerIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	var n, refused atomic.Int64
	g := target(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			refused.Add(1)
			w.Header().Set("connection", "close")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}), loads()[0], expectation{}, 2)
	got := g.open(t.Context(), make([]time.Duration, 40))
	if len(got.total) != 20 || got.failed != 20 || refused.Load() != 20 || n.Load() != 40 {
		t.Errorf("%d were served and %d failed of %d, %d of them refused; the first: %v", len(got.total), got.failed, n.Load(), refused.Load(), got.failure)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	provider := fake.New(fake.Options{Behavior: fake.Behavior{Hang: true}})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		provider.ServeHTTP(w, r)
	})
	g := target(t, h, loads()[0], expectation{}, 2)
	got := g.closed(ctx, time.Hour, 0)
	if got.err() == nil {
		t.Error("requests that were never answered are no failure")
	}
}

func TestArrivalsKeepTheRateAndRepeat(t *testing.T) {
	t.Parallel()
	got := arrivals(1000, 10*time.Second, 1)
	if n := float64(len(got)); math.Abs(n-10000) > 4*100 { // four standard deviations
		t.Errorf("got %v arrivals in 10 s at 1000/s", n)
	}
	bunched := 0
	for i, at := range got {
		if at < 0 || at >= 10*time.Second || i > 0 && at < got[i-1] {
			t.Fatalf("arrival %d is at %v", i, at)
		}
		if i > 0 && at-got[i-1] < time.Millisecond/2 {
			bunched++
		}
	}
	if share := float64(bunched) / float64(len(got)); math.Abs(share-0.393) > 0.03 { // 1 - exp(-1/2)
		t.Errorf("%.2f of the gaps are shorter than half the mean: not a Poisson process", share)
	}
	if diff := cmp.Diff(got, arrivals(1000, 10*time.Second, 1)); diff != "" {
		t.Error("two gateways of a round would get different arrivals")
	}
	if cmp.Equal(got, arrivals(1000, 10*time.Second, 2)) {
		t.Error("two rounds get the same arrivals")
	}
}

func TestThroughputIsThatOfTheFullRun(t *testing.T) {
	t.Parallel()
	var s sample
	for at := range 60 { // one each 100 ms, of which the run itself is seconds 1 to 5
		s.done = append(s.done, time.Duration(at)*100*time.Millisecond)
	}
	r := run{load: load{lasts: time.Second, spread: time.Second}, duration: 5 * time.Second}
	for loop, want := range map[string]float64{openLoop: 10, closedLoop: 10} {
		r.loop = loop
		if got := r.throughput(&s); got != want {
			t.Errorf("%s loop: got %v, want %v", loop, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	values := []int{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for q, want := range map[float64]int{0: 1, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v: got %d, want %d", q, got, want)
		}
	}
	if got := quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("of nothing: got %d", got)
	}
	if got, want := over([]float64{3, math.NaN(), 1, 2, 10}), (spreadOf{2.5, 1, 10}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := over([]float64{math.NaN()}); !math.IsNaN(got.median) {
		t.Errorf("of nothing: got %v", got)
	}
}
