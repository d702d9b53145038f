// SPDX-License-Identifier: Apache-2.0

// Package rig runs a whole gateway for tests: the weir program as its own process, a real Envoy, a real Postgres, and as many fake
// providers as a test wants. Everything is on 127.0.0.1 and gone with the test.
package rig

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/child"
	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/store"
)

const (
	kill = syscall.SIGKILL
	term = syscall.SIGTERM
)

// AdminToken is the admin token of every rig.
const AdminToken = app.DevAdminToken

// Options say how a rig differs from the usual.
type Options struct {
	// Production runs the processor as "weir serve" with a configuration file, to which Config is appended; otherwise it runs as
	// "weir dev" runs it, which lets x-fake-* headers through to the providers.
	Production bool
	Config     string
	Gateway    string // with Production: further keys of the section gateway, as in "proxy_protocol: true"
	Drain      string // with Production: processor.drain; empty means its default
	Wait       string // with Production: processor.wait; empty means 1s: the machine may stand still for other reasons than its requests
	LogDir     string // with Production: where Envoy's access log goes; empty means below the state
	Envoy      string // with Production: further keys of the section envoy, as in "ca_file: ca.pem"
	Remote     bool   // with Production: Envoy reaches the processor by TCP and sends its lines, as if it were on another machine
	// Peers, with Remote, is how Envoy and the processor prove to each other who they are; the zero value: not at all.
	Peers Peers
	// Serve, with Production, is a program that does what "weir serve" does, and its first arguments; nil means weir itself.
	Serve []string

	Dir string // an existing folder for the state, which stays; empty means one that goes with the test
	DSN string // an empty database; empty means one of the server that the tests share

	EnvoyDrain  time.Duration // how long Envoy's exchanges may go on when it is stopped
	EnvoyLimits envoy.Limits
	Tap         envoy.Tap // what Envoys are given; empty means the native tap where it can be had
}

// Peers is mutual TLS between Envoy and the processor.
type Peers struct {
	Cert, Key, ClientCA string // of the processor
	Envoy               envoy.ProcessorTLS
}

// Rig is a running gateway without channels or keys.
type Rig struct {
	URL        string // of the gateway, without /v1
	AdminURL   string
	EnvoyAdmin string // host:port
	Dir        string
	LogDir     string    // Envoy's access log is there
	Tap        envoy.Tap // what the Envoy that was started last has
	DSN        string
	Store      *store.Store // on the gateway's database

	t         testing.TB
	o         Options
	port      int
	binary    string
	processor *child.Process
	stopEnvoy func()
	envoyPID  int
}

// Start runs a gateway and waits until Envoy has its configuration.
func Start(t testing.TB, o Options) *Rig {
	t.Helper()
	port := freePorts(t)
	r := &Rig{t: t, o: o, port: port, binary: Binary(t), DSN: o.DSN, Dir: o.Dir}
	if r.DSN == "" {
		r.DSN = pgtest.Database(t)
	}
	if r.Dir == "" {
		r.Dir = shortDir(t)
	}
	r.URL = "http://" + addr(port)
	r.AdminURL = "http://" + addr(port+1)
	r.EnvoyAdmin = addr(port + 2)
	r.LogDir = filepath.Join(r.Dir, "log")
	if err := os.MkdirAll(r.LogDir, 0o755); err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("k", 32)
	if err := os.WriteFile(filepath.Join(r.Dir, "secret.key"), []byte(encode(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), r.DSN, store.Options{SecretKey: []byte(key), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	r.Store = s
	t.Cleanup(s.Close)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.dump)
	r.writeConfig()
	r.StartProcessor()
	t.Cleanup(func() { r.processor.Stop(term, 15*time.Second) })
	r.StartEnvoy()
	t.Cleanup(func() { r.stopEnvoy() })
	return r
}

// StartProcessor runs the processor and waits until it answers. Start has done so; call it again after [Rig.KillProcessor].
func (r *Rig) StartProcessor() {
	r.t.Helper()
	if _, err := r.LaunchProcessor(); err != nil {
		r.t.Fatal(err)
	}
	r.Eventually("the processor answers", func() error {
		resp, err := http.Get(r.AdminURL + "/livez")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// LaunchProcessor runs the processor and does not wait for it. It is for tests that keep a processor running whatever befalls it: call
// it from one goroutine at a time, and not while another processor runs.
func (r *Rig) LaunchProcessor() (*child.Process, error) {
	cmd := exec.Command(r.binary, app.DevProcessorCommand, r.Dir, strconv.Itoa(r.port))
	if r.o.Production {
		program := []string{r.binary}
		if r.o.Serve != nil {
			program = r.o.Serve
		}
		cmd = exec.Command(program[0], append(slices.Clone(program[1:]), "serve", "--config", r.configFile())...)
	}
	cmd.Env = append(os.Environ(), "DATABASE_URL="+r.DSN, "WEIR_ADMIN_TOKEN="+AdminToken,
		"WEIR_SECRET_KEY_FILE="+filepath.Join(r.Dir, "secret.key"))
	log, err := r.logFile("processor.log")
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the processor has it
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	r.processor = p
	return p, nil
}

// KillProcessor ends the processor by SIGKILL.
func (r *Rig) KillProcessor() { r.processor.Stop(kill, time.Second) }

// StopProcessor ends the processor by SIGTERM, as an operator does.
func (r *Rig) StopProcessor() { r.processor.Stop(term, 15*time.Second) }

// Processor returns the processor that was started last.
func (r *Rig) Processor() *child.Process { return r.processor }

// ProcessorPID returns the processor's process id.
func (r *Rig) ProcessorPID() int { return r.processor.PID() }

// EnvoyPID returns Envoy's process id.
func (r *Rig) EnvoyPID() int { return r.envoyPID }

func (r *Rig) configFile() string { return filepath.Join(r.Dir, "weir.yaml") }

func (r *Rig) writeConfig() {
	r.t.Helper()
	listen := ""
	if r.o.Remote {
		listen = r.far()
	}
	peers := r.o.Peers
	text := fmt.Sprintf("state_dir: %s\ngateway: {listen: %q, %s}\nprocessor: {listen: %q, drain: %s, wait: %s, tls: {cert: %q, key: %q, client_ca: %q}}\nadmin: {listen: %q}\nenvoy: {admin: %q, log_dir: %q, %s}\n%s",
		r.Dir, addr(r.port), r.o.Gateway, listen, cmp.Or(r.o.Drain, "1s"), cmp.Or(r.o.Wait, "1s"), peers.Cert, peers.Key, peers.ClientCA, addr(r.port+1), r.EnvoyAdmin, r.o.LogDir, r.o.Envoy, r.o.Config)
	if err := os.WriteFile(r.configFile(), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// far is where the processor listens for Envoys on other machines. Only weir dev has another use for the port.
func (r *Rig) far() string { return addr(r.port + 4) }

// StartEnvoy runs Envoy and waits until it serves. Start has done so; call it again after [Rig.KillEnvoy].
func (r *Rig) StartEnvoy() {
	r.t.Helper()
	r.LaunchEnvoy()
	r.Eventually("envoy is ready", func() error { return envoy.Ready(r.t.Context(), r.EnvoyAdmin) })
}

// KillEnvoy ends Envoy by SIGKILL.
func (r *Rig) KillEnvoy() {
	_ = syscall.Kill(r.envoyPID, kill) // it may have ended by itself
	r.stopEnvoy()
}

// StopEnvoy ends Envoy as SIGTERM to weir envoy does, and returns when it has ended.
func (r *Rig) StopEnvoy() { r.stopEnvoy() }

// LaunchEnvoy runs Envoy and does not wait until it serves.
func (r *Rig) LaunchEnvoy() {
	r.t.Helper()
	r.stopEnvoy, r.envoyPID = r.runEnvoy(envoy.BootstrapOptions{Admin: r.EnvoyAdmin})
}

// StartSecondEnvoy runs another Envoy with a name of its own on the same port, and waits until it serves. It ends with stop, or with the test.
func (r *Rig) StartSecondEnvoy(node string) (stop func()) {
	r.t.Helper()
	admin := addr(r.port + 3) // only weir dev has another use for the port
	stop, _ = r.runEnvoy(envoy.BootstrapOptions{Admin: admin, Node: node})
	r.t.Cleanup(stop)
	r.Eventually("the second envoy is ready", func() error { return envoy.Ready(r.t.Context(), admin) })
	return stop
}

// LaunchStranger runs another Envoy that shows who it is by tls alone, and does not wait for it. It ends with the test.
func (r *Rig) LaunchStranger(node string, tls envoy.ProcessorTLS) (admin string) {
	r.t.Helper()
	admin = addr(r.port + 3) // only weir dev has another use for the port
	stop, _ := r.runEnvoy(envoy.BootstrapOptions{Admin: admin, Node: node, TLS: tls})
	r.t.Cleanup(stop)
	return admin
}

// Far is where the processor listens for Envoys on other machines, with Remote.
func (r *Rig) Far() string { return r.far() }

// runEnvoy fills in what all Envoys of the rig have in common, and returns once Envoy runs.
func (r *Rig) runEnvoy(o envoy.BootstrapOptions) (stop func(), pid int) {
	r.t.Helper()
	binary, err := envoy.Find(r.t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	o.Socket, o.Limits = filepath.Join(r.Dir, "weir.sock"), r.o.EnvoyLimits
	o.Limits.SharePath = envoy.SharePath(o.Socket)
	if r.o.Remote {
		o.Processor, o.AccessLog = r.far(), envoy.AccessLogGRPC
	}
	r.Tap = envoy.TapLua
	if r.o.Tap != envoy.TapLua {
		if o.TapModule, err = envoy.WriteTap(r.t.Context(), binary, r.Dir); err == nil {
			r.Tap = envoy.TapNative
		} else if r.o.Tap == envoy.TapNative && os.Getenv("WEIR_REQUIRE_ALL") == "1" {
			r.t.Fatal(err)
		} else if r.o.Tap == envoy.TapNative {
			r.t.Skipf("SKIP: no native tap: %v", err)
		}
	}
	if o.TLS == (envoy.ProcessorTLS{}) {
		o.TLS = r.o.Peers.Envoy
	}
	if o.TLS, err = o.TLS.Watch(r.envoyDir(o.Node)); err != nil {
		r.t.Fatal(err)
	}
	boot, err := envoy.Bootstrap(o)
	if err != nil {
		r.t.Fatal(err)
	}
	log, err := r.logFile("envoy.log")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	started := make(chan int, 1)
	go func() {
		defer log.Close() //nolint:errcheck // envoy has it
		done <- envoy.Run(ctx, envoy.RunOptions{
			Binary: binary, Bootstrap: boot, Dir: r.Dir, Node: o.Node, Admin: o.Admin, Concurrency: 2, Log: log, Drain: r.o.EnvoyDrain,
			Started: func(pid int) { started <- pid },
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done //nolint:errcheck // it was told to end, or killed
	})
	select {
	case pid = <-started:
	case err := <-done:
		r.t.Fatal(err)
	}
	return stop, pid
}

// envoyDir is a folder that is an Envoy's own.
func (r *Rig) envoyDir(node string) string {
	dir := filepath.Join(r.Dir, "envoy-"+cmp.Or(node, envoy.NodeID))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

// Eventually waits until f returns nil. It fails the test with f's last error after half a minute.
func (r *Rig) Eventually(what string, f func() error) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not in time: %v", what, err)
		}
		<-tick.C
	}
}

// dump shows the logs of a test that failed.
func (r *Rig) dump() {
	if !r.t.Failed() {
		return
	}
	for _, name := range []string{"processor.log", "envoy.log"} {
		b, _ := os.ReadFile(filepath.Join(r.Dir, name)) // nothing to show is nothing to show
		if len(b) > 4000 {
			b = b[len(b)-4000:]
		}
		r.t.Logf("%s:\n%s", name, b)
	}
}

func (r *Rig) logFile(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(r.Dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func encode(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }

// shortDir is a temporary folder whose name leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-rig-") //nolint:usetesting // the name of t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// ports hands out the bases of five ports in a row, each base once per test binary.
var ports struct {
	sync.Mutex
	next int
}

// freePorts finds five ports in a row that nobody listens on. They lie below those that the system gives to outgoing connections.
func freePorts(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = 15000 + os.Getpid()%1000*10
	}
	for range 1000 {
		base := ports.next
		ports.next += 5
		if ports.next > 30000 {
			ports.next = 15000
		}
		if allFree(base) {
			return base
		}
	}
	t.Fatal("no five free ports in a row")
	return 0
}

func allFree(base int) bool {
	for i := range 5 {
		l, err := net.Listen("tcp", addr(base+i))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// built is the weir program, built once for a test binary.
var built struct {
	sync.Once
	path string
	err  error
}

// Binary returns the path of a weir program built from this checkout.
func Binary(t testing.TB) string {
	t.Helper()
	root := repo.Root(t)
	built.Do(func() {
		built.path = filepath.Join(root, ".weir", "test", "weir")
		out, err := exec.Command("go", "build", "-C", root, "-buildvcs=false", "-o", built.path, "./cmd/weir").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build weir: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}
