// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// limitHelper makes this test binary do what weir envoy does with its limits, and print those of a child.
const limitHelper = "WEIR_TEST_FILE_LIMIT"

func TestMain(m *testing.M) {
	if os.Getenv(limitHelper) == "" {
		os.Exit(m.Run())
	}
	raiseFileLimit(50_000, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	out, err := exec.Command("sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = os.Stdout.Write(out)
}

// Go gives its children the soft limit that it was started with. Envoy needs the hard one.
func TestEnvoyMayOpenAsManyFilesAsTheSystemAllows(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -Sn 256 && ulimit -Hn 600 && exec "$0"`, self)
	cmd.Env = append(os.Environ(), limitHelper+"=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if got := strings.Fields(string(out)); len(got) != 2 || got[0] != "600" || got[1] != "600" {
		t.Errorf("the child's limits are %q, want 600 and 600", got)
	}
	if !strings.Contains(said.String(), "limit=600 needed=100000") {
		t.Errorf("no warning that this is too little:\n%s", said.String())
	}
}
