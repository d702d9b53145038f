// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/repo"
)

const (
	envParent = "WEIR_TEST_POSTGRES_PARENT" // a data folder: be the parent of a server on it until killed
	envBin    = "WEIR_TEST_POSTGRES_BIN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envParent); dir != "" {
		if err := parent(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// parent starts a server, says its pid and address, and waits for its standard input to end.
func parent(dir string) error {
	ctx := context.Background()
	i, err := inspect(ctx, os.Getenv(envBin))
	if err != nil {
		return err
	}
	s, err := Start(ctx, Options{Install: i, Dir: dir, NoSync: true})
	if err != nil {
		return err
	}
	who, err := ask(ctx, s.DSN(), `select current_setting('data_directory')`)
	if err != nil {
		return err
	}
	fmt.Println(s.Pid(), s.DSN(), who)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Stop(ctx)
}

func find(t *testing.T) Install {
	t.Helper()
	i, err := Find(t.Context(), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// base returns a folder for data that any user can enter.
func base(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-postgres-test-") //nolint:usetesting // t.TempDir has parents that only this user can enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustStop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func mustAsk(t *testing.T, s *Server, query string) string {
	t.Helper()
	answer, err := ask(t.Context(), s.DSN(), query)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func mustExec(t *testing.T, s *Server, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // test
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRestartKeepsData(t *testing.T) {
	o := Options{Install: find(t), Dir: base(t), NoSync: true, Settings: map[string]string{"max_connections": "17"}}
	s := mustStart(t, o)
	mustExec(t, s, `create table note as select 'kept' as text`)
	for setting, want := range map[string]string{
		"max_connections": "17", "server_encoding": "UTF8", "lc_collate": "C", "fsync": "off", "listen_addresses": "127.0.0.1", "port": strconv.Itoa(s.Port()),
	} {
		query := fmt.Sprintf(`select current_setting('%s')`, setting)
		if setting == "lc_collate" {
			query = `select datcollate from pg_database where datname = current_database()`
		}
		if got := mustAsk(t, s, query); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.SocketDir(), ".s.PGSQL."+strconv.Itoa(s.Port()))); err != nil {
		t.Errorf("socket: %v", err)
	}
	mustStop(t, s)
	mustStop(t, s) // again is fine
	if err := s.Wait(t.Context()); err != nil {
		t.Errorf("wait after a stop = %v", err)
	}
	if _, err := os.Stat(s.SocketDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket folder after a stop: %v", err)
	}
	s = mustStart(t, o)
	if got := mustAsk(t, s, `select text from note`); got != "kept" {
		t.Errorf("note = %q", got)
	}
	if log, err := os.ReadFile(filepath.Join(o.Dir, "postgres.log")); err != nil || strings.Count(string(log), "ready to accept connections") != 2 {
		t.Errorf("log: %v\n%s", err, log)
	}
}

func TestStartSurvivesAKilledServer(t *testing.T) {
	o := Options{Install: find(t), Dir: base(t), NoSync: true}
	s := mustStart(t, o)
	mustExec(t, s, `create table note as select 'kept' as text`, `checkpoint`)
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("wait after a kill = %v", err)
	}
	s = mustStart(t, o)
	if got := mustAsk(t, s, `select text from note`); got != "kept" {
		t.Errorf("note = %q", got)
	}
}

func TestStartIgnoresALockFileWhoseProcessIsAnother(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux says what another process does")
		return
	}
	o := Options{Install: find(t), Dir: base(t), NoSync: true}
	s := mustStart(t, o)
	mustStop(t, s)
	lock := filepath.Join(s.Dir(), "postmaster.pid")
	for name, text := range map[string]string{"reused": strconv.Itoa(os.Getpid()) + "\n" + s.Dir() + "\n", "torn": ""} {
		if err := os.WriteFile(lock, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Start(t.Context(), o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mustStop(t, s)
	}
}

func TestTwoStartsOnOneFolder(t *testing.T) {
	o := Options{Install: find(t), Dir: base(t), NoSync: true}
	mustStart(t, o)
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second start = %v, want an error that says it runs already", err)
	}
}

func TestStartRefuses(t *testing.T) {
	i := find(t)
	other := base(t)
	if err := os.Mkdir(filepath.Join(other, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "data", "PG_VERSION"), []byte("9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	foreign := base(t)
	if err := os.MkdirAll(filepath.Join(foreign, "data", "letters"), 0o755); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // test
	tests := map[string]struct {
		o    Options
		says string
	}{
		"no installation":  {Options{Dir: base(t)}, "use Find"},
		"other major":      {Options{Install: i, Dir: other}, "install Postgres 9"},
		"foreign folder":   {Options{Install: i, Dir: foreign}, "not a Postgres database"},
		"port taken":       {Options{Install: i, Dir: base(t), NoSync: true, Port: taken.Addr().(*net.TCPAddr).Port}, "the port is taken"},
		"port wrong":       {Options{Install: i, Dir: base(t), Port: 70000}, "port 70000"},
		"setting wrong":    {Options{Install: i, Dir: base(t), NoSync: true, Settings: map[string]string{"wonder": "yes"}}, "wonder"},
		"file, not folder": {Options{Install: i, Dir: filepath.Join(other, "data", "PG_VERSION")}, "not a directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := Start(t.Context(), tt.o)
			if err == nil {
				mustStop(t, s)
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v, want one that says %q", err, tt.says)
			}
		})
	}
}

func TestStopKillsAServerThatDoesNotEnd(t *testing.T) {
	o := Options{Install: find(t), Dir: base(t), NoSync: true}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.Pid(), syscall.SIGSTOP); err != nil { // it cannot hear SIGINT
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stop = %v, want one that says it was killed", err)
	}
	select {
	case <-s.process.Done():
	default:
		t.Error("it has not ended")
	}
	mustStop(t, mustStart(t, o)) // and its folder is usable
}

// program returns a copy of this test binary that any user can run.
func program(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(base(t), "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// starter runs this test binary as the parent of a server. Its standard input ends with the returned function.
func starter(t *testing.T, a *account, dir string, i Install) (cmd *exec.Cmd, said []string, end func()) {
	t.Helper()
	exe := program(t)
	cmd = exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), envParent+"="+dir, envBin+"="+i.Bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	said = strings.Fields(line)
	if err != nil || len(said) != 3 {
		t.Fatalf("the parent said %q, %v", line, err)
	}
	return cmd, said, func() { in.Close() } //nolint:errcheck,gosec // test
}

func TestServerEndsWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux tells a child of its parent's death")
		return
	}
	i, dir := find(t), base(t)
	cmd, said, _ := starter(t, nil, dir, i)
	// A client that stays must not keep the server: this is what tells a fast shutdown from a smart one.
	client, err := pgx.Connect(t.Context(), said[1])
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context()) //nolint:errcheck // test
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mustStart(t, Options{Install: i, Dir: dir, NoSync: true}) // waits for the old one to end
	pid, err := strconv.Atoi(said[0])
	if err != nil {
		t.Fatal(err)
	}
	if running, err := serves(pid, filepath.Join(dir, "data")); err != nil || running {
		t.Errorf("old server runs = %t, %v", running, err)
	}
}
