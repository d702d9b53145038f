// SPDX-License-Identifier: Apache-2.0

// Package sdk_test runs the drivers of this directory, which use OpenAI's official packages for Python and Node, against the fake
// provider itself. It holds both to what they claim, so that a case that fails behind a gateway is the gateway's fault.
//
// Package sdks installs the packages that requirements.txt and node/package-lock.json pin.
package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/sdks"
)

// line is what a driver prints of a case.
type line struct {
	Case   string       `json:"case"`
	OK     bool         `json:"ok"`
	Status int          `json:"status"`
	Stream bool         `json:"stream"`
	Events int64        `json:"events"`
	Usage  *fake.Tokens `json:"usage"`
	Error  *string      `json:"error"`
}

func TestPythonPackageUnderstandsTheFakeProvider(t *testing.T) {
	t.Parallel()
	python, site := sdks.Python(t)
	drive(t, exec.CommandContext(t.Context(), python, "drive.py"), "PYTHONPATH="+site)
}

func TestNodePackageUnderstandsTheFakeProvider(t *testing.T) {
	t.Parallel()
	node, modules := sdks.Node(t)
	drive(t, exec.CommandContext(t.Context(), node, "node/drive.mjs"), "WEIR_NODE_MODULES="+modules)
}

// drive runs a driver against a provider of its own, and compares each line with the provider's ledger. A case makes one request
// and one after the other runs, so that line n is attempt n.
func drive(t *testing.T, cmd *exec.Cmd, env string) {
	t.Helper()
	p, url := provider(t)
	cmd.Env = append(os.Environ(), "WEIR_BASE_URL="+url+"/v1", "WEIR_KEY=sk-fake", "WEIR_NO_GATEWAY=1", env)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	var lines []line
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("decode %s: %v", s.Bytes(), err)
		}
		lines = append(lines, l)
	}
	attempts := settled(t, p)
	if len(attempts) != len(lines) || len(lines) < 30 {
		t.Fatalf("%d cases made %d requests", len(lines), len(attempts))
	}
	for i, l := range lines {
		check(t, l, attempts[i])
	}
}

// check compares what a package saw of a case with what the provider served.
func check(t *testing.T, l line, a fake.Attempt) {
	t.Helper()
	if !l.OK || l.Error != nil || l.Status != a.Status {
		t.Errorf("%s: status %d, served %d: %v", l.Case, l.Status, a.Status, l.Error)
	}
	want := fake.Complete
	switch {
	case l.Case == "cancel":
		want = fake.ClientClosed
	case l.Status >= 400:
		want = fake.Failed
	}
	if a.Outcome != want {
		t.Errorf("%s: outcome %s, want %s", l.Case, a.Outcome, want)
	}
	if l.Usage != nil && *l.Usage != a.Tokens {
		t.Errorf("%s: saw %+v, served %+v", l.Case, *l.Usage, a.Tokens)
	}
	if l.Stream && want == fake.Complete && l.Events != a.Events && l.Events != a.Events-1 { // [DONE] is no event to a package
		t.Errorf("%s: saw %d events, served %d", l.Case, l.Events, a.Events)
	}
}

// provider serves a fake provider with known models until the test ends.
func provider(t *testing.T) (p *fake.Provider, url string) {
	t.Helper()
	p = fake.New(fake.Options{
		Credentials: map[string]string{"sk-fake": "fake"},
		Models:      []string{"gpt-4o-mini", "o3-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small"},
	})
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, "http://" + ln.Addr().String()
}

// settled polls until no request is open, and returns all.
func settled(t *testing.T, p *fake.Provider) []fake.Attempt {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for p.Ledger().Totals().Open > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("requests are still open: %+v", p.Ledger().Totals())
		}
	}
	return p.Ledger().Attempts("")
}
