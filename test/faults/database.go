// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres"
)

// database is a Postgres of one's own, with fsync, that is put through everything. Its methods are for one goroutine. Each may be called
// in any state: what is stopped cannot be stopped again, and starting what runs is nothing.
type database struct {
	options postgres.Options
	server  *postgres.Server // nil while it is down
	backup  string           // folder of the base backup
	name    string
}

// patience bounds every step of the harness that waits for something.
const patience = time.Minute

// newDatabase starts a server in dir and makes a database.
func newDatabase(ctx context.Context, install postgres.Install, dir string) (*database, error) {
	d := &database{
		options: postgres.Options{Install: install, Dir: dir, Settings: map[string]string{
			"max_connections": "50", "shared_buffers": "32MB", "max_wal_size": "128MB", "min_wal_size": "32MB",
		}},
		backup: filepath.Join(dir, "backup"),
		name:   "weir",
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	d.options.Port = d.server.Port() // from now on always the same
	conn, err := pgx.Connect(ctx, d.server.DSN())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the database: %w", err), d.stop())
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	if _, err := conn.Exec(ctx, "create database "+d.name); err != nil {
		return nil, errors.Join(fmt.Errorf("make the database: %w", err), d.stop())
	}
	return d, nil
}

// address is host:port of the server.
func (d *database) address() string { return "127.0.0.1:" + strconv.Itoa(d.options.Port) }

// dsn is the address of the database by way of host:port.
func (d *database) dsn(address string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: address, Path: "/" + d.name, RawQuery: "sslmode=disable"}
	return u.String()
}

// connect returns a connection past the proxy.
func (d *database) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, d.dsn(d.address()))
}

func (d *database) start(ctx context.Context) (err error) {
	if d.server == nil {
		d.server, err = postgres.Start(ctx, d.options)
	}
	return err
}

// stop shuts the server down as an operator does.
func (d *database) stop() error {
	if d.server == nil {
		return nil
	}
	d.thaw()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := d.server.Stop(ctx)
	d.server = nil
	return err
}

// crash ends the server by a signal and leaves its data as they are: SIGQUIT makes it throw away what it was doing, SIGKILL leaves its
// children to themselves.
func (d *database) crash(sig syscall.Signal) error {
	if d.server == nil {
		return nil
	}
	d.thaw()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = syscall.Kill(d.server.Pid(), sig) // whether it has ended shows below
	if err := d.server.Wait(ctx); ctx.Err() != nil {
		return fmt.Errorf("crash postgres: %w", err)
	}
	err := d.server.Stop(ctx)
	d.server = nil
	return err
}

// freeze stops all processes of the server. Connections stay, and nothing answers.
func (d *database) freeze() { d.signalAll(syscall.SIGSTOP) }

// thaw ends a freeze.
func (d *database) thaw() { d.signalAll(syscall.SIGCONT) }

func (d *database) signalAll(sig syscall.Signal) {
	if d.server == nil {
		return
	}
	_ = syscall.Kill(d.server.Pid(), sig) // first, so that it forks no more
	for _, pid := range children(d.server.Pid()) {
		_ = syscall.Kill(pid, sig)
	}
}

// children returns the processes whose parent is pid.
func children(pid int) []int {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var found []int
	for _, path := range dirs {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, ok := strings.Cut(string(b), ") ") // behind the name; then come state and parent
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, child)
		}
	}
	return found
}

// takeBackup copies the data while the server is down, and starts it again.
func (d *database) takeBackup(ctx context.Context) error {
	if err := d.stop(); err != nil {
		return err
	}
	if err := replace(d.backup, filepath.Join(d.options.Dir, "data")); err != nil {
		return fmt.Errorf("take a base backup: %w", err)
	}
	return d.start(ctx)
}

// rollBack puts the base backup in the place of the data: all that was committed since is gone, as when a standby that lags takes over.
func (d *database) rollBack(ctx context.Context) error {
	if err := d.stop(); err != nil {
		return err
	}
	if err := replace(filepath.Join(d.options.Dir, "data"), d.backup); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return d.start(ctx)
}

// replace makes to a copy of from, with its owner.
func replace(to, from string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy: %w: %s", err, out)
	}
	return nil
}
