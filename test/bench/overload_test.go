// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAPhaseTellsServedFromRefused(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	all := []outcome{
		{took: 10 * ms},
		{took: 20 * ms},
		{took: 30 * ms, late: 5 * ms},
		{took: 1 * ms, refused: true},
		{took: 3 * ms, refused: true},
		{took: time.Hour, err: errors.New("cut")},
	}
	p := newPhase(3, 2*time.Second, all)
	if p.Served != 1.5 || p.Refused != 1 || p.P50 != 20*ms || p.P99 != 30*ms || p.NoP50 != 1*ms || p.NoP99 != 3*ms || p.LateP99 != 5*ms {
		t.Errorf("got %+v", p)
	}
}

func TestItIsOverOnceNoWindowHasRefusalsOrLateAnswers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		all  []outcome
		want time.Duration
	}{
		"at once": {[]outcome{{due: 0, took: ms}, {due: 2 * window, took: ms}}, 0},
		"refused": {[]outcome{{due: 0, took: ms}, {due: 2 * window, refused: true, took: ms}, {due: 5 * window, took: ms}}, 3 * window},
		"late":    {[]outcome{{due: 0, took: ms}, {due: 3*window + ms, took: 9 * ms}, {due: 4 * window, took: ms}}, 4 * window},
	} {
		if got := recovered(c.all, 8*ms); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestTheFloodSendsEachRequestOnceAndKnowsRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ connections, major int }{"HTTP/2": {3, 2}, "HTTP/1.1": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n, odd atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != c.major {
					odd.Add(1)
				}
				if n.Add(1)%3 == 0 {
					if c.major == 1 {
						w.Header().Set("connection", "close")
					}
					w.WriteHeader(http.StatusServiceUnavailable)
					_, _ = w.Write([]byte(`{"error":{"code":"overloaded"}}`))
				}
			}))
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
			defer s.Close()
			f := newFlood(strings.TrimPrefix(s.URL, "http://"), crowd(0), 10, c.connections, patience)
			defer f.close()
			all := f.open(context.WithoutCancel(t.Context()), make([]time.Duration, 300))
			refused := 0
			for _, o := range all {
				if o.err != nil {
					t.Fatal(o.err)
				}
				if o.refused {
					refused++
				}
			}
			if n.Load() != 300 || refused != 100 || odd.Load() != 0 {
				t.Errorf("%d requests came, %d were refused, %d by another protocol; want 300, 100 and none", n.Load(), refused, odd.Load())
			}
		})
	}
}

func TestTheReportSaysWhatAnOverloadDid(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	var out bytes.Buffer
	report{w: &out, results: &results{Overload: &overloading{
		Wait: 20 * ms, CPUs: 1, Capacity: 1000, Recovered: time.Second,
		Calm: phase{Asked: 100, Served: 99, P50: 100 * ms, P99: 200 * ms}, Over: phase{Asked: 5000, Served: 800, Refused: 4200, P50: 150 * ms, P99: 400 * ms, NoP50: ms, NoP99: 9 * ms},
		Memory: memory{EnvoyBefore: 1 << 20, EnvoyPeak: 2 << 20, ProcessorBefore: 3 << 20, ProcessorPeak: 4 << 20},
	}}}.overloaded()
	for _, want := range []string{"5 times what 1 CPU of the gateway can bear (1000 requests/s)", "p50 1.50 and p99 2.00 times those of calm", "1s after its end", "Envoy 1.00 and 2.00 MB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %s\nwant in it: %s", out.String(), want)
		}
	}
}
