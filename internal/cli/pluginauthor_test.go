// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts of commands that work on files need no server.
func TestScriptsWithoutAServer(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/offline", RequireUniqueNames: true, UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "filter": filter},
	})
}
