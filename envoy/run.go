// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/internal/child"
)

// RunOptions says how to run one Envoy.
type RunOptions struct {
	Binary      string
	Bootstrap   []byte        // from [Bootstrap]
	Dir         string        // the bootstrap is written here
	Node        string        // the name in the bootstrap; empty means NodeID
	Admin       string        // host:port of the admin interface, as in the bootstrap
	AccessLog   AccessLog     // as in the bootstrap
	Concurrency int           // worker threads; zero is one per CPU
	Notice      time.Duration // how long connections are still taken after ctx has ended, while who sends them finds out
	Drain       time.Duration // how long exchanges in flight may go on after that; zero cuts them
	Log         io.Writer     // Envoy's own log
	Started     func(pid int) // called once Envoy runs, before it is ready; may be nil
}

// LogFlush is how long a line of the access log may wait in Envoy's memory until it is in the file: what a killed Envoy can lose at most.
const LogFlush = 100 * time.Millisecond

// Run runs Envoy until ctx ends or Envoy does. When ctx ends, Envoy says on its admin interface that it is not ready and closes clients' connections
// with their next answer; after Notice it takes no more, exchanges in flight go on for at most Drain, and Run returns nil. An Envoy that
// ends by itself is an error.
func Run(ctx context.Context, o RunOptions) error {
	file := filepath.Join(o.Dir, "envoy.json")
	if o.Node != "" && o.Node != NodeID {
		file = filepath.Join(o.Dir, "envoy-"+o.Node+".json")
	}
	if err := os.WriteFile(file, o.Bootstrap, 0o600); err != nil {
		return fmt.Errorf("write bootstrap: %w", err)
	}
	args := []string{
		"-c", file, "--disable-hot-restart", "--log-level", "warning",
		"--file-flush-interval-msec", strconv.FormatInt(LogFlush.Milliseconds(), 10),
		// Of a listener that is replaced: its connections are closed with their next answer, and after this time in any case.
		"--drain-time-s", strconv.Itoa(max(1, int(o.Drain.Seconds()))), "--drain-strategy", "immediate",
	}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	cmd := exec.Command(o.Binary, args...)
	cmd.Stdout, cmd.Stderr = o.Log, o.Log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("start envoy: %w", err)
	}
	if o.Started != nil {
		o.Started(p.PID())
	}
	select {
	case <-p.Done():
		return fmt.Errorf("envoy ended by itself: %w", cmp.Or(p.Err(), errors.New("exit status 0")))
	case <-ctx.Done():
	}
	if o.Drain > 0 {
		drain(context.WithoutCancel(ctx), o, p)
	}
	p.Stop(syscall.SIGTERM, stopTimeout)
	return nil
}

// stopTimeout is how long an Envoy with nothing to do may take to end.
const stopTimeout = 5 * time.Second

// lastLines is how long an Envoy that sends its lines may take to have sent the last ones. A file it flushes when it ends.
const lastLines = sendEvery + sendEvery/2

// drain stops what comes in and waits until no exchange is in flight and all is said of those that were, or the limit has passed, or Envoy has
// ended. Envoy's own graceful draining of listeners is not what it sounds like: it goes on taking connections for the whole time.
func drain(ctx context.Context, o RunOptions, p *child.Process) {
	ctx, cancel := context.WithTimeout(ctx, o.Notice+o.Drain)
	defer cancel()
	if err := post(ctx, o.Admin, "/healthcheck/fail"); err != nil {
		return
	}
	wait := func(until <-chan time.Time) (ended bool) {
		select {
		case <-ctx.Done():
			return true
		case <-p.Done():
			return true
		case <-until:
			return false
		}
	}
	if o.Notice > 0 && wait(time.After(o.Notice)) {
		return
	}
	if err := post(ctx, o.Admin, "/drain_listeners"); err != nil {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := Active(ctx, o.Admin)
		if err != nil {
			return
		}
		if n == 0 {
			if o.AccessLog == AccessLogGRPC {
				wait(time.After(lastLines))
			}
			return
		}
		if wait(tick.C) {
			return
		}
	}
}

// Active asks how many exchanges are in flight.
func Active(ctx context.Context, admin string) (int, error) {
	body, err := get(ctx, admin, "/stats?filter=^http.weir.downstream_rq_active$")
	if err != nil {
		return 0, err
	}
	_, value, _ := strings.Cut(body, ":")
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil {
		return 0, fmt.Errorf("active exchanges: %w", err)
	}
	return n, nil
}

// Ready asks whether Envoy has its whole configuration and serves. The error says what it is doing instead.
func Ready(ctx context.Context, admin string) error {
	body, err := get(ctx, admin, "/ready")
	if err != nil {
		return err
	}
	if s := strings.TrimSpace(body); s != "LIVE" {
		return fmt.Errorf("envoy is %s", s)
	}
	body, err = get(ctx, admin, "/stats?filter=^listener_manager.total_listeners_active$")
	if err != nil {
		return err
	}
	if _, n, _ := strings.Cut(body, ":"); strings.TrimSpace(n) == "0" {
		return errors.New("envoy has no listener yet")
	}
	return nil
}

// get asks for what answers with any status: the body of /ready says the state.
func get(ctx context.Context, admin, path string) (string, error) {
	_, body, err := call(ctx, http.MethodGet, admin, path)
	return body, err
}

// post asks for what has happened only if the status is 200.
func post(ctx context.Context, admin, path string) error {
	status, body, err := call(ctx, http.MethodPost, admin, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("ask envoy: %s: status %d: %.100s", path, status, body)
	}
	return err
}

// call speaks to Envoy's admin interface. Answers are short.
func call(ctx context.Context, method, admin, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", fmt.Errorf("ask envoy: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is read
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return 0, "", fmt.Errorf("ask envoy: %w", err)
	}
	return resp.StatusCode, string(b), nil
}
