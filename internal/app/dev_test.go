// SPDX-License-Identifier: Apache-2.0

package app

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDevShowsPluginsTheHeadersThatAreNamed(t *testing.T) {
	t.Setenv("WEIR_DEV_PLUGIN_HEADERS", "X-Team, x-session")
	cfg, err := devConfig(t.TempDir(), 10000, "postgres://localhost/weir")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cfg.Plugins.Headers, []string{"x-team", "x-session"}); diff != "" {
		t.Error(diff)
	}
	t.Setenv("WEIR_DEV_PLUGIN_HEADERS", "authorization")
	if _, err := devConfig(t.TempDir(), 10000, "postgres://localhost/weir"); err == nil || !strings.Contains(err.Error(), "plugins are never shown") {
		t.Errorf("a client's key: %v", err)
	}
}
