// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeProcfs writes files below a folder that then passes for /proc.
func fakeProcfs(t *testing.T, files map[string]string) procfs {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return procfs(dir)
}

// statLine is a line of /proc/<pid>/stat with the given parent and times in ticks.
func statLine(name, parent, times string) string {
	return "7 (" + name + ") S " + parent + " 7 7 0 -1 4194560 1 2 3 4 " + times + " 20 0 1 0 100 200 300\n"
}

func TestStatSurvivesAnyProcessName(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte(statLine("a) R 1 (b", "3", "100 20 5 1")))
	want := processStat{parent: 3, self: 1200 * time.Millisecond, reaped: 60 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestStatRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "7 (a) S 1 2 3", statLine("a", "x", "1 2 3 4"), statLine("a", "1", "1 y 3 4")} {
		if got, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%q: got %+v, want an error", line, got)
		}
	}
}

func TestCPUIsExactByThreads(t *testing.T) {
	t.Parallel()
	p := fakeProcfs(t, map[string]string{
		"7/stat":             statLine("envoy", "1", "10 5 0 0"),
		"7/task/7/schedstat": "100000001 5 1\n",
		"7/task/8/schedstat": "50000002 5 1\n",
	})
	got, err := p.cpu(7)
	if err != nil {
		t.Fatal(err)
	}
	want := usedCPU{threads: map[string]time.Duration{"7": 100000001, "8": 50000002}, total: 150 * time.Millisecond}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(usedCPU{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCPUSince(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	tests := map[string]struct {
		before, after usedCPU
		want          time.Duration
	}{
		"threads are finer than ticks": {
			usedCPU{threads: map[string]time.Duration{"1": 3 * ms}, total: 0},
			usedCPU{threads: map[string]time.Duration{"1": 8 * ms}, total: 0},
			5 * ms,
		},
		"a new thread counts whole": {
			usedCPU{threads: map[string]time.Duration{"1": 3 * ms}},
			usedCPU{threads: map[string]time.Duration{"1": 3 * ms, "2": 4 * ms}},
			4 * ms,
		},
		"a thread that ended is in the total": {
			usedCPU{threads: map[string]time.Duration{"1": 0, "2": 100 * ms}, total: 100 * ms},
			usedCPU{threads: map[string]time.Duration{"1": 50 * ms}, total: 400 * ms},
			300 * ms,
		},
		"no thread clocks": {usedCPU{total: 10 * ms}, usedCPU{total: 40 * ms}, 30 * ms},
	}
	for name, test := range tests {
		if got := test.after.since(test.before); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestFamilyCountsChildrenAndNobodyElse(t *testing.T) {
	t.Parallel()
	p := fakeProcfs(t, map[string]string{
		"1/stat":  statLine("init", "0", "9 9 9 9"),
		"7/stat":  statLine("postgres", "1", "10 0 3 0"),
		"8/stat":  statLine("postgres: checkpointer", "7", "20 0 0 0"),
		"9/stat":  statLine("other", "1", "70 0 0 0"),
		"uptime":  "1 2\n",
		"10/stat": "torn",
	})
	got, err := p.family(7)
	if err != nil {
		t.Fatal(err)
	}
	want := familyCPU{7: {total: 100 * time.Millisecond, reaped: 30 * time.Millisecond}, 8: {total: 200 * time.Millisecond}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(usedCPU{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFamilyKeepsWhatAnEndedChildUsed(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	before := familyCPU{7: {total: 100 * ms, reaped: 50 * ms}, 8: {total: 200 * ms}}
	after := familyCPU{7: {total: 110 * ms, reaped: 290 * ms}, 9: {total: 30 * ms}}
	// Process 8 ended with 240 ms, 200 ms of them before; 9 is new.
	if got, want := after.since(before), 80*ms; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMemoryIsInBytes(t *testing.T) {
	t.Parallel()
	p := fakeProcfs(t, map[string]string{
		"7/status": "Name:\tenvoy\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "7/clear_refs": "", "8/status": "Name:\tkthread\n",
	})
	peak, err := p.peakRSS(7)
	if err != nil || peak != 2<<20 {
		t.Errorf("peak: got %d, %v; want %d", peak, err, 2<<20)
	}
	now, err := p.rss(7)
	if err != nil || now != 1<<20 {
		t.Errorf("now: got %d, %v; want %d", now, err, 1<<20)
	}
	if _, err := p.peakRSS(8); err == nil || !strings.Contains(err.Error(), "VmHWM") {
		t.Errorf("a status without memory: got error %v, want one that names VmHWM", err)
	}
	if !p.resetPeak(7) || p.resetPeak(8) {
		t.Error("resetPeak: want true for process 7 and false for process 8")
	}
}

func TestOwnProcessIsReadable(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		if os.Getenv("WEIR_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip("SKIP: no /proc on this system")
	}
	family, err := proc.family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if family[os.Getpid()].since(usedCPU{}) <= 0 {
		t.Error("this process has used no CPU")
	}
	if peak, err := proc.peakRSS(os.Getpid()); err != nil || peak < 1<<20 {
		t.Errorf("peak: got %d, %v", peak, err)
	}
}
