// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
)

// patience bounds waits for what another process does; only a failure lasts that long.
const patience = 20 * time.Second

// watched is a running Watch.
type watched struct {
	seen   chan Configuration
	failed atomic.Int64 // looks
	end    func() error
}

// watch runs Watch until the test ends. Each configuration goes to fail, if there is one, and then to seen.
func watch(t *testing.T, s *Store, fail func(Configuration) error) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{seen: make(chan Configuration, 100)}
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, Following{Keys: &policy.Keyring{}, Apply: func(c Configuration) error {
			if fail != nil {
				if err := fail(c); err != nil {
					return err
				}
			}
			w.seen <- c
			return nil
		}, Failed: func(error) { w.failed.Add(1) }})
	}()
	w.end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = w.end() })
	return w
}

// until waits for a configuration that is as wanted.
func (w *watched) until(t *testing.T, what string, wanted func(Configuration) bool) Configuration {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case c := <-w.seen:
			if wanted(c) {
				return c
			}
		case <-timer.C:
			t.Fatalf("no configuration with %s", what)
		}
	}
}

func anything(Configuration) bool { return true }

func hasTenant(name string) func(Configuration) bool {
	return func(c Configuration) bool {
		for _, t := range c.Tenants {
			if t.Name == name {
				return true
			}
		}
		return false
	}
}

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-timer.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func listeners(t *testing.T, s *Store) int64 {
	t.Helper()
	return query[int64](t, s, `select count(*) from pg_stat_activity where application_name = 'weir-listen' and datname = current_database() and query = 'listen weir_config'`)
}

func TestWatchSeesWhatAnotherConnectionChanges(t *testing.T) {
	s := migrated(t)
	w := watch(t, s, nil)
	first := w.until(t, "anything", anything)
	if len(first.Tenants) != 1 || first.Revision == 0 {
		t.Errorf("first = %+v", first)
	}
	other := mustOpen(t, s.pool.Config().ConnString(), Options{})
	if _, err := other.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if c := w.until(t, "tenant acme", hasTenant("acme")); c.Revision <= first.Revision {
		t.Errorf("revision %d after %d", c.Revision, first.Revision)
	}
	if err := w.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("watch = %v", err)
	}
}

func TestWatchSeesChangesWhenListenIsDead(t *testing.T) {
	s := migrated(t)
	exec(t, s, `create or replace function weir.bump_revision() returns trigger language plpgsql as
		$$ begin update weir.revision set n = n + 1; return null; end $$`) // notifies nobody
	w := watch(t, s, nil)
	w.until(t, "anything", anything)
	eventually(t, "listening", func() bool { return listeners(t, s) == 1 })
	exec(t, s, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'weir-listen' and datname = current_database()`)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	w.until(t, "tenant acme", hasTenant("acme"))
	eventually(t, "listening again", func() bool { return listeners(t, s) == 1 })
}

func TestListenHintsAtOnce(t *testing.T) {
	s := migrated(t)
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.listen(ctx, changed) }()
	for _, name := range []string{"", "acme", "beta"} {
		if name != "" {
			if _, err := s.CreateTenant(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		timer := time.NewTimer(patience)
		select {
		case <-changed: // the first comes without a change: whatever came before the LISTEN was not heard
		case <-timer.C:
			t.Fatalf("no hint of %q", name)
		}
		timer.Stop()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("listen = %v", err)
	}
}

func TestWatchOffersAgainWhatCouldNotBeApplied(t *testing.T) {
	var log logBuffer
	s := mustOpen(t, pgtest.Database(t), Options{Logger: log.logger()})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	tries := 0
	w := watch(t, s, func(Configuration) error {
		if tries++; tries < 3 {
			return errors.New("cannot listen on port 1")
		}
		return nil
	})
	w.until(t, "anything", anything)
	eventually(t, "a word that it is well again", func() bool { return log.count("up to date again") == 1 })
	if got := log.count("cannot listen on port 1"); got != 1 {
		t.Errorf("logged %d times", got)
	}
	if err := w.end(); !errors.Is(err, context.Canceled) || tries != 3 {
		t.Errorf("watch = %v after %d tries", err, tries)
	}
	if got := w.failed.Load(); got != 2 {
		t.Errorf("told of %d failures, want 2", got)
	}
}

// gate passes TCP connections on to a server while it is open.
type gate struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     bool
	conns    []net.Conn
}

// newGate returns the gate and the address of the database behind it.
func newGate(t *testing.T, dsn string) (*gate, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, target: u.Host, open: true}
	u.Host = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { g.pass(in) })
		}
	})
	t.Cleanup(func() {
		l.Close() //nolint:errcheck,gosec // test
		g.set(false)
		wg.Wait()
	})
	return g, u.String()
}

func (g *gate) pass(in net.Conn) {
	defer in.Close() //nolint:errcheck // test
	g.mu.Lock()
	if !g.open {
		g.mu.Unlock()
		return
	}
	out, err := net.Dial("tcp", g.target)
	if err != nil {
		g.mu.Unlock()
		return
	}
	defer out.Close() //nolint:errcheck // test
	g.conns = append(g.conns, in, out)
	g.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(out, in)
		out.Close() //nolint:errcheck,gosec // test
	})
	_, _ = io.Copy(in, out)
	in.Close() //nolint:errcheck,gosec // test
	wg.Wait()
}

// set opens the gate, or closes it and cuts every connection.
func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open = open; !open {
		for _, c := range g.conns {
			c.Close() //nolint:errcheck,gosec // test
		}
		g.conns = nil
	}
}

func TestWatchOutlivesALostDatabase(t *testing.T) {
	g, dsn := newGate(t, pgtest.Database(t))
	var log logBuffer
	s := mustOpen(t, dsn, Options{Logger: log.logger()})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := watch(t, s, nil)
	first := w.until(t, "anything", anything)
	g.set(false)
	eventually(t, "a word of the loss", func() bool { return log.count("configuration is stale") == 1 })
	g.set(true)
	// The same revision is applied again: the database might be another one, restored from a backup.
	again := w.until(t, "the same revision", func(c Configuration) bool { return c.Revision == first.Revision })
	if len(again.Tenants) != 1 {
		t.Errorf("again = %+v", again)
	}
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	w.until(t, "tenant acme", hasTenant("acme"))
	if lost, found := log.count("configuration is stale"), log.count("up to date again"); lost != 1 || found != 1 {
		t.Errorf("logged the loss %d times and the end of it %d times", lost, found)
	}
}

func TestWatchBeginsWithoutADatabase(t *testing.T) {
	dsn := pgtest.Database(t)
	before := mustOpen(t, dsn, Options{})
	g, gated := newGate(t, dsn)
	g.set(false)
	var log logBuffer
	s := mustOpen(t, gated, Options{Logger: log.logger()})
	w := watch(t, s, nil)
	eventually(t, "a word of the loss", func() bool { return log.count("configuration is stale") == 1 })
	g.set(true) // and now there is no schema
	if err := before.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the default tenant", hasTenant(DefaultTenant))
}

func TestRetryPausesGrowAndVary(t *testing.T) {
	r := retry{log: slog.New(slog.DiscardHandler), first: pollInterval}
	fail := errors.New("down")
	for i := range 40 {
		most := min(pollInterval<<min(i, 8), maxBackoff)
		if got := r.pause(t.Context(), fail); got < most/2 || got > most {
			t.Errorf("pause %d = %s, want %s to %s", i, got, most/2, most)
		}
	}
	if got := r.pause(t.Context(), nil); got != pollInterval {
		t.Errorf("pause after success = %s", got)
	}
}

// TestPostAfterALostCommitGoesOnFromThePosition cuts the connection at any moment, also between COMMIT and its answer.
func TestPostAfterALostCommitGoesOnFromThePosition(t *testing.T) {
	g, dsn := newGate(t, pgtest.Database(t))
	s := mustOpen(t, dsn, Options{})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := batch(uuid.New(), 0, record(t, noon()), record(t, noon()))
	for i := range int64(30) {
		stop := time.AfterFunc(time.Duration(i)*300*time.Microsecond, func() { g.set(false); g.set(true) })
		err := s.Post(t.Context(), b)
		stop.Stop()
		g.set(true)
		var position int64
		eventually(t, "the position can be read", func() bool {
			var read error
			position, read = s.Position(t.Context(), b.Writer)
			return read == nil
		})
		switch {
		case err == nil && position != b.To:
			t.Fatalf("posted to %d, but the position is %d", b.To, position)
		case position == b.To:
			b = batch(b.Writer, b.To, record(t, noon()), record(t, noon()))
		case position != b.From:
			t.Fatalf("position = %d in the middle of %d to %d", position, b.From, b.To)
		}
	}
	wantSums(t, s, numbers{Requests: b.From, Tokens: 120 * b.From})
	wantTheSame(t, s)
}
