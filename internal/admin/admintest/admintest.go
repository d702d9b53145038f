// SPDX-License-Identifier: Apache-2.0

// Package admintest runs the admin API over a real store, for tests of what speaks to it.
package admintest

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/loader"
	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/usage"
)

// Token is the admin token of every server here.
const Token = "admin-token-of-tests"

// Version is what every server here says of itself.
const Version = "v0.0.0-test"

// Server is an admin API with a database of its own.
type Server struct {
	URL   string
	Store *store.Store
	dsn   string
}

// Start runs a server until the test ends. Change, which may be nil, adapts its options; wrap, which may be nil, its handler.
func Start(t testing.TB, change func(*admin.Options), wrap func(http.Handler) http.Handler) *Server {
	t.Helper()
	return start(t, pgtest.Database(t), bytes.Repeat([]byte{1}, 32), change, wrap)
}

// WithSecretKey runs a second server on the database of s that has another secret key.
func WithSecretKey(t testing.TB, s *Server, key []byte) *Server {
	t.Helper()
	return start(t, s.dsn, key, nil, nil)
}

func start(t testing.TB, dsn string, key []byte, change func(*admin.Options), wrap func(http.Handler) http.Handler) *Server {
	t.Helper()
	ctx := context.Background() // a cleanup outlives t.Context
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(ctx, dsn, store.Options{SecretKey: key, Logger: log, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterPrices(ctx, prices.EmbeddedList()); err != nil {
		t.Fatal(err)
	}
	o := admin.Options{
		Store:         s,
		Token:         Token,
		Metrics:       http.HandlerFunc(metrics),
		Ready:         ready,
		Version:       Version,
		Logger:        log,
		ChannelTester: admin.NewProber(),
		Plugins:       plugins(t, s),
		PluginMetrics: http.HandlerFunc(metrics),
	}
	if change != nil {
		change(&o)
	}
	handler := admin.New(o)
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &Server{URL: server.URL, Store: s, dsn: dsn}
}

// plugins loads modules as a processor does.
func plugins(t testing.TB, s *store.Store) *loader.Loader {
	t.Helper()
	h, err := host.New(context.Background(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	filters, err := proxywasm.New(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	l := loader.New(loader.Options{
		Host: h, Filters: filters, Modules: s, Headers: []string{"x-team"}, Registerer: prometheus.NewRegistry(),
		Limits: host.Limits{TimeToStart: time.Minute}, // the machine may be busy
	})
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write([]byte("weir_up 1\n"))
}

func ready(context.Context) []admin.Check {
	return []admin.Check{{Name: "database", Verdict: admin.OK, Detail: "answers"}}
}

// PostUsage writes rows of usage, as if each had just been read from a log. It fills in the exchange, the time and the position.
func PostUsage(ctx context.Context, s *store.Store, records ...usage.Record) error {
	b := usage.Batch{Writer: uuid.New(), To: int64(len(records))}
	for i, r := range records {
		r.Seq = int64(i + 1)
		if r.Exchange == uuid.Nil {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			r.Exchange = id
		}
		if r.Time.IsZero() {
			r.Time = time.Now()
		}
		b.Records = append(b.Records, r)
	}
	return s.Post(ctx, b)
}
