// SPDX-License-Identifier: Apache-2.0

package pgtest_test

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
)

func TestDatabasesAreApart(t *testing.T) {
	one, two := pgtest.Database(t), pgtest.Database(t)
	if one == two {
		t.Fatalf("both are %s", one)
	}
	for _, dsn := range []string{one, two} {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `create table same (id int)`); err != nil {
			t.Error(err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	var dsn string
	t.Run("inner", func(t *testing.T) { dsn = pgtest.Database(t) })
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		t.Errorf("still there: %v", conn.Close(t.Context()))
	}
}

// TestServerIsGoneWithItsBinary runs this test binary again, as a process that says where its server is and is then killed.
func TestServerIsGoneWithItsBinary(t *testing.T) {
	const env = "WEIR_TEST_PGTEST_CHILD"
	if os.Getenv(env) != "" {
		conn, err := pgx.Connect(t.Context(), pgtest.Server(t))
		if err != nil {
			t.Fatal(err)
		}
		var dir string
		if err := conn.QueryRow(t.Context(), `show data_directory`).Scan(&dir); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(dir + "\n") //nolint:errcheck // who reads it notices
		select {}
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestServerIsGoneWithItsBinary$")
	child.Env = append(os.Environ(), env+"=1", pgtest.EnvURL+"=")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if killed := child.Process.Kill(); err != nil || killed != nil {
		t.Fatal(err, killed)
	}
	_ = child.Wait()
	dir := line[:len(line)-1]
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dir)
		}
		<-tick.C
	}
}
