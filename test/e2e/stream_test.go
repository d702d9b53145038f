// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/test/rig"
	"github.com/weir-proxy/weir/usage"
)

const msgs = "http.weir.ext_proc.stream_msgs_sent"

// After the decision Envoy and the processor have nothing more to say to each other about a stream.
func TestAStreamCostsTheProcessorTwoMessages(t *testing.T) {
	w := newWorld(t, rig.Options{})
	before, streams := w.Stat(msgs), w.Stat("http.weir.ext_proc.streams_started")
	a := w.post(t, "/v1/chat/completions", helloStream, "x-fake-tokens", "100", "x-fake-interval-ms", "2")
	if n := len(events(t, a.body)); n < 101 {
		t.Fatalf("got %d events, want 100 tokens and more", n)
	}
	if got := w.Stat(msgs) - before; got != 2 {
		t.Errorf("envoy sent %d messages, want 2: headers and body", got)
	}
	if got := w.Stat("http.weir.ext_proc.streams_started") - streams; got != 1 {
		t.Errorf("envoy opened %d ext_proc streams, want 1", got)
	}
	if a := w.Stat("http.weir.ext_proc.streams_failed"); a != 0 {
		t.Errorf("%d ext_proc streams failed, want none", a)
	}
}

// The processor may die in the middle of streams: none is cut, none is lost to the books; new requests are refused until it is back.
func TestKillingTheProcessorCutsNoStream(t *testing.T) {
	w := newWorld(t, rig.Options{})
	const clients, tokens = 100, 100
	var begun, done sync.WaitGroup
	results := make(chan error, clients)
	ids := make(chan string, clients)
	begun.Add(clients)
	for range clients {
		done.Go(func() {
			id, err := stream(t.Context(), w, tokens, begun.Done)
			ids <- id
			results <- err
		})
	}
	begun.Wait() // every client has its first event
	w.KillProcessor()

	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 503 || f.Code != "processor_unavailable" {
		t.Errorf("without a processor: got %d %+v", a.status, f)
	}
	done.Wait()
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	w.StartProcessor()
	restarted := time.Now()
	w.Eventually("a request is served", func() error {
		if a := w.post(t, "/v1/chat/completions", hello); a.status != 200 {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	t.Logf("served again %v after the restart", time.Since(restarted).Round(time.Millisecond))

	close(ids)
	for id := range ids {
		row := w.Row(id)
		sameAsLedger(t, row, w.provider)
		if row.Status != "ok" || row.Estimated {
			t.Errorf("got row %+v", row)
		}
	}
	w.Rows(clients + 1)
}

// stream reads a paced stream to its end and counts its events. It calls begun at the first.
func stream(ctx context.Context, w *world, tokens int, begun func()) (exchange string, err error) {
	started := sync.OnceFunc(begun)
	defer started()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(helloStream))
	if err != nil {
		return "", err
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	r.Header.Set("x-fake-tokens", fmt.Sprint(tokens))
	r.Header.Set("x-fake-interval-ms", "20")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is read
	exchange = resp.Header.Get("x-weir-exchange-id")
	n, last := 0, ""
	s := bufio.NewScanner(resp.Body)
	for s.Scan() {
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			started()
			last = data
			if strings.Contains(data, `"content":"`) && !strings.Contains(data, `"content":""`) {
				n++
			}
		}
	}
	if err := s.Err(); err != nil {
		return exchange, fmt.Errorf("stream %s cut after %d events: %w", exchange, n, err)
	}
	if n != tokens || last != "[DONE]" {
		return exchange, fmt.Errorf("stream %s: got %d events, the last %q; want %d and [DONE]", exchange, n, last, tokens)
	}
	return exchange, nil
}

// Channels come and go while streams run.
func TestChangingChannelsDisturbsNoStream(t *testing.T) {
	w := newWorld(t, rig.Options{})
	spare := w.Provider(fakeAt("/v1"))
	const clients, tokens = 10, 100
	var begun, done sync.WaitGroup
	begun.Add(clients)
	for range clients {
		done.Go(func() {
			if _, err := stream(t.Context(), w, tokens, begun.Done); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	other := w.Channel(store.NewChannel{Name: "spare", BaseURL: spare.URL})
	w.Settle()
	if err := w.Store.DeleteChannel(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the channel is gone from Envoy", func() error {
		if w.Stat("cluster_manager.active_clusters") != 3 { // the processor's, the empty one, and the spare
			return errors.New("it is not")
		}
		return nil
	})
	a := w.post(t, "/v1/chat/completions", hello)
	if a.status != 200 || len(spare.Ledger().Attempts(a.exchange)) != 1 {
		t.Errorf("the new channel did not take the next request: %d %s", a.status, a.body)
	}
	if row := w.Row(a.exchange); row.ChannelID != other.ID {
		t.Errorf("got channel %d, want %d", row.ChannelID, other.ID)
	}
	done.Wait()
	w.Rows(clients + 1)
}

func TestAClientThatLeavesIsARowThatSaysSo(t *testing.T) {
	w := newWorld(t, rig.Options{})
	w.post(t, "/v1/chat/completions", helloStream) // something to learn from
	for _, partial := range policy.Partials() {
		if _, err := w.Store.SetChannel(t.Context(), "one", store.ChannelChange{Partial: &partial}); err != nil {
			t.Fatal(err)
		}
		w.Settle()
		row := w.Row(leave(t, w))
		if row.Status != "client_closed" || !row.Estimated || row.Input == 0 || row.Output == 0 || row.Output > 1000 {
			t.Errorf("got row %+v", row)
		}
		want := map[policy.Partial]usage.Billed{
			policy.BillEstimate: {BilledInput: row.Input, BilledOutput: row.Output}, policy.BillInput: {BilledInput: row.Input},
		}[partial]
		if row.Billed != want {
			t.Errorf("policy %q: %d and %d tokens, and billed %+v", partial, row.Input, row.Output, row.Billed)
		}
	}
}

// What Envoy logged while no processor ran is shipped by the next one, once, whether the last one was killed or stopped.
func TestRowsOutliveProcessors(t *testing.T) {
	w := newWorld(t, rig.Options{})
	n := 0
	for range 3 {
		for range 20 {
			w.post(t, "/v1/chat/completions", hello)
			n++
		}
		w.KillProcessor()
		w.StartProcessor()
		w.Eventually("a request is served", func() error {
			if a := w.post(t, "/v1/chat/completions", hello); a.status != 200 {
				return fmt.Errorf("status %d", a.status)
			}
			return nil
		})
		n++
	}
	w.post(t, "/v1/chat/completions", hello)
	w.StopProcessor()
	rows := w.Rows(n + 1) // a processor that is stopped ships what is there
	totals := w.provider.Ledger().Totals()
	var in, out int64
	for _, r := range rows {
		in, out = in+r.Input, out+r.Output
	}
	if in != totals.Input || out != totals.Output || int64(len(rows)) != totals.Requests {
		t.Errorf("%d rows with %d in, %d out; the provider has %d, %d, %d", len(rows), in, out, totals.Requests, totals.Input, totals.Output)
	}
}
