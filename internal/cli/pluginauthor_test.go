// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts of commands that work on files need no server.
func TestScriptsWithoutAServer(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/offline", RequireUniqueNames: true, UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "filter": filter},
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache")) // HOME is /no-home, which root would make
			return nil
		},
	})
}
