// SPDX-License-Identifier: Apache-2.0

package child

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play a parent that is killed: it starts a child, says its pid and waits.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_TEST_PARENT") != "" {
		p, err := Start(exec.Command("sleep", "600"), syscall.SIGTERM)
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(strconv.Itoa(p.PID()) + "\n") //nolint:errcheck // who reads it notices
		<-p.Done()
		return
	}
	os.Exit(m.Run())
}

func TestChildEndsWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux tells a child of its parent's death")
		return
	}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "WEIR_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("child %d outlived its parent", pid)
		}
		runtime.Gosched()
	}
}

// alive says whether a process runs; one that has ended and waits to be reaped does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p, err := Start(exec.Command("sh", "-c", "trap '' TERM; while :; do sleep 1; done"), syscall.SIGTERM)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(syscall.SIGTERM, 100*time.Millisecond)
	if p.Err() == nil {
		t.Error("got exit status 0, want a kill")
	}
}

func TestStartSaysWhyItCannot(t *testing.T) {
	if _, err := Start(exec.Command("/nonexistent"), syscall.SIGTERM); err == nil {
		t.Error("got no error")
	}
}
