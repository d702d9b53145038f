// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/postgres"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// Options say what a run does.
type Options struct {
	Rounds  int
	Seed    uint64
	Kinds   []Kind        // of faults
	Load    time.Duration // of a round
	Clients int
	Out     io.Writer // gets a line for each round
	Plain   bool      // the processor works by its defaults, and the providers keep nothing but totals
}

// configuration is how the processor differs from its defaults: whatever waits for long, waits for less, so that in each round leases end,
// and logs are rotated and deleted. Logs must stay for longer than from a base backup to the end of its round. No row is old enough to be
// dropped, but for a processor whose clock is wrong.
const configuration = `
usage:
  batch_interval: 100ms
  lease: 3s
  retention: 744h
  log: {rotate_bytes: 65536, rotate_age: 2s, keep: 30s}
`

// world is a gateway with everything around it.
type world struct {
	Options
	t         testing.TB
	rig       *rig.Rig
	db        *database
	proxy     *proxy
	clock     *clock
	ahead     []time.Duration // that the clock was set to in this round
	keeper    *keeper
	disk      *disk // nil when no fault needs it
	providers []*provider
	load      load
	envoyDown bool
	frozen    time.Time // when Envoy was; zero: it is not
	killed    time.Time // when Envoy was, the last time
	judged    map[uuid.UUID]row
}

// newWorld starts everything. It is stopped when the test ends; of a test that failed, the state stays.
func newWorld(t testing.TB, o Options) *world {
	t.Helper()
	w := &world{Options: o, t: t, judged: make(map[uuid.UUID]row)}
	dir, err := os.MkdirTemp("", "weir-faults-") //nolint:usetesting // stays when the test fails
	check(t, err)
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir) // what is left is temporary
		}
	})
	check(t, os.Chmod(dir, 0o755)) // the user that Postgres runs as enters it
	w.startDatabase(filepath.Join(dir, "postgres"))
	logs := filepath.Join(dir, "log")
	check(t, os.Mkdir(logs, 0o755))
	if slices.Contains(o.Kinds, FillDisk) {
		w.disk, err = mountDisk(logs)
		check(t, err)
		t.Cleanup(func() {
			if err := w.disk.unmount(t.Failed()); err != nil {
				t.Error(err)
			}
		})
	}
	clockFile := filepath.Join(dir, "clock")
	w.clock, err = openClock(clockFile)
	check(t, err)
	self, err := os.Executable()
	check(t, err)
	config := configuration
	if o.Plain {
		config = ""
	}
	w.rig = rig.Start(t, rig.Options{
		Production: true, Config: config, Dir: dir, DSN: w.db.dsn(w.proxy.addr()), Serve: []string{self, serveCommand, clockFile},
	})
	w.furnish()
	w.keeper = keep(w.rig)
	t.Cleanup(w.keeper.stop)
	return w
}

func (w *world) startDatabase(dir string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute) // Postgres may have to be fetched
	defer cancel()
	install, err := postgres.Find(ctx, repo.Cache(w.t))
	check(w.t, err)
	check(w.t, os.Mkdir(dir, 0o755))
	w.db, err = newDatabase(ctx, install, dir)
	check(w.t, err)
	w.t.Cleanup(func() {
		if err := w.db.stop(); err != nil {
			w.t.Error(err)
		}
	})
	w.proxy, err = newProxy(w.db.address())
	check(w.t, err)
	w.t.Cleanup(w.proxy.close)
}

// furnish makes providers, channels, tenants and keys.
func (w *world) furnish() {
	w.t.Helper()
	for _, name := range []string{"a", "b"} {
		p := newProvider(name, w.Plain)
		w.t.Cleanup(p.server.Close)
		p.channel = w.rig.Channel(store.NewChannel{Name: name, BaseURL: p.server.URL + "/v1"}).ID
		w.providers = append(w.providers, p)
	}
	_, err := w.rig.Store.CreateTenant(w.t.Context(), "other")
	check(w.t, err)
	for i, tenant := range []string{"", "", "other"} {
		secret, _ := w.rig.Key(store.NewKey{Name: fmt.Sprintf("key%d", i), Tenant: tenant})
		w.load.keys = append(w.load.keys, secret)
	}
	w.load.url, w.load.seed, w.load.clients = w.rig.URL, w.Seed, w.Clients
	w.rig.Settle()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin makes a fault happen.
func (w *world) begin(ctx context.Context, f Fault) error {
	switch f.Kind {
	case KillProcessor:
		w.keeper.signal(syscall.SIGKILL, f.For)
	case TermProcessor:
		w.keeper.signal(syscall.SIGTERM, f.For)
	case KillEnvoy:
		w.killEnvoy()
	case FreezeEnvoy:
		_ = syscall.Kill(w.rig.EnvoyPID(), syscall.SIGSTOP) // it may be dead
		if w.frozen.IsZero() {
			w.frozen = time.Now()
		}
	case StopPostgres:
		return w.db.stop()
	case CrashPostgres:
		return w.db.crash(syscall.SIGQUIT)
	case KillPostgres:
		return w.db.crash(syscall.SIGKILL)
	case FreezePostgres:
		w.db.freeze()
	case DropReply:
		w.proxy.replies.Add(int64(f.Count))
	case DropCommit:
		w.proxy.commits.Add(int64(f.Count))
	case CutDatabase:
		w.proxy.cutAll()
	case RollBack:
		return w.db.rollBack(ctx)
	case Forget:
		return w.forget(ctx)
	case FillDisk:
		return w.disk.fill()
	case ClockStep, Midnight, MonthEnd:
		w.setClock(f)
	}
	return nil
}

func (w *world) killEnvoy() {
	if !w.envoyDown {
		w.rig.KillEnvoy()
		w.envoyDown, w.killed, w.frozen = true, time.Now(), time.Time{}
	}
}

// forget kills Envoy, and has the database forget what became of the exchanges that it was in the middle of. With other faults around there
// may be nothing to forget.
func (w *world) forget(ctx context.Context) error {
	w.killEnvoy()
	w.rig.LaunchEnvoy()
	w.envoyDown = false
	const enough = 3 * time.Second
	_ = within(enough, func() error { return w.someUnresolved(ctx) })
	return w.db.rollBack(ctx)
}

// someUnresolved returns nil when some exchange is unresolved at the moment.
func (w *world) someUnresolved(ctx context.Context) error {
	conn, err := w.db.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	var some bool
	if err := conn.QueryRow(ctx, `select exists (select from weir.unresolved where ts > now() - interval '1 minute')`).Scan(&some); err != nil {
		return err
	}
	if !some {
		return errors.New("no exchange is unresolved")
	}
	return nil
}

// end makes it be over. A processor comes back by itself.
func (w *world) end(ctx context.Context, k Kind) error {
	switch k {
	case KillEnvoy:
		if w.envoyDown {
			w.rig.LaunchEnvoy()
			w.envoyDown = false
		}
	case FreezeEnvoy:
		_ = syscall.Kill(w.rig.EnvoyPID(), syscall.SIGCONT) // it may be dead
		w.frozen = time.Time{}
	case StopPostgres, CrashPostgres, KillPostgres:
		return w.db.start(ctx)
	case FreezePostgres:
		w.db.thaw()
	case FillDisk:
		return w.disk.clear()
	case ClockStep, Midnight, MonthEnd:
		w.clock.set(0)
	}
	return nil
}

// heal ends all faults.
func (w *world) heal(ctx context.Context) error {
	w.proxy.disarm()
	for _, k := range w.Kinds {
		if !k.lasts() {
			continue
		}
		if err := w.end(ctx, k); err != nil {
			return err
		}
	}
	return w.db.start(ctx)
}
