// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/cli"
	"github.com/weir-proxy/weir/internal/repo"
)

var update = flag.Bool("update", false, "rewrite testdata and docs/cli.md")

// commands returns every command that people are shown, in the order of the documentation.
func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	var all []*cobra.Command
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		all = append(all, c)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				walk(sub)
			}
		}
	}
	walk(cli.New(programs(&bytes.Buffer{})))
	return all
}

func help(t *testing.T, c *cobra.Command) string {
	t.Helper()
	var out, errs bytes.Buffer
	args := strings.Fields(c.CommandPath() + " --help")[1:]
	if got := cli.Main(t.Context(), programs(&out), args, cli.Streams{Out: &out, Err: &errs}); got != 0 || errs.Len() > 0 {
		t.Errorf("%v: exit status %d, %s", args, got, errs.String())
	}
	return out.String()
}

func TestHelpTextsAreAsReviewed(t *testing.T) {
	kept := map[string]bool{}
	for _, c := range commands(t) {
		path := filepath.Join("testdata", "help", strings.ReplaceAll(c.CommandPath(), " ", "-")+".txt")
		kept[path] = true
		repo.Golden(t, path, help(t, c), *update)
	}
	repo.NoOrphans(t, "testdata/help/*.txt", func(path string) bool { return kept[path] }, *update)
}

func TestHelpTextsKeepToTheRules(t *testing.T) {
	placeholder := regexp.MustCompile(`^  +(-\w, )?--[a-z-]+ (string|int|bool|duration|strings)\b`)
	for _, c := range commands(t) {
		text := help(t, c)
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Long == "" {
			t.Errorf("%s: Short has no full stop, Long is needed", c.CommandPath())
		}
		for i, line := range strings.Split(text, "\n") {
			if n := len([]rune(line)); n > 140 {
				t.Errorf("%s: line %d has %d characters", c.CommandPath(), i+1, n)
			}
			if placeholder.MatchString(line) {
				t.Errorf("%s: a flag's value has no name: %s", c.CommandPath(), line)
			}
			if strings.ContainsRune(line, '\t') || strings.HasSuffix(line, " ") {
				t.Errorf("%s: line %d has a tab, or a space at its end", c.CommandPath(), i+1)
			}
		}
		if sub := strings.Fields(c.CommandPath()); len(sub) > 1 {
			if got := help(t, c); got != runHelp(t, sub[1:]) {
				t.Errorf("%s: help and --help differ", c.CommandPath())
			}
		}
	}
}

func runHelp(t *testing.T, command []string) string {
	t.Helper()
	var out bytes.Buffer
	cli.Main(t.Context(), programs(&out), append([]string{"help"}, command...), cli.Streams{Out: &out, Err: &out})
	return out.String()
}

func TestManualIsMadeOfTheHelpTexts(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# The command line

The help texts of every command. This page is generated: ` + "`go test ./internal/cli -update`" + ` rewrites it.

The commands that administer a running Weir speak to its admin REST API. Where that is, and the token for it, come from ` + "`--url` and\n`--token`" + `, else from ` + "`WEIR_URL` and `WEIR_TOKEN`" + `, else from the ` + "`weir dev`" + ` whose state is in ` + "`WEIR_DEV_DIR`" + `,
or in ` + "`.weir/dev`" + ` of the current folder or one above it.

With ` + "`--json`" + `, standard output holds one JSON value and nothing else: an array for a list, else an object. Errors go to standard error as
` + "`weir: …`" + `, with ` + "`hint: …`" + ` where there is something to do about them. The exit status is 0 when it is done, 1 when it failed, and 2 when the
command line is wrong.
`)
	for _, c := range commands(t) {
		depth := len(strings.Fields(c.CommandPath()))
		fmt.Fprintf(&b, "\n%s %s\n\n```text\n%s```\n", strings.Repeat("#", min(depth+1, 4)), c.CommandPath(), help(t, c))
	}
	repo.Golden(t, filepath.Join("..", "..", "docs", "cli.md"), b.String(), *update)
}
