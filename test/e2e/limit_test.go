// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// limit sets a limit of the world's key.
func (w *world) limit(t *testing.T, c store.RatesChange) {
	t.Helper()
	if _, err := w.Store.SetRateLimit(t.Context(), store.LimitScope{Key: "k"}, c); err != nil {
		t.Fatal(err)
	}
	w.Settle()
}

func TestAKeyIsHeldToItsRequestsAMinute(t *testing.T) {
	w := newWorld(t, rig.Options{})
	burst := 30 * time.Second
	w.limit(t, store.RatesChange{Requests: new(int64(4)), Burst: &burst}) // two at once
	first := w.post(t, "/v1/chat/completions", hello)
	got := map[string]string{}
	for _, name := range []string{"limit", "remaining", "reset"} {
		got[name] = first.header.Get("x-ratelimit-" + name + "-requests")
	}
	if first.status != 200 || got["limit"] != "4" || got["remaining"] != "1" || got["reset"] != "15s" {
		t.Errorf("the first of a burst of two: status %d, %v", first.status, got)
	}
	if h := first.header.Get("x-ratelimit-limit-tokens"); h != "" {
		t.Errorf("tokens are said to be limited to %s", h)
	}
	if a := w.post(t, "/v1/chat/completions", helloStream); a.status != 200 || a.header.Get("x-ratelimit-remaining-requests") != "0" {
		t.Errorf("the second: status %d, headers %v", a.status, a.header)
	}
	third := w.post(t, "/v1/chat/completions", hello)
	refusal := third.refusal(t)
	if third.status != 429 || refusal.Code != "rate_limit_exceeded" || refusal.Type != "requests" {
		t.Errorf("the third: status %d, %+v", third.status, refusal)
	}
	after, err := strconv.Atoi(third.header.Get("retry-after"))
	ms, errMS := strconv.Atoi(third.header.Get("retry-after-ms"))
	if err != nil || errMS != nil || after < 1 || after > 15 || ms > after*1000 || ms <= (after-1)*1000 {
		t.Errorf("retry-after %q, retry-after-ms %q", third.header.Get("retry-after"), third.header.Get("retry-after-ms"))
	}
	if third.header.Get("x-ratelimit-remaining-requests") != "0" || third.header.Get("x-ratelimit-limit-requests") != "4" {
		t.Errorf("headers of the refusal: %v", third.header)
	}
	w.Rows(2)
}

func TestRequestsAtOnceAreCountedToTheirEnd(t *testing.T) {
	w := newWorld(t, rig.Options{})
	w.limit(t, store.RatesChange{Concurrent: new(int64(1))})
	w.oneByOne(t, 20, hello)      // none is refused for the one before
	w.oneByOne(t, 5, helloStream) // nor after a stream
	ctx, cancel := context.WithCancel(t.Context())
	begun, gone := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := stream(ctx, w, 100_000, func() { close(begun) })
		gone <- err
	}()
	<-begun
	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 429 || f.Code != "rate_limit_exceeded" || !strings.Contains(f.Message, "concurrent") {
		t.Errorf("beside a stream: status %d, %+v", a.status, f)
	}
	if a.header.Get("x-ratelimit-limit-concurrency") != "1" || a.header.Get("retry-after") == "" {
		t.Errorf("headers of the refusal: %v", a.header)
	}
	cancel() // the client hangs up
	if err := <-gone; err == nil {
		t.Error("the stream has ended by itself")
	}
	w.Eventually("the place is free again", func() error { return w.admits(t) })
}

// oneByOne sends requests each after the end of the one before.
func (w *world) oneByOne(t *testing.T, n int, body string) {
	t.Helper()
	for i := range n {
		a := w.post(t, "/v1/chat/completions", body)
		if a.status == http.StatusOK {
			continue
		}
		// The end is told beside the answer, not before it.
		refused := 1
		w.Eventually("the place is free again", func() error {
			err := w.admits(t)
			if err != nil {
				refused++
			}
			return err
		})
		if refused > 1 {
			t.Errorf("request %d was refused %d times for the one before", i, refused)
		}
	}
}

func (w *world) admits(t *testing.T) error {
	t.Helper()
	if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusOK {
		return fmt.Errorf("status %d: %s", a.status, a.body)
	}
	return nil
}

func TestTokensAreHeldToTheLimitByWhatWasUsed(t *testing.T) {
	w := newWorld(t, rig.Options{})
	w.limit(t, store.RatesChange{Total: new(int64(60_000))}) // a burst of 10,000
	a := w.post(t, "/v1/chat/completions", hello, "x-fake-tokens", "20000")
	if a.status != 200 || a.header.Get("x-ratelimit-limit-tokens") != "60000" {
		t.Fatalf("the first: status %d, %v", a.status, a.header)
	}
	w.Row(a.exchange)
	w.Eventually("what it used counts", func() error {
		a := w.post(t, "/v1/chat/completions", hello)
		if a.status != 429 {
			return fmt.Errorf("status %d", a.status)
		}
		if f := a.refusal(t); f.Type != "tokens" || f.Code != "rate_limit_exceeded" {
			t.Errorf("%+v", f)
		}
		return nil
	})
}

func TestExchangesUnderWayCountAfterTheProcessorIsKilled(t *testing.T) {
	w := newWorld(t, rig.Options{})
	w.limit(t, store.RatesChange{Concurrent: new(int64(2))})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan error, 2)
	for range 2 {
		begun := make(chan struct{})
		go func() {
			_, err := stream(ctx, w, 100_000, func() { close(begun) })
			gone <- err
		}()
		<-begun
	}
	w.KillProcessor()
	w.StartProcessor()
	w.Settle()
	if a := w.post(t, "/v1/chat/completions", hello); a.status != 429 {
		t.Errorf("beside two streams of the killed processor: status %d", a.status)
	}
	cancel()
	for range 2 {
		if err := <-gone; err == nil {
			t.Error("a stream has ended by itself")
		}
	}
	w.Eventually("their places are free again", func() error { return w.admits(t) })
}

func TestTwoGatewaysHoldALimitTogether(t *testing.T) {
	one := newWorld(t, rig.Options{})
	minute := time.Minute
	one.limit(t, store.RatesChange{Requests: new(int64(60)), Burst: &minute})
	two := &world{Rig: rig.Start(t, rig.Options{DSN: one.DSN}), provider: one.provider, channel: one.channel, key: one.key}
	two.Settle()
	for _, w := range []*world{one, two} {
		w.Eventually("each holds half", func() error {
			part, err := w.Metric("weir_limit_part")
			if err == nil && part != 0.5 {
				err = fmt.Errorf("it holds %v", part)
			}
			return err
		})
	}
	begun, admitted := time.Now(), 0
	for range 70 { // twice as many as there are
		for _, w := range []*world{one, two} {
			switch a := w.post(t, "/v1/chat/completions", hello); a.status {
			case http.StatusOK:
				admitted++
			case http.StatusTooManyRequests:
			default:
				t.Errorf("status %d: %s", a.status, a.body)
			}
		}
	}
	if most := 60 + int(time.Since(begun).Seconds()) + 2; admitted < 55 || admitted > most {
		t.Errorf("%d were admitted, want all of the burst and no more than %d", admitted, most)
	}
	// Then all of the demand is at one, which gets what the other does not need.
	two.Eventually("one holds nearly all", func() error {
		two.post(t, "/v1/chat/completions", hello)
		if n, err := two.Metric("weir_limit_shared"); err != nil || n != 1 {
			return fmt.Errorf("%v limits are shared by claims: %w", n, err)
		}
		return nil
	})
}
