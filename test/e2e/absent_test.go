// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/postgres"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// database is a Postgres of a test's own, which it may stop.
type database struct {
	t      *testing.T
	o      postgres.Options
	server *postgres.Server
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	install, err := postgres.Find(t.Context(), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "weir-pg-") //nolint:usetesting // the user that Postgres runs as cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, o: postgres.Options{Install: install, Dir: dir, NoSync: true}}
	d.start()
	u, err := url.Parse(d.server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(u.Port(), &d.o.Port); err != nil { // the same at its next start
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d
}

func (d *database) start() {
	d.t.Helper()
	var err error
	if d.server, err = postgres.Start(d.t.Context(), d.o); err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // the test's own may be over
	defer cancel()
	if err := d.server.Stop(ctx); err != nil {
		d.t.Errorf("stop Postgres: %v", err)
	}
}

// ready returns what /readyz says.
func (w *world) ready() (status int, body string, err error) {
	resp, err := http.Get(w.AdminURL + "/readyz")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// refused waits until requests get an answer, which must be that the gateway cannot take them now.
func (w *world) refused(t *testing.T) {
	t.Helper()
	var a answer
	w.Eventually("an answer", func() error {
		r, err := http.NewRequest(http.MethodPost, w.URL+"/v1/chat/completions", strings.NewReader(hello))
		if err != nil {
			return err
		}
		r.Header.Set("authorization", "Bearer "+w.key)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		a = answer{status: resp.StatusCode, header: resp.Header, body: string(b)}
		return err
	})
	if a.status != 503 || !strings.Contains(a.body, `"code":"unavailable"`) || a.header.Get("retry-after") == "" {
		t.Errorf("got %d %s with %v, want 503 unavailable", a.status, a.body, a.header)
	}
}

// A processor that is started while Postgres is down says so, refuses requests, and serves when Postgres is back; what was in flight goes
// on, and is in the books.
func TestTheProcessorWaitsForItsDatabase(t *testing.T) {
	db := newDatabase(t)
	r := rig.Start(t, rig.Options{Production: true, DSN: db.server.DSN()})
	w := &world{Rig: r, provider: r.Provider(fake.Options{})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Fatal(err)
	}
	db.stop()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Errorf("without Postgres, by the configuration that is in force: %v", err)
	}
	if status, body, err := w.ready(); err != nil || status != 200 || !strings.Contains(body, `"database"`) || !strings.Contains(body, "last configuration") {
		t.Errorf("/readyz without Postgres, while requests are served: %d %s, %v; want 200 and what is degraded", status, body, err)
	}
	w.KillProcessor()
	w.forget(t)
	w.StartProcessor() // which waits for /livez
	w.refused(t)
	status, body, err := w.ready()
	if err != nil || status != 503 || !strings.Contains(body, `"database"`) || !strings.Contains(body, "refused") {
		t.Errorf("/readyz: %d %s, %v; want 503 and why", status, body, err)
	}
	w.Eventually("the log tells of what was served", func() error {
		b, err := os.ReadFile(filepath.Join(w.LogDir, "exchanges.jsonl"))
		if n := bytes.Count(b, []byte(`"status":200`)); err == nil && n < 2 {
			err = fmt.Errorf("%d lines", n)
		}
		return err
	})
	w.KillEnvoy()
	w.StartEnvoy() // which has nothing yet
	w.refused(t)

	db.start()
	w.Eventually("ready", func() error {
		status, body, err := w.ready()
		if err == nil && status != 200 {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	w.Eventually("the test's own connections are to this server", func() error { return w.Store.Ping(t.Context()) })
	w.Settle()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Error(err)
	}
	w.Rows(int(w.provider.Ledger().Totals().Requests))
	log, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
	if err != nil {
		t.Fatal(err)
	}
	told, there := bytes.Count(log, []byte("the database cannot be reached")), bytes.Count(log, []byte("the database is there"))
	if told < 1 || told > 2 || there != 1 { // twice when it was asked while Postgres was starting
		t.Errorf("the log tells %d times that the database is away and %d times that it is back", told, there)
	}
}

// forget removes what the processor keeps for times without its database.
func (w *world) forget(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(w.Dir, "kept")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// A processor that is started while Postgres is down serves by what it keeps on the disk, and says so; for so long as that may be believed. A key that was
// revoked before is refused, and what is used meanwhile is in the books.
func TestTheProcessorServesByWhatItKeeps(t *testing.T) {
	const believed = 15 * time.Second
	db := newDatabase(t)
	r := rig.Start(t, rig.Options{Production: true, DSN: db.server.DSN(), Config: fmt.Sprintf("database: {max_stale: %s}\n", believed)})
	w := &world{Rig: r, provider: r.Provider(fake.Options{})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL, Credential: "sk-in-the-clear"})
	revoked, _ := r.Key(store.NewKey{Name: "revoked"})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	if _, err := r.Store.RevokeKey(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	r.Settle()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Fatal(err)
	}
	w.StopProcessor() // which keeps what it has
	kept, err := os.ReadFile(filepath.Join(w.Dir, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(kept, []byte("sk-in-the-clear")) || bytes.Contains(kept, []byte(w.key)) {
		t.Error("a secret stands in the file in the clear")
	}
	db.stop()
	w.StartProcessor()
	w.Eventually("a request is served", func() error { return w.ask(http.DefaultClient, hello, "usage") })
	if a := w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer "+revoked); a.status != 401 {
		t.Errorf("a revoked key gets %d", a.status)
	}
	w.Eventually("/readyz says that requests are served, and by what", func() error {
		status, body, err := w.ready()
		if err == nil && (status != 200 || !strings.Contains(body, "kept on the disk")) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	w.Eventually("the end of what may be believed", func() error {
		status, body, err := w.ready()
		if err == nil && (status != 503 || !strings.Contains(body, "requests are refused")) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	w.refused(t)
	w.KillProcessor()
	w.StartProcessor() // for which it is too old
	w.refused(t)
	db.start()
	w.Eventually("the test's own connections are to this server", func() error { return w.Store.Ping(t.Context()) })
	w.Settle()
	w.Eventually("a request is served again", func() error { return w.ask(http.DefaultClient, hello, "usage") })
	w.Rows(int(w.provider.Ledger().Totals().Requests))
}

// What waiting does not mend is an error at once.
func TestTheProcessorDoesNotWaitForAnotherPassword(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	w.StopProcessor()
	good, err := url.Parse(w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	bad := *good
	bad.Path = "/weir_no_such_database"
	w.DSN = bad.String()
	p, err := w.LaunchProcessor()
	if err != nil {
		t.Fatal(err)
	}
	w.Eventually("it has ended", func() error {
		select {
		case <-p.Done():
			return nil
		default:
			return fmt.Errorf("it runs")
		}
	})
	log, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Err() == nil || !bytes.Contains(log, []byte("hint: make the database with createdb")) {
		t.Errorf("ended with %v, and the log has no hint:\n%s", p.Err(), log)
	}
	w.DSN = good.String()
	w.StartProcessor()
}
