// SPDX-License-Identifier: Apache-2.0

// Package pgtest gives each test a database of its own on a real Postgres.
//
// The server is that of $WEIR_TEST_DATABASE_URL if it is set; else one is started at the first call in a test binary, shared by all
// of its tests, and gone with it.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres"
	"github.com/weir-proxy/weir/internal/repo"
)

// EnvURL names the environment variable with the address of a server to use: a URL of a user who may create databases.
const EnvURL = "WEIR_TEST_DATABASE_URL"

// Database returns the address, a URL, of a new and empty database, which is dropped when the test ends.
func Database(t testing.TB) (dsn string) {
	t.Helper()
	server := Server(t)
	name := "test_" + token()
	do(t, server, `create database `+name)
	t.Cleanup(func() { do(t, server, `drop database if exists `+name+` with (force)`) })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s is not a URL", EnvURL) // it may hold a password
	}
	u.Path = "/" + name
	return u.String()
}

// Server returns the address of the server that the tests of this binary share. Its user may do anything.
func Server(t testing.TB) (dsn string) {
	t.Helper()
	if dsn := os.Getenv(EnvURL); dsn != "" {
		return dsn
	}
	cache := repo.Cache(t)
	shared.once.Do(func() { shared.dsn, shared.err = start(cache) })
	if shared.err != nil {
		t.Fatalf("no Postgres to test with: %v\n(or set %s)", shared.err, EnvURL)
	}
	return shared.dsn
}

// shared is the server of this test binary.
var shared struct {
	once sync.Once
	dsn  string
	err  error
	// end is closed by the end of this process; held here, it is not closed by the garbage collector.
	end io.Closer
}

// start runs a server in a temporary folder. A test binary has no moment at its end that it does not share with every package, so
// a shell waits for the end of this process, however it comes, and clears up.
func start(cache string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it may have to be fetched
	defer cancel()
	install, err := postgres.Find(ctx, cache)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "weir-pgtest-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the user that Postgres runs as enters it
		return "", err
	}
	s, err := postgres.Start(ctx, postgres.Options{Install: install, Dir: dir, NoSync: true, Settings: map[string]string{
		"max_connections": "200", "shared_buffers": "32MB", "autovacuum_naptime": "5s",
	}})
	if err != nil {
		return "", fmt.Errorf("%w (see %s)", err, dir)
	}
	return s.DSN(), clearUp(s, dir)
}

// clearUp starts the shell: its standard input ends when this process does.
func clearUp(s *postgres.Server, dir string) error {
	const script = `cat >/dev/null
kill -QUIT "$1" 2>/dev/null
i=0
while kill -0 "$1" 2>/dev/null && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done
rm -rf -- "$2" "$3"`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", strconv.Itoa(s.Pid()), dir, s.SocketDir()) //nolint:gosec // a path of ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}                                         // Ctrl-C is not for it
	end, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	shared.end = end
	return cmd.Start()
}

func do(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // t.Context is over in a cleanup
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect to the test server: %v", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing hangs on it
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

func token() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}
