// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/plugins/abi"
)

// rustGuard is plugins/examples/guard-rust, built by make plugins; the test needs no Rust.
func rustGuard(tb testing.TB) []byte {
	tb.Helper()
	wasm, err := os.ReadFile("testdata/guard-rust.wasm")
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

// assemblyGuard is plugins/examples/guard-as, built by make plugins; the test needs no Node.
func assemblyGuard(tb testing.TB) []byte {
	tb.Helper()
	wasm, err := os.ReadFile("testdata/guard-as.wasm")
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

var builtGo = struct {
	once sync.Once
	wasm []byte
	out  string
}{}

// goGuard builds plugins/examples/guard-go.
func goGuard(tb testing.TB) []byte {
	tb.Helper()
	root := repo.Root(tb)
	builtGo.once.Do(func() {
		file := filepath.Join(tb.TempDir(), "guard.wasm")
		c := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./plugins/examples/guard-go")
		c.Dir, c.Env = root, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		out, err := c.CombinedOutput()
		if err != nil {
			builtGo.out = err.Error() + "\n" + string(out)
			return
		}
		builtGo.wasm, err = os.ReadFile(file)
		if err != nil {
			builtGo.out = err.Error()
		}
	})
	if builtGo.wasm == nil {
		tb.Fatal(builtGo.out)
	}
	return builtGo.wasm
}

func prompt(text string) *abi.Exchange {
	x := request()
	x.Messages = []abi.Message{{Role: "system", Texts: []abi.Text{{ID: 0, Text: "You are terse."}}}, {Role: "user", Texts: []abi.Text{{ID: 1, Text: text}}}}
	return x
}

func TestPluginsOfTheSDKsDecide(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	for name, wasm := range map[string]func(testing.TB) []byte{"rust": rustGuard, "go": goGuard, "assemblyscript": assemblyGuard} {
		t.Run(name, func(t *testing.T) {
			p := load(t, h, wasm(t), func(s *Source) { s.Config = []byte("dragon\nunicorn\n") })
			if a := p.About(); !a.Request || a.Event || a.Obstacle != "" || a.Pristine == 0 {
				t.Errorf("about: %+v", a)
			}
			var fuel []int64
			for _, text := range []string{"a horse", "a unicorn", "a horse", "a unicorn"} {
				r := p.Request(t.Context(), prompt(text), Closed)
				if r.Failure != nil {
					t.Fatal(r.Failure)
				}
				want := &abi.Verdict{Tags: []abi.Tag{{Name: "prompt_bytes", Value: "21"}}}
				if strings.Contains(text, "unicorn") {
					want = &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 403, Code: "forbidden_word", Message: "This prompt has a word that is not allowed here."}}
				}
				if diff := cmp.Diff(want, r.Verdict); diff != "" {
					t.Error(diff)
				}
				fuel = append(fuel, r.Fuel)
			}
			if fuel[0] != fuel[2] || fuel[1] != fuel[3] {
				t.Errorf("fuel %v", fuel)
			}
		})
	}
}

func TestFuelIsTheSameInEachOfThousandsOfCalls(t *testing.T) {
	t.Parallel()
	x := prompt(strings.Repeat("All work and no play. ", 200))
	for name, wasm := range map[string]func(testing.TB) []byte{"rust": rustGuard, "go": goGuard, "assemblyscript": assemblyGuard} {
		var want int64
		for range 2 { // two hosts, as in two processes
			p := load(t, newHost(t, Options{}), wasm(t), func(s *Source) { s.Config = []byte("dragon") })
			for n := range 3000 {
				r := p.Request(t.Context(), x, Closed)
				if want == 0 {
					want = r.Fuel
				}
				if r.Failure != nil || r.Fuel != want {
					t.Fatalf("%s, call %d used %d, and the first %d; %v", name, n, r.Fuel, want, r.Failure)
				}
			}
		}
		t.Log(name, "uses "+strconv.FormatInt(want, 10))
	}
}

func BenchmarkRequest(b *testing.B) {
	x := prompt(strings.Repeat("All work and no play makes Jack a dull boy. ", 93)) // 4 KB
	for name, wasm := range map[string]func(testing.TB) []byte{"rust": rustGuard, "go": goGuard, "assemblyscript": assemblyGuard} {
		b.Run(name, func(b *testing.B) {
			p := load(b, newHost(b, Options{}), wasm(b), func(s *Source) { s.Config = []byte("dragon\nunicorn") })
			b.ReportAllocs()
			var r Result
			n, before := 0, cpu(b)
			for b.Loop() {
				r = p.Request(b.Context(), x, Closed)
				n++
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/op") // what a busy machine does not change
			if r.Failure != nil {
				b.Fatal(r.Failure)
			}
			b.ReportMetric(float64(r.Fuel), "fuel/op")
			b.ReportMetric(float64(p.About().Pristine)/(1<<10), "KiB-memory")
		})
	}
}

// cpu returns the time that processors have spent on this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRequestOfAnotherTenant makes a new instance for each call.
func BenchmarkRequestOfAnotherTenant(b *testing.B) {
	for name, wasm := range map[string]func(testing.TB) []byte{"rust": rustGuard, "go": goGuard, "assemblyscript": assemblyGuard} {
		b.Run(name, func(b *testing.B) {
			p := load(b, newHost(b, Options{}), wasm(b))
			x := prompt("hello")
			b.ReportAllocs()
			for b.Loop() {
				x.Caller.Tenant++
				if r := p.Request(b.Context(), x, Closed); r.Failure != nil {
					b.Fatal(r.Failure)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	for name, wasm := range map[string]func(testing.TB) []byte{"rust": rustGuard, "go": goGuard, "assemblyscript": assemblyGuard} {
		b.Run(name, func(b *testing.B) {
			h := newHost(b, Options{CacheDir: dir})
			w := wasm(b)
			for b.Loop() {
				p, err := h.Load(b.Context(), Source{Name: "bench", Wasm: w, Limits: patient()})
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
