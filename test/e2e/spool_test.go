// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
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

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/test/rig"
	"github.com/weir-proxy/weir/usage"
)

// newSpoolWorld is a gateway as in production with such usage.log.
func newSpoolWorld(t *testing.T, o rig.Options, log string) *world {
	t.Helper()
	o.Production, o.Config = true, "usage: {log: {"+log+"}}\n"
	return newWorld(t, o)
}

// load sends requests, from so many clients, until it is stopped.
type load struct {
	w       *world
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu       sync.Mutex
	answered map[string]time.Time // by exchange: those with status 200, read to their end
	refused  map[int]int          // by status
	broken   int                  // without a whole answer
}

func newLoad(t *testing.T, w *world, clients int) *load { //nolint:thelper // the case itself, not a helper of it
	ctx, stop := context.WithCancel(t.Context())
	l := &load{w: w, stop: stop, answered: make(map[string]time.Time), refused: make(map[int]int)}
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	for range clients {
		l.clients.Go(func() {
			for ctx.Err() == nil {
				if !l.request(context.WithoutCancel(ctx), c) {
					<-time.After(10 * time.Millisecond) // Envoy is away
				}
			}
		})
	}
	t.Cleanup(func() {
		l.end()
		c.CloseIdleConnections()
	})
	return l
}

// request sends one request and notes what became of it. It reports whether there was an answer.
func (l *load) request(ctx context.Context, c *http.Client) (whole bool) {
	status, exchange, err := ask(ctx, c, l.w)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.broken++
	case status == http.StatusOK:
		l.answered[exchange] = time.Now()
	default:
		l.refused[status]++
	}
	return err == nil
}

func ask(ctx context.Context, c *http.Client, w *world) (status int, exchange string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(hello))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("x-weir-exchange-id"), errors.Join(err, resp.Body.Close())
}

// end stops the clients once their requests are answered.
func (l *load) end() {
	l.stop()
	l.clients.Wait()
}

// count returns how many requests were answered so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answered)
}

// rows returns all rows by exchange, and fails the test when an exchange has two.
func (w *world) rows(t *testing.T) map[string]store.UsageRow {
	t.Helper()
	rows := make(map[string]store.UsageRow)
	f := store.UsageFilter{Limit: 1000}
	for {
		page, err := w.Store.Usage(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			if _, twice := rows[r.Exchange.String()]; twice {
				t.Errorf("exchange %s has two rows", r.Exchange)
			}
			rows[r.Exchange.String()] = r
		}
		if len(page) < f.Limit {
			return rows
		}
		f.Before = page[len(page)-1].Exchange
	}
}

// wantRows waits until everything that was answered has its row, and checks each against the provider's ledger. An answer may be unresolved
// when mayLose, which may be nil, says that its line may have been lost.
func (l *load) wantRows(t *testing.T, mayLose func(answered time.Time) bool) {
	t.Helper()
	var rows map[string]store.UsageRow
	l.w.Eventually("every answer has its row", func() error {
		rows = l.w.rows(t)
		missing := 0
		for exchange := range l.answered {
			if _, ok := rows[exchange]; !ok {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d have none", missing, len(l.answered))
		}
		return nil
	})
	for _, row := range rows {
		answered, ok := l.answered[row.Exchange.String()]
		switch {
		case !ok:
		case row.Status != string(usage.StatusUnresolved):
			sameAsLedger(t, row, l.w.provider)
		case mayLose == nil || !mayLose(answered):
			t.Errorf("exchange %s, answered at %v, is unresolved", row.Exchange, answered)
		}
	}
}

func logs(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "exchanges*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	v, err := w.Metric(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRotationUnderLoadLosesNothing(t *testing.T) {
	w := newSpoolWorld(t, rig.Options{}, "rotate_bytes: 65536, rotate_age: 3s, keep: 2s")
	l := newLoad(t, w, 8)
	w.Eventually("logs are rotated and deleted while they are written", func() error {
		if n, d := w.metric(t, "weir_usage_log_rotations_total"), w.metric(t, "weir_usage_logs_deleted_total"); n < 4 || d < 1 {
			return fmt.Errorf("%v rotated, %v deleted", n, d)
		}
		return nil
	})
	l.end()
	if l.broken > 0 || len(l.refused) > 0 {
		t.Errorf("%d requests broke, %v were refused", l.broken, l.refused)
	}
	l.wantRows(t, nil)
	if rows := w.rows(t); len(rows) != len(l.answered) {
		t.Errorf("%d rows for %d answers", len(rows), len(l.answered))
	}
	w.Eventually("all rotated logs are deleted", func() error {
		if found := logs(t, w.LogDir); len(found) != 1 || filepath.Base(found[0]) != usage.ActiveLog {
			return fmt.Errorf("%v are left", found)
		}
		return nil
	})
	for _, name := range []string{"weir_usage_bad_lines_total", "weir_usage_logs_set_back_total", "weir_usage_log_write_failures_total", "weir_usage_unshipped_bytes"} {
		if n := w.metric(t, name); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
	t.Logf("%d exchanges, %v rotations, %v deletions", len(l.answered), w.metric(t, "weir_usage_log_rotations_total"), w.metric(t, "weir_usage_logs_deleted_total"))
}

// exchangesOnDisk returns the exchanges whose lines are whole in the logs, found in the simplest way: by where a line begins.
func exchangesOnDisk(t *testing.T, dir string) map[uuid.UUID]bool {
	t.Helper()
	found := make(map[uuid.UUID]bool)
	for _, name := range logs(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			begin := strings.LastIndex(line, `{"attempts":`)
			if begin < 0 {
				continue // of an attempt
			}
			l, err := usage.ParseLine([]byte(strings.TrimSuffix(line[begin:], "\n")))
			if err != nil || l.Kind != usage.KindExchange || !l.Final() {
				continue
			}
			ticket, err := policy.ParseTicket(l.Ticket)
			if err != nil || found[ticket.Exchange] {
				t.Fatalf("%s: %v, or twice: %s", name, err, line)
			}
			found[ticket.Exchange] = true
		}
	}
	return found
}

// flushed is by when a line is on the disk; Envoy's timer may be late on a busy machine.
const flushed = 5 * envoy.LogFlush

func TestEnvoyThatIsKilledUnderLoadLosesAtMostWhatItHadNotFlushed(t *testing.T) {
	w := newSpoolWorld(t, rig.Options{}, "rotate_bytes: 65536, rotate_age: 5s")
	l := newLoad(t, w, 8)
	var killed []time.Time
	for range 3 {
		n, began := l.count(), time.Now()
		w.Eventually("there are answers, also such that must be flushed", func() error {
			if m := l.count(); m < n+200 || time.Since(began) < 3*flushed {
				return fmt.Errorf("%d in %v", m-n, time.Since(began))
			}
			return nil
		})
		killed = append(killed, time.Now())
		if err := syscall.Kill(w.EnvoyPID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.StartEnvoy()
	}
	n := l.count()
	w.Eventually("there are answers again", func() error {
		if m := l.count(); m < n+200 {
			return fmt.Errorf("%d", m-n)
		}
		return nil
	})
	l.end()
	l.wantRows(t, func(answered time.Time) bool {
		for _, k := range killed {
			if answered.After(k.Add(-flushed)) && answered.Before(k.Add(flushed/5)) { // read a moment after the kill

				return true
			}
		}
		return false
	})
	rows, unresolved := w.rows(t), 0
	w.Eventually("every line that is whole on the disk has its row", func() error {
		rows, unresolved = w.rows(t), 0
		for _, r := range rows {
			if r.Status == string(usage.StatusUnresolved) {
				unresolved++
			}
		}
		if lines := exchangesOnDisk(t, w.LogDir); len(lines) == 0 || len(lines) != len(rows)-unresolved {
			return fmt.Errorf("%d rows, of which %d are unresolved, and %d exchanges in the logs", len(rows), unresolved, len(lines))
		}
		return nil
	})
	bad := w.metric(t, "weir_usage_bad_lines_total")
	if bad > float64(len(killed)) {
		t.Errorf("%v bad lines, want at most a torn one for each kill", bad)
	}
	t.Logf("%d answers, %d rows, %d of them unresolved, %v torn lines, %d broken requests", len(l.answered), len(rows), unresolved, bad, l.broken)
}

func TestTwoEnvoysOfOneProcessorWriteToLogsOfTheirOwn(t *testing.T) {
	w := newSpoolWorld(t, rig.Options{}, "rotate_bytes: 65536")
	binary, err := envoy.Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(w.EnvoyAdmin, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", port+1) // the rig's, who uses it in development only
	boot, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Socket: filepath.Join(w.Dir, "weir.sock"), Admin: admin, Node: "second", Instance: uuid.NewString(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- envoy.Run(ctx, envoy.RunOptions{Binary: binary, Bootstrap: boot, Dir: w.Dir, Node: "second", Admin: admin, Concurrency: 1, Log: io.Discard})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	w.Eventually("the second is ready", func() error { return envoy.Ready(t.Context(), admin) })
	for range 20 { // new connections: the kernel spreads them over both
		l := newLoad(t, w, 4)
		w.Eventually("some answers", func() error {
			if l.count() < 20 {
				return errors.New("too few")
			}
			return nil
		})
		l.end()
		l.wantRows(t, nil)
		if l.broken > 0 || len(l.refused) > 0 {
			t.Errorf("%d requests broke, %v were refused", l.broken, l.refused)
		}
	}
	first, second := 0, 0
	for _, name := range logs(t, w.LogDir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(filepath.Base(name), ".second") {
			second += int(info.Size())
		} else {
			first += int(info.Size())
		}
	}
	if first == 0 || second == 0 {
		t.Errorf("the first wrote %d bytes, the second %d: both should have had some", first, second)
	}
	w.Eventually("the second one's log is rotated too", func() error {
		if found, err := filepath.Glob(filepath.Join(w.LogDir, "exchanges.second-*.jsonl")); err != nil || len(found) == 0 {
			newLoad(t, w, 8).endAfter(t, 50)
			return fmt.Errorf("not yet: %w", err)
		}
		return nil
	})
	if n := w.metric(t, "weir_usage_bad_lines_total"); n != 0 {
		t.Errorf("%v bad lines", n)
	}
}

// endAfter ends the load after so many answers.
func (l *load) endAfter(t *testing.T, n int) {
	t.Helper()
	l.w.Eventually("answers", func() error {
		if l.count() < n {
			return errors.New("too few")
		}
		return nil
	})
	l.end()
}

// smallVolume mounts a file system of so many bytes. Only root can; without it ok is false, and the tests of package usage, which give
// the spool a volume of their own making, are all there is.
func smallVolume(t *testing.T, bytes int) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", bytes))
	switch {
	case err == nil:
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		return dir, true
	case os.Geteuid() == 0 && os.Getenv("WEIR_REQUIRE_ALL") == "1":
		t.Fatalf("mount a small volume: %v", err)
	}
	t.Logf("NOT TESTED on a real full volume: mounting one: %v", err)
	return "", false
}

func TestFullVolumeRefusesRequestsBeforeALineIsLostAndRecovers(t *testing.T) {
	const mib = 1 << 20
	dir, ok := smallVolume(t, 16*mib)
	if !ok {
		return
	}
	w := newSpoolWorld(t, rig.Options{LogDir: dir}, "rotate_bytes: 1048576, min_free: 4194304")
	l := newLoad(t, w, 4)
	answers := func() { // some more, from now on
		t.Helper()
		n := l.count()
		w.Eventually("requests are answered", func() error {
			if l.count() < n+20 {
				return errors.New("too few")
			}
			return nil
		})
	}
	closed := func(want float64) {
		t.Helper()
		w.Eventually(fmt.Sprintf("weir_usage_gate_closed is %v", want), func() error {
			if got := w.metric(t, "weir_usage_gate_closed"); got != want {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	answers()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 13*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	closed(1)
	a := w.post(t, "/v1/chat/completions", hello)
	if f := a.refusal(t); a.status != 503 || f.Code != "unavailable" || a.header.Get("retry-after") == "" {
		t.Errorf("got %d %+v, want 503 unavailable", a.status, f)
	}
	if resp, err := fetchModels(t, w); err != nil || resp != 200 {
		t.Errorf("models: got %d, %v", resp, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	closed(0)
	answers()
	l.end()
	l.wantRows(t, nil)
	if n := w.metric(t, "weir_usage_log_write_failures_total"); n != 0 || l.broken > 0 {
		t.Errorf("%v writes failed, %d requests broke: the gate closed too late", n, l.broken)
	}

	// Somebody fills the volume to its last byte between two looks: lines are lost, and that does not go unnoticed.
	failed := 0
	for round := 0; failed == 0 && round < 10; round++ {
		if err := fill(filler); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if _, _, err := ask(t.Context(), http.DefaultClient, w); err != nil {
				t.Fatal(err)
			}
		}
		closed(1)
		failed = w.Stat("filesystem.write_failed")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		closed(0)
	}
	if n := w.metric(t, "weir_usage_log_write_failures_total"); failed == 0 || int(n) != failed {
		t.Errorf("%v writes failed, Envoy says %d, want the same and some", n, failed)
	}
	again := newLoad(t, w, 4)
	again.endAfter(t, 50)
	again.wantRows(t, nil)
	t.Logf("%d requests refused, %d writes failed on the full volume", l.refused[503], failed)
}

// fill writes to a file until the volume has no room.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func fetchModels(t *testing.T, w *world) (int, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/v1/models", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("authorization", "Bearer "+w.key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
