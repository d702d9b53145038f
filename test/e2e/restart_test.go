// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// traffic is clients that send requests, each its next when it has its answer, until it is stopped.
type traffic struct {
	w      *world
	stop   context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	faults []string
	slow   time.Duration // the longest that an answer took
}

// send begins traffic: as many clients for each of two kinds of requests, with an answer in one piece and with a stream of a second.
func (w *world) traffic(t *testing.T, clients int) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	tr := &traffic{w: w, stop: stop}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * clients}}
	t.Cleanup(client.CloseIdleConnections)
	for range clients {
		for _, kind := range []struct{ body, end string }{
			{`{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}`, `"usage"`},
			{`{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hello"}]}`, "[DONE]"},
		} {
			tr.done.Go(func() {
				for ctx.Err() == nil {
					began := time.Now()
					err := w.ask(client, kind.body, kind.end)
					took := time.Since(began)
					tr.mu.Lock()
					tr.slow = max(tr.slow, took)
					if err != nil {
						tr.faults = append(tr.faults, fmt.Sprintf("after %v: %v", took.Round(time.Millisecond), err))
					}
					tr.mu.Unlock()
				}
			})
		}
	}
	return tr
}

// ask sends one request and reads the answer, which must have the status 200 and an end.
func (w *world) ask(c *http.Client, body, end string) error {
	r, err := http.NewRequest(http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	r.Header.Set("x-fake-tokens", "20")
	if strings.Contains(body, `"stream":true`) {
		r.Header.Set("x-fake-interval-ms", "50")
	} else {
		r.Header.Set("x-fake-delay-ms", "50")
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(b), end)) {
		err = fmt.Errorf("status %d: %.300s", resp.StatusCode, b)
	}
	return err
}

// more waits until the provider has got some more requests.
func (tr *traffic) more(n int64) {
	w := tr.w
	sent := w.provider.Ledger().Totals().Requests
	w.Eventually("more requests", func() error {
		if got := w.provider.Ledger().Totals().Requests - sent; got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

// end stops the traffic: no request failed, and the books are those of the provider.
func (tr *traffic) end(t *testing.T) {
	t.Helper()
	tr.stop()
	tr.done.Wait()
	for i, f := range tr.faults {
		if t.Errorf("a request failed %s", f); i == 9 {
			break
		}
	}
	want := tr.w.provider.Ledger().Totals()
	t.Logf("%d requests, %d of them failed, the slowest took %v", want.Requests, len(tr.faults), tr.slow.Round(time.Millisecond))
	tr.w.Eventually("the books are the provider's", func() error {
		sums, err := tr.w.Store.SumUsage(t.Context(), store.UsageFilter{}, nil)
		if err != nil {
			return err
		}
		if s := sums[0]; s.Requests != want.Requests || s.Input != want.Input || s.Output != want.Output || s.Estimated != 0 {
			return fmt.Errorf("got %+v, want %+v", s, want)
		}
		return nil
	})
	tr.w.noIntents()
}

// lastWords returns what the processor said last when it stopped.
func (w *world) lastWords(t *testing.T) (out struct {
	Msg       string `json:"msg"`
	Open      *int   `json:"open_intents"`
	Unshipped *int64 `json:"unshipped_bytes"`
	State     string `json:"state_dir"`
	Logs      string `json:"log_dir"`
},
) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &out); err != nil {
		t.Fatalf("%s: %v", lines[len(lines)-1], err)
	}
	if out.Msg != "processor stopped" || out.Open == nil || out.Unshipped == nil || out.State != w.Dir || out.Logs != w.LogDir {
		t.Fatalf("last words: %s", lines[len(lines)-1])
	}
	return out
}

// What a supervisor does: stop it, start it again.
func TestARestartOfTheProcessorFailsNoRequest(t *testing.T) {
	w := newWorld(t, rig.Options{})
	tr := w.traffic(t, 8)
	for range 3 {
		tr.more(30)
		p := w.Processor()
		w.StopProcessor()
		if err := p.Err(); err != nil {
			t.Errorf("the processor ended with %v", err)
		}
		left := w.lastWords(t)
		t.Logf("left: %d intents, %d bytes", *left.Open, *left.Unshipped)
		w.StartProcessor()
	}
	tr.more(30)
	tr.end(t)
}

// A new processor that is started while the old one still runs waits until that has stopped, and takes its place.
func TestAProcessorTakesOverFromAnother(t *testing.T) {
	w := newWorld(t, rig.Options{})
	tr := w.traffic(t, 8)
	for range 2 {
		tr.more(30)
		old := w.Processor()
		next, err := w.LaunchProcessor()
		if err != nil {
			t.Fatal(err)
		}
		w.Eventually("the next processor waits", func() error {
			b, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
			if err == nil && !bytes.Contains(b[bytes.LastIndex(b, []byte(`"journal opened"`)):], []byte("waiting for another processor to stop")) {
				err = fmt.Errorf("it does not say so: %s", b)
			}
			return err
		})
		tr.more(30)
		old.Stop(syscall.SIGTERM, 15*time.Second)
		w.Eventually("the next processor answers", func() error { _, err := w.Metric("weir_configuration_revision"); return err })
		select {
		case <-next.Done():
			t.Fatalf("the next processor ended: %v", next.Err())
		default:
		}
	}
	tr.more(30)
	tr.end(t)
}

// A processor that is there and does not answer is no provider that is late.
func TestAProcessorThatHangsIsUnavailable(t *testing.T) {
	r := rig.Start(t, rig.Options{Production: true})
	w := &world{Rig: r, provider: r.Provider(fake.Options{})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	signal(t, w.ProcessorPID(), syscall.SIGSTOP)
	a := w.post(t, "/v1/chat/completions", hello)
	signal(t, w.ProcessorPID(), syscall.SIGCONT)
	if f := a.refusal(t); a.status != 503 || f.Code != "processor_unavailable" {
		t.Errorf("got %d %+v", a.status, f)
	}
	if n := w.provider.Ledger().Totals().Requests; n != 0 {
		t.Errorf("the provider got %d requests", n)
	}
}

// The second signal does not wait for what the first has begun.
func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	r := rig.Start(t, rig.Options{Production: true, Drain: "1h"})
	w := &world{Rig: r, provider: r.Provider(fake.Options{Behavior: fake.Behavior{Hang: true}})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	send(t, w, hello)
	w.Eventually("it is admitted", func() error {
		n, err := w.Metric("weir_journal_open_intents")
		if err == nil && n < 1 {
			err = fmt.Errorf("%v", n)
		}
		return err
	})
	p := w.Processor()
	signal(t, p.PID(), syscall.SIGTERM)
	w.Eventually("it stops to listen", func() error {
		if _, err := os.Stat(filepath.Join(w.Dir, "weir.sock")); err == nil {
			return fmt.Errorf("the socket is there")
		}
		return nil
	})
	select {
	case <-p.Done():
		t.Fatal("it did not wait for the exchange in flight")
	default:
	}
	signal(t, p.PID(), syscall.SIGTERM)
	w.Eventually("it has ended", func() error {
		select {
		case <-p.Done():
			return nil
		default:
			return fmt.Errorf("it runs")
		}
	})
	w.StartProcessor()
	if n, err := w.Metric("weir_journal_open_intents"); n != 1 || err != nil {
		t.Errorf("%v open intents after the second signal, %v; want 1", n, err)
	}
}
