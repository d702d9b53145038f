// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// What Envoy is told to refuse it refuses at once, in the words of the API; streams that run are not touched, and what it is told next holds.
func TestEnvoyRefusesTheShareThatItIsTold(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	gate := w.gated(t)
	running := w.begin(t, 5)
	file := envoy.SharePath(filepath.Join(w.Dir, "weir.sock"))
	if err := envoy.WriteShare(file, 1); err != nil {
		t.Fatal(err)
	}
	var a answer
	served := 0
	w.Eventually("requests are refused", func() error {
		if a = w.post(t, "/v1/chat/completions", hello); a.status == http.StatusOK {
			served++
			return errors.New("one was served")
		}
		return nil
	})
	if f := a.refusal(t); a.status != http.StatusServiceUnavailable || f.Code != "overloaded" || f.Type != "server_error" || a.header.Get("retry-after") != "1" {
		t.Errorf("got %d %+v, retry-after %q", a.status, f, a.header.Get("retry-after"))
	}
	for range 20 {
		if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusServiceUnavailable {
			t.Errorf("got %d", a.status)
		}
	}
	if n := w.Stat("http.weir.downstream_rq_overload_close"); n < 21 {
		t.Errorf("envoy counts %d refused requests, want 21", n)
	}
	close(gate)
	whole(t, running)
	if err := envoy.WriteShare(file, 0); err != nil {
		t.Fatal(err)
	}
	w.Eventually("requests are served", func() error {
		if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusOK {
			return fmt.Errorf("got %d", a.status)
		}
		served++
		return nil
	})
	w.booked(t, len(running), served)
}

// More clients than can be served without a wait: each answer is one as without them or a refusal that says so, the books have the former alone, and when they
// have gone nobody is refused.
func TestAnOverloadIsServedOrRefusedAndOver(t *testing.T) {
	w := newWorld(t, rig.Options{Wait: "1ms", Production: true})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var served, refused, begun atomic.Int64
	var mu sync.Mutex
	var odd []string
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
	t.Cleanup(client.CloseIdleConnections)
	for range 200 {
		clients.Go(func() {
			for ctx.Err() == nil {
				begun.Add(1)
				r, err := http.NewRequest(http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(hello))
				if err != nil {
					return
				}
				a := do(t, client, r, "authorization", "Bearer "+w.key)
				switch {
				case a.status == http.StatusOK && strings.Contains(a.body, `"usage"`):
					served.Add(1)
				case a.status == http.StatusServiceUnavailable && strings.Contains(a.body, `"code":"overloaded"`) && a.header.Get("retry-after") == "1" && a.exchange != "":
					refused.Add(1)
				default:
					mu.Lock()
					odd = append(odd, fmt.Sprintf("%d %s %v", a.status, a.body, a.err))
					mu.Unlock()
				}
			}
		})
	}
	w.Eventually("some are refused and some are served", func() error {
		if refused.Load() < 200 || served.Load() < 200 {
			return fmt.Errorf("%d are refused, %d are served", refused.Load(), served.Load())
		}
		return nil
	})
	stop()
	clients.Wait()
	for i, o := range odd {
		if t.Errorf("neither served nor refused: %s", o); i == 4 {
			break
		}
	}
	w.Eventually("nothing is to be refused", func() error {
		n, err := w.Metric("weir_shed_share")
		if err == nil && n != 0 {
			err = fmt.Errorf("the share is %v", n)
		}
		return err
	})
	w.Eventually("and Envoy knows", func() error {
		for range 20 {
			if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusOK {
				return fmt.Errorf("got %d %s", a.status, a.body)
			}
			served.Add(1)
		}
		return nil
	})
	w.Eventually("the books have what was served", func() error {
		sums, err := w.Store.SumUsage(t.Context(), store.UsageFilter{}, nil)
		if err != nil {
			return err
		}
		if n := sums[0].Requests; n != served.Load() {
			return fmt.Errorf("%d rows, %d were served", n, served.Load())
		}
		return nil
	})
	if n := w.provider.Ledger().Totals().Requests; n != served.Load() {
		t.Errorf("the provider got %d requests, and %d were served", n, served.Load())
	}
	t.Logf("of %d requests %d were refused", begun.Load(), refused.Load())
	w.noIntents()
}
