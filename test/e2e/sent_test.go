// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
	"github.com/weir-proxy/weir/usage"
)

// streamTokens is how long the streams of a remote world are: two seconds.
const streamTokens = 100

// newRemoteWorld is a gateway as in production whose Envoy might be on another machine. Its provider takes its time for streams.
func newRemoteWorld(t *testing.T, o rig.Options) *world {
	t.Helper()
	o.Production, o.Remote = true, true
	r := rig.Start(t, o)
	p := fake.New(fake.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("x-fake-tokens", fmt.Sprint(streamTokens)) // a processor in production keeps such headers from providers
		r.Header.Set("x-fake-interval-ms", "20")
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	w := &world{Rig: r, provider: &rig.Provider{Provider: p, URL: server.URL + "/v1"}}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	return w
}

// streams begins streams and waits until each has its first event. What they return comes when the function that it returns is called.
func (w *world) streams(t *testing.T, n int) (end func() (exchanges []string)) {
	t.Helper()
	var begun, done sync.WaitGroup
	ids := make([]string, n)
	errs := make([]error, n)
	begun.Add(n)
	for i := range n {
		done.Go(func() { ids[i], errs[i] = stream(t.Context(), w, streamTokens, begun.Done) })
	}
	begun.Wait()
	return func() []string {
		done.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		return ids
	}
}

func TestEnvoyWithoutASharedDiskGetsItsRows(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{})
	a := w.post(t, "/v1/chat/completions", hello)
	if row := w.Row(a.exchange); row.Status != "ok" || row.Estimated || row.Attempts != 1 {
		t.Errorf("got row %+v", row)
	} else {
		sameAsLedger(t, row, w.provider)
	}
	for _, id := range w.streams(t, 5)() {
		row := w.Row(id)
		sameAsLedger(t, row, w.provider)
		if row.Status != "ok" || !row.Stream || row.Estimated {
			t.Errorf("got row %+v", row)
		}
	}
	if row := w.Row(leave(t, w)); row.Status != "client_closed" || !row.Estimated || row.Input == 0 {
		t.Errorf("a client that left: got row %+v", row)
	}

	down := w.Channel(store.NewChannel{Name: "down", BaseURL: "http://" + freeAddress(t) + "/v1", Priority: 10})
	w.Settle()
	a = w.post(t, "/v1/chat/completions", hello)
	if row := w.Row(a.exchange); row.Attempts != 2 || row.ChannelID != w.channel.ID || row.Status != "ok" {
		t.Errorf("failover past channel %d: got row %+v", down.ID, row)
	} else {
		sameAsLedger(t, row, w.provider)
	}
	w.Eventually("the channel that failed rests", func() error {
		if row := w.Row(w.post(t, "/v1/chat/completions", hello).exchange); row.Attempts != 1 {
			return fmt.Errorf("%d attempts", row.Attempts)
		}
		return nil
	})

	if found := logs(t, w.LogDir); len(found) != 1 || filepath.Base(found[0]) != usage.SentLog {
		t.Errorf("logs are %v, want the one of lines that were sent", found)
	}
	if n := w.metric(t, "weir_usage_grpc_envoys"); n != 1 {
		t.Errorf("%v Envoys send lines, want 1", n)
	}
	for _, name := range []string{"weir_usage_grpc_malformed_total", "weir_usage_grpc_refused_messages_total", "weir_usage_bad_lines_total"} {
		if n := w.metric(t, name); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// What ends while no processor is there to be told waits in Envoy.
func TestLinesWaitInEnvoyForAProcessorThatWasKilled(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{})
	end := w.streams(t, 100)
	w.KillProcessor()
	ids := end()
	w.StartProcessor()
	for _, id := range ids {
		row := w.Row(id)
		sameAsLedger(t, row, w.provider)
		if row.Status != "ok" || row.Estimated {
			t.Errorf("got row %+v", row)
		}
	}
	w.noIntents()
	w.Rows(len(ids))
	if n := w.metric(t, "weir_usage_unresolved_total"); n != 0 {
		t.Errorf("%v are unresolved", n)
	}
}

// An Envoy that is killed too takes them along.
func TestLinesThatAnEnvoyTakesAlongBecomeUnresolvedRows(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{Config: "usage: {lease: 3s}\n"})
	before := w.post(t, "/v1/chat/completions", hello)
	w.Row(before.exchange)
	end := w.streams(t, 20)
	w.KillProcessor()
	ids := end()
	w.KillEnvoy()
	w.StartProcessor()
	w.StartEnvoy()
	for _, id := range ids {
		if row := w.Row(id); row.Status != "unresolved" || !row.Estimated || row.Input == 0 || row.Output == 0 {
			t.Errorf("got row %+v", row)
		}
	}
	w.noIntents()
	after := w.post(t, "/v1/chat/completions", hello)
	sameAsLedger(t, w.Row(after.exchange), w.provider)
	w.Rows(len(ids) + 2) // as many as were admitted
	if n := w.metric(t, "weir_usage_unresolved_total"); int(n) != len(ids) {
		t.Errorf("weir_usage_unresolved_total is %v, want %d", n, len(ids))
	}
}

func TestProcessorThatIsStoppedInTheMiddleLosesNoLineThatIsSent(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{})
	n := 0
	for range 3 {
		end := w.streams(t, 10)
		w.StopProcessor()
		w.StartProcessor()
		for _, id := range end() {
			row := w.Row(id)
			sameAsLedger(t, row, w.provider)
			if row.Status != "ok" {
				t.Errorf("got row %+v", row)
			}
			n++
		}
		w.Eventually("a request is served", func() error {
			if a := w.post(t, "/v1/chat/completions", hello); a.status != 200 {
				return fmt.Errorf("status %d", a.status)
			}
			return nil
		})
		n++
	}
	w.Rows(n)
}

func TestRotationOfLinesThatWereSentLosesNothing(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{Config: "usage: {log: {rotate_bytes: 65536, rotate_age: 3s, keep: 2s}}\n"})
	l := newLoad(t, w, 8)
	w.Eventually("logs are rotated and deleted while they are written", func() error {
		if n, d := w.metric(t, "weir_usage_log_rotations_total"), w.metric(t, "weir_usage_logs_deleted_total"); n < 3 || d < 1 {
			return fmt.Errorf("%v rotated, %v deleted", n, d)
		}
		return nil
	})
	l.end()
	l.wantRows(t, nil)
	if rows := w.rows(t); len(rows) != len(l.answered) || l.broken > 0 || len(l.refused) > 0 {
		t.Errorf("%d rows for %d answers; %d requests broke, %v were refused", len(rows), len(l.answered), l.broken, l.refused)
	}
	for _, name := range []string{"weir_usage_bad_lines_total", "weir_usage_log_write_failures_total", "weir_usage_log_reopens_pending"} {
		if n := w.metric(t, name); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// Unlike an Envoy that writes by itself, a full volume takes no line: Envoy keeps what is turned away.
func TestFullVolumeTakesNoLineThatIsSent(t *testing.T) {
	const mib = 1 << 20
	dir, ok := smallVolume(t, 16*mib)
	if !ok {
		return
	}
	w := newRemoteWorld(t, rig.Options{LogDir: dir, Config: "usage: {log: {rotate_bytes: 1048576, min_free: 4194304}}\n"})
	end := w.streams(t, 50)
	filler := filepath.Join(dir, "filler")
	if err := fill(filler); err != nil {
		t.Fatal(err)
	}
	ids := end()
	w.Eventually("lines are turned away, and requests", func() error {
		if n, gate := w.metric(t, "weir_usage_grpc_refused_messages_total"), w.metric(t, "weir_usage_gate_closed"); n == 0 || gate == 0 {
			return fmt.Errorf("%v messages, the gate is %v", n, gate)
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		row := w.Row(id)
		sameAsLedger(t, row, w.provider)
		if row.Status != "ok" {
			t.Errorf("got row %+v", row)
		}
	}
	w.Rows(len(ids))
	w.Eventually("the gate is open", func() error {
		if w.metric(t, "weir_usage_gate_closed") != 0 {
			return errors.New("it is not")
		}
		return nil
	})
}

// A processor serves Envoys of both kinds at once. One that is stopped in good order sends its last lines first.
func TestEnvoyThatIsStoppedSendsItsLastLines(t *testing.T) {
	w := newRemoteWorld(t, rig.Options{})
	config, err := os.ReadFile(filepath.Join(w.Dir, "weir.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, listen, _ := strings.Cut(string(config), "processor: {listen: \"")
	listen, _, _ = strings.Cut(listen, "\"")
	binary, err := envoy.Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []envoy.BootstrapOptions{
		{Node: "far", Processor: listen, AccessLog: envoy.AccessLogGRPC},
		{Node: "near", Socket: filepath.Join(w.Dir, "weir.sock"), AccessLog: envoy.AccessLogFile},
	} {
		w.KillEnvoy() // all of them listen where it does
		o.Admin = freeAddress(t)
		boot, err := envoy.Bootstrap(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- envoy.Run(ctx, envoy.RunOptions{
				Binary: binary, Bootstrap: boot, Dir: w.Dir, Node: o.Node, Admin: o.Admin, AccessLog: o.AccessLog, Concurrency: 1, Drain: 5 * time.Second, Log: io.Discard,
			})
		}()
		w.Eventually(o.Node+" is ready", func() error { return envoy.Ready(t.Context(), o.Admin) })
		var ids []string
		for range 20 {
			ids = append(ids, w.post(t, "/v1/chat/completions", hello).exchange)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			sameAsLedger(t, w.Row(id), w.provider)
		}
	}
	w.Rows(40)
	if found := logs(t, w.LogDir); len(found) != 2 {
		t.Errorf("logs are %v, want that of the near one and that of lines that were sent", found)
	}
}
