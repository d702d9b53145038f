// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/sdks"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// The cases are in the drivers of test/e2e/sdk.

func TestOpenAIsPackageForPythonWorksThroughTheGateway(t *testing.T) {
	t.Parallel()
	python, site := sdks.Python(t)
	driveGateway(t, exec.CommandContext(t.Context(), python, "drive.py"), "PYTHONPATH="+site)
}

func TestOpenAIsPackageForNodeWorksThroughTheGateway(t *testing.T) {
	t.Parallel()
	node, modules := sdks.Node(t)
	driveGateway(t, exec.CommandContext(t.Context(), node, "node/drive.mjs"), "WEIR_NODE_MODULES="+modules)
}

// driven is what a driver prints of a case.
type driven struct {
	Case     string       `json:"case"`
	OK       bool         `json:"ok"`
	Error    *string      `json:"error"`
	Exchange string       `json:"exchange_id"`
	Status   int          `json:"status"`
	Stream   bool         `json:"stream"`
	Usage    *fake.Tokens `json:"usage"`
}

// driveGateway runs a driver and compares, for each of its cases, what the package saw, the row and the provider's ledger.
func driveGateway(t *testing.T, cmd *exec.Cmd, env string) {
	t.Helper()
	w := newWorld(t, rig.Options{})
	limited, _ := w.Key(store.NewKey{Name: "limited", Models: []string{"text-*"}})
	spent := w.spent(t)
	cmd.Dir = filepath.Join(repo.Root(t), "test", "e2e", "sdk")
	cmd.Env = append(os.Environ(), "WEIR_BASE_URL="+w.URL+"/v1", "WEIR_KEY="+w.key, "WEIR_KEY_LIMITED="+limited, "WEIR_KEY_SPENT="+spent, env)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %s", err, &stderr)
	}
	admitted, cases := 1, map[string]bool{} // the one that has spent a limit
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var c driven
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatalf("decode %s: %v", s.Bytes(), err)
		}
		cases[c.Case] = true
		if !c.OK {
			t.Errorf("%s: %s", c.Case, *c.Error)
			continue
		}
		if len(w.provider.Ledger().Attempts(c.Exchange)) == 0 {
			continue // refused, or answered by the gateway itself
		}
		admitted++
		checkDriven(t, w, c)
	}
	for _, name := range []string{"chat", "tools", "embeddings", "cancel", "error_401", "error_403", "error_404", "error_429_limit", "error_429", "error_400"} {
		if !cases[name] {
			t.Errorf("the driver has not run %s", name)
		}
	}
	w.Rows(admitted)
}

// spent returns a key that may make one request a minute, and has made it.
func (w *world) spent(t *testing.T) string {
	t.Helper()
	secret, k := w.Key(store.NewKey{Name: "spent"})
	if _, err := w.Store.SetRateLimit(t.Context(), store.LimitScope{Key: k.Name}, store.RatesChange{Requests: new(int64(1))}); err != nil {
		t.Fatal(err)
	}
	w.Settle()
	if a := w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer "+secret); a.status != 200 {
		t.Errorf("the one request of a minute: status %d: %s", a.status, a.body)
	}
	return secret
}

func checkDriven(t *testing.T, w *world, c driven) {
	t.Helper()
	row := w.Row(c.Exchange)
	if row.Stream != c.Stream || row.HTTPStatus != c.Status {
		t.Errorf("%s: the package saw status %d, stream %v; the row has %d, %v", c.Case, c.Status, c.Stream, row.HTTPStatus, row.Stream)
	}
	if c.Case == "cancel" { // nobody knows the exact count of what was cut short
		if row.Status != "client_closed" || !row.Estimated || row.Input == 0 {
			t.Errorf("cancel: got row %+v", row)
		}
		return
	}
	sameAsLedger(t, row, w.provider)
	if seen := (fake.Tokens{Input: row.Input, CachedInput: row.CachedInput, Output: row.Output, Reasoning: row.Reasoning}); c.Usage != nil && *c.Usage != seen {
		t.Errorf("%s: the package saw %+v, the row has %+v", c.Case, *c.Usage, seen)
	}
	if row.Estimated || (row.Status == "ok") != (c.Status == 200) {
		t.Errorf("%s: got row %+v", c.Case, row)
	}
}
