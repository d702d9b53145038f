// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// rolled is how many streams run while a part of the gateway is replaced.
const rolled = 500

// begin opens streams that the gate holds, each on a connection of its own, and returns once all have begun.
func (w *world) begin(t *testing.T, n int) []*http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	running, errs := make([]*http.Response, n), make([]error, n)
	var all sync.WaitGroup
	for part := range 20 {
		all.Go(func() {
			for i := part; i < n && errs[i] == nil; i += 20 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(gatedStream))
				if err == nil {
					r.Header.Set("authorization", "Bearer "+w.key)
					running[i], err = client.Do(r)
				}
				if err == nil && running[i].StatusCode != http.StatusOK {
					err = errors.New(running[i].Status)
				}
				errs[i] = err
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return running
}

// whole reads the streams to their ends, which must be as the provider wrote them.
func whole(t *testing.T, running []*http.Response) {
	t.Helper()
	cut := 0
	for i, resp := range running {
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
			if cut++; cut < 5 {
				t.Errorf("stream %d was cut after %d bytes: %v", i, len(b), err)
			}
		}
	}
	if cut > 0 {
		t.Errorf("%d of %d streams were cut", cut, len(running))
	}
}

// booked holds that so many exchanges were of the gated model and so many of others, all of them well, and none twice.
func (w *world) booked(t *testing.T, gated, others int) {
	t.Helper()
	w.Eventually("all rows", func() error {
		sums, err := w.Store.SumUsage(t.Context(), store.UsageFilter{}, nil)
		if err == nil && (len(sums) != 1 || sums[0].Requests != int64(gated+others)) {
			err = fmt.Errorf("got %+v, want %d and %d", sums, gated, others)
		}
		return err
	})
	var n, odd int
	db, err := pgx.Connect(t.Context(), w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // the test is over
	if err := db.QueryRow(t.Context(), `select count(*) filter (where model = 'gated'),
		count(*) filter (where status <> 'ok' or estimated or http_status <> 200) from weir.usage`).Scan(&n, &odd); err != nil {
		t.Fatal(err)
	}
	if n != gated || odd != 0 {
		t.Errorf("%d rows of streams, want %d; %d rows are not those of a success", n, gated, odd)
	}
	w.noIntents()
}

// A processor is replaced twice while 500 streams run and others come: none is cut, none fails, and each has its row.
func TestReplacingTheProcessorCutsNoneOf500Streams(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	gate := w.gated(t)
	running := w.begin(t, rolled)
	tr := w.traffic(t, 4)
	for range 2 {
		tr.more(20)
		w.StopProcessor()
		w.StartProcessor()
	}
	tr.more(20)
	if n, err := envoy.Active(t.Context(), w.EnvoyAdmin); err != nil || n < rolled {
		t.Errorf("%d exchanges are under way, %v; want the %d streams at least", n, err, rolled)
	}
	close(gate)
	whole(t, running)
	tr.stop()
	tr.done.Wait()
	for _, f := range tr.faults {
		t.Errorf("a request failed %s", f)
	}
	w.booked(t, rolled, int(w.provider.Ledger().Totals().Requests))
}

// Envoy is replaced while 500 streams run: a second one takes the new clients, the first ends by itself as soon as its last stream has, long before its
// grace period is over, and none of them is cut.
func TestReplacingEnvoyDrains500Streams(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true, EnvoyDrain: 5 * time.Minute})
	gate := w.gated(t)
	running := w.begin(t, rolled)
	stopSecond := w.StartSecondEnvoy("b")
	ended := make(chan struct{})
	go func() {
		w.StopEnvoy()
		close(ended)
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	served := 0
	for served < 200 {
		if err := w.ask(client, hello, "usage"); err != nil {
			// A connection that the kernel had given to the first one's queue goes with it, as it stops to listen.
			if served > 50 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Fatalf("after %d that were served: %v", served, err)
			}
			continue
		}
		served++
	}
	select {
	case <-ended:
		t.Error("the first Envoy has ended, and its streams have not")
	default:
	}
	if n, err := envoy.Active(t.Context(), w.EnvoyAdmin); err != nil || n != rolled {
		t.Errorf("%d streams are under way, %v; want all %d", n, err, rolled)
	}
	close(gate)
	whole(t, running)
	<-ended
	w.booked(t, rolled, served)
	w.StartEnvoy() // for what every test checks at its end
	stopSecond()
}
