// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/child"
	"github.com/weir-proxy/weir/internal/filelock"
)

// Options say where a server runs and what it is.
type Options struct {
	Install Install
	Dir     string // the data go to Dir/data; made when missing
	Port    int    // on 127.0.0.1; zero means a free one
	LogFile string // what the server says is appended to it; empty means Dir/postgres.log
	// Settings are settings of postgresql.conf, as in "max_connections": "50".
	Settings map[string]string
	// NoSync gives up safety against a crash of the machine for speed. It is for data that nobody will miss.
	NoSync bool
}

// lastSignal is what the server gets when this process is gone: Postgres's fast shutdown. SIGTERM would wait for every client to leave.
const lastSignal = syscall.SIGINT

const (
	startTimeout = 60 * time.Second // bounds a recovery after a crash too
	readyPoll    = 50 * time.Millisecond
	portTries    = 5 // a free port may be taken by somebody else before Postgres gets it
)

// Start makes the data folder on first use, runs the server and waits until it answers; ctx bounds only that, the server runs
// until [Server.Stop]. A server that a killed process has left behind does not stand in the way, neither does its lock file; a
// server of another process that lives does, and so do data of another major version.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.Install.check(); err != nil {
		return nil, err
	}
	if o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("port %d: it must be 1 to 65535, or 0 for a free one", o.Port)
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	a, err := chooseAccount(filepath.Join(o.Dir, "data"))
	if err != nil {
		return nil, err
	}
	data, err := place(a, o.Dir)
	if err != nil {
		return nil, err
	}
	unlock, err := filelock.Take(ctx, filepath.Join(o.Dir, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if o.Install, err = bring(a, o.Install); err != nil {
		return nil, err
	}
	if err := prepare(ctx, a, o, data); err != nil {
		return nil, err
	}
	if err := awaitPredecessor(ctx, data); err != nil {
		return nil, err
	}
	if o.LogFile == "" {
		o.LogFile = filepath.Join(o.Dir, "postgres.log")
	}
	for try := 1; ; try++ {
		s, err := launch(ctx, a, o, data)
		if err == nil {
			return s, nil
		}
		again := o.Port == 0 && errors.Is(err, errPortTaken) && try < portTries || errors.Is(err, errOrphans)
		if !again || sleep(ctx, 4*readyPoll) != nil {
			return nil, err
		}
	}
}

// prepare makes the cluster of databases when there is none, and checks that the one there is can be run.
func prepare(ctx context.Context, a *account, o Options, data string) error {
	version, err := os.ReadFile(filepath.Join(data, "PG_VERSION")) //nolint:gosec // a file of ours
	if errors.Is(err, fs.ErrNotExist) {
		return initialize(ctx, a, o, data)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s belongs to another user: start weir as that user, or as root, or with another folder: %w", data, err)
	}
	if err != nil {
		return err
	}
	if major := strings.TrimSpace(string(version)); major != strconv.Itoa(o.Install.Major) {
		return fmt.Errorf("the data in %s are of Postgres %s, and this is Postgres %s: install Postgres %s, or remove the folder to begin anew, or move the data with pg_dump",
			data, major, o.Install.Version, major)
	}
	if a != nil {
		if uid, ok := owner(data); ok && uid != a.uid {
			return a.own(data)
		}
	}
	return nil
}

// initialize makes the cluster aside, so that an initdb that is killed leaves nothing that looks whole.
func initialize(ctx context.Context, a *account, o Options, data string) error {
	if entries, err := os.ReadDir(data); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds something that is not a Postgres database: choose another folder, or remove it", data)
	}
	fresh := data + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700)); err != nil {
		return err
	}
	if err := a.own(fresh); err != nil {
		return err
	}
	args := []string{"-D", fresh, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"}
	if o.NoSync {
		args = append(args, "--no-sync")
	}
	cmd := a.command(fresh, filepath.Join(o.Install.Bin, "initdb"), args...)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	p, err := child.Start(cmd, lastSignal)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.KillGroup()
		<-p.Done()
		return fmt.Errorf("run initdb: %w", ctx.Err())
	}
	if p.Err() != nil {
		return fmt.Errorf("run initdb: %w:\n%s", p.Err(), last(out.String()))
	}
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // an empty folder
	}
	return os.Rename(fresh, data)
}

const superuser = "postgres"

// Ways of failing that may be over in a moment.
var (
	errPortTaken = errors.New("the port is taken")
	errOrphans   = errors.New("processes of a killed server are still ending")
)

// launch runs the server and waits until it answers.
func launch(ctx context.Context, a *account, o Options, data string) (*Server, error) {
	var err error
	if o.Port == 0 {
		if o.Port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	sockets, err := socketFolder(a, data)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // not secret
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the server has it
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	cmd := a.command(data, filepath.Join(o.Install.Bin, "postgres"), arguments(o, data, sockets)...)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, lastSignal)
	if err != nil {
		return nil, err
	}
	s := &Server{process: p, port: o.Port, data: data, sockets: sockets, log: o.LogFile, logStart: info.Size()}
	if err := s.awaitReady(ctx); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return nil, errors.Join(err, s.Stop(stop))
	}
	return s, nil
}

func arguments(o Options, data, sockets string) []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": sockets,
		"unix_socket_permissions": "0700",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	if o.NoSync {
		maps.Copy(settings, map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	}
	maps.Copy(settings, o.Settings)
	args := []string{"-D", data, "-p", strconv.Itoa(o.Port)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// socketFolder makes a folder for the Unix socket that only the account can enter. Its path is short, since that of a socket may
// have little more than a hundred bytes.
func socketFolder(a *account, data string) (string, error) {
	base := os.TempDir()
	if len(base) > 60 {
		base = "/tmp"
	}
	sum := sha256.Sum256([]byte(data))
	dir := filepath.Join(base, "weir-pg-"+hex.EncodeToString(sum[:6]))
	if err := os.RemoveAll(dir); err != nil { // a killed server has left it
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, a.own(dir)
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// awaitReady returns when this server, and no other on the same port, answers.
func (s *Server) awaitReady(ctx context.Context) error {
	for {
		data, err := ask(ctx, s.DSN(), `select current_setting('data_directory')`)
		if err == nil && !same(data, s.data) {
			err = fmt.Errorf("%w: another server, with data in %s, answers on port %d", errPortTaken, data, s.port)
		}
		select {
		case <-s.process.Done():
			return s.died()
		default:
		}
		if err == nil {
			return nil
		}
		if sleep(ctx, readyPoll) != nil {
			return fmt.Errorf("it does not answer: %w:\n%s", err, s.said())
		}
	}
}

func ask(ctx context.Context, dsn, query string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing hangs on it
	return answer, conn.QueryRow(ctx, query).Scan(&answer)
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func dsn(port int) string {
	u := url.URL{
		Scheme: "postgres", User: url.User(superuser), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/postgres",
		RawQuery: "sslmode=disable",
	}
	return u.String()
}
