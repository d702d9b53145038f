// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/cli"
)

// documents returns the Markdown files. Records of decisions are history: what they name may be gone.
func (r *tree) documents() (living, all []string) {
	for _, name := range r.files {
		if path.Ext(name) != ".md" || strings.Contains(name, "testdata/") {
			continue
		}
		all = append(all, name)
		if path.Dir(name) != "docs/adr" && name != "CHANGELOG.md" {
			living = append(living, name)
		}
	}
	return living, all
}

var (
	fence = regexp.MustCompile("(?ms)^ *```[^\n]*\n(.*?)^ *```")
	span  = regexp.MustCompile("`([^`\n]+)`")
)

// code returns what a document shows as code, line by line: its blocks, and the spans of its text.
func code(text string) []string {
	var out []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.Split(strings.ReplaceAll(m[1], "\\\n", " "), "\n")...)
	}
	for _, m := range span.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out = append(out, m[1])
	}
	return out
}

// A command is one of ours when it stands where a shell looks for one.
var (
	makeCommand = regexp.MustCompile(`(?:^|[;&|(] *|\$ )(?:[A-Z_]+=\S* +)*make((?: +[^\s;&|#)]+)+)`)
	weirCommand = regexp.MustCompile(`(?:^ *|[;&|(] *|\$ )(?:[A-Z_]+=\S* +)*(?:bin/|\./)?weir((?: +[^\s;&|#)]+)+)`)
)

// words takes the words of a command that come before the first flag, and its flags.
func words(command string) (args, flags []string) {
	for w := range strings.FieldsSeq(command) {
		switch {
		case strings.HasPrefix(w, "--"):
			name, _, _ := strings.Cut(w[2:], "=")
			flags = append(flags, name)
		case len(flags) == 0 && !strings.HasPrefix(w, "-"):
			args = append(args, w)
		}
	}
	return args, flags
}

func TestDocumentsNameCommandsThatExist(t *testing.T) {
	t.Parallel()
	r := load(t)
	targets := regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(r.contents(t, "Makefile"), -1)
	made := func(name string) bool {
		return slices.ContainsFunc(targets, func(m []string) bool { return m[1] == name })
	}
	root := cli.New(cli.Programs{})
	living, _ := r.documents()
	commands := 0
	for _, name := range living {
		for _, line := range code(r.contents(t, name)) {
			for _, m := range makeCommand.FindAllStringSubmatch(line, -1) {
				args, _ := words(m[1])
				for _, target := range args {
					if !strings.Contains(target, "=") && !made(target) {
						t.Errorf("%s says %q, and the Makefile has no such target", name, strings.TrimSpace(m[0]))
					}
				}
				commands++
			}
			for _, m := range weirCommand.FindAllStringSubmatch(line, -1) {
				if err := runnable(root, m[1]); err != nil {
					t.Errorf("%s says %q: %v", name, strings.TrimSpace(m[0]), err)
				}
				commands++
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands were found in %v: the test does not see them", commands, living)
	}
}

// runnable returns why the command line has no such command, or the command no such flag.
func runnable(root *cobra.Command, command string) error {
	args, flags := words(command)
	if slices.Contains([]string{"COMMAND", "…", "..."}, args[0]) {
		return nil // a form, not a command
	}
	c, rest, err := root.Find(args)
	if err != nil || c.HasSubCommands() && len(rest) > 0 && rest[0] != "…" && rest[0] != "COMMAND" {
		return fmt.Errorf("there is no such command: %w", err)
	}
	for _, f := range flags {
		if f != "help" && f != "FILTER" && c.Flag(f) == nil && c.InheritedFlags().Lookup(f) == nil {
			return fmt.Errorf("%s has no flag --%s", c.CommandPath(), f)
		}
	}
	return nil
}

func TestCommandsInDocumentsAreSeen(t *testing.T) {
	t.Parallel()
	root := cli.New(cli.Programs{})
	for command, want := range map[string]bool{
		"usage list --last 1":          true,
		"key create --name a":          true,
		"COMMAND --help":               true,
		"usage lst":                    false,
		"usage list --latest 1":        false,
		"rewind":                       false,
		"channel add x --provider y -": true,
	} {
		if err := runnable(root, command); (err == nil) != want {
			t.Errorf("runnable(%q) = %v", command, err)
		}
	}
	text := "A `weir usage list` and\n```sh\n$ git clone x && make run\nPORT=1 weir dev \\\n  --port 3 # weir sinks\n```\n"
	var got []string
	for _, line := range code(text) {
		for _, re := range []*regexp.Regexp{makeCommand, weirCommand} {
			for _, m := range re.FindAllStringSubmatch(line, -1) {
				got = append(got, strings.Join(strings.Fields(m[1]), " "))
			}
		}
	}
	if want := []string{"run", "dev --port 3", "usage list"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
)

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	r := load(t)
	_, all := r.documents()
	for _, name := range all {
		text := r.contents(t, name)
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(r.root, filepath.FromSlash(target))); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(r.contents(t, target)), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", name, m[1], target)
			}
		}
	}
}

// anchors are the names that Markdown gives to headings.
func anchors(text string) []string {
	var out []string
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case unicode.IsLetter(c) || unicode.IsDigit(c) || c == '-' || c == '_':
				return unicode.ToLower(c)
			}
			return -1
		}, m[1]))
	}
	return out
}

// named is a path in a code span that claims to be a file or folder of this repository.
var named = regexp.MustCompile(`^(?:cmd|deploy|docs|envoy|extproc|internal|plugins|policy|test|usage)(?:/[A-Za-z0-9._/-]+)+$`)

func TestArchitectureNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	r := load(t)
	text := r.contents(t, "docs/architecture.md")
	for _, pkg := range r.packages() {
		if !strings.Contains(text, "`"+pkg+"`") {
			t.Errorf("docs/architecture.md has no row for the package %s", pkg)
		}
	}
	for _, m := range span.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if !named.MatchString(m[1]) {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.root, filepath.FromSlash(m[1]))); err != nil {
			t.Errorf("docs/architecture.md names %s, which is not there", m[1])
		}
	}
}

func TestDecisionsAreNumberedAndWhole(t *testing.T) {
	t.Parallel()
	r := load(t)
	form := regexp.MustCompile(`^(\d{4})-[a-z]+(?:-[a-z0-9]+)+\.md$`)
	n := 0
	for _, name := range r.files {
		if path.Dir(name) != "docs/adr" {
			continue
		}
		n++
		m := form.FindStringSubmatch(path.Base(name))
		if m == nil || m[1] != fmt.Sprintf("%04d", n) {
			t.Errorf("%s: a decision is called NNNN-verb-object.md, and this one is number %04d", name, n)
		}
		text := r.contents(t, name)
		for _, part := range []string{"\nDate: 20", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %q", name, strings.TrimSpace(part))
			}
		}
	}
	if n == 0 {
		t.Error("docs/adr is empty")
	}
}

func TestChangelogSaysWhatUsersSee(t *testing.T) {
	t.Parallel()
	text := load(t).contents(t, "CHANGELOG.md")
	_, unreleased, ok := strings.Cut(text, "\n## Unreleased\n")
	if !ok {
		t.Fatal("CHANGELOG.md has no section Unreleased")
	}
	unreleased, _, _ = strings.Cut(unreleased, "\n## ")
	form := regexp.MustCompile(`^- \[(CHANGE|FEATURE|ENHANCEMENT|BUGFIX|SECURITY)\] [a-z/, -]+: `)
	for line := range strings.SplitSeq(unreleased, "\n") {
		if strings.HasPrefix(line, "- ") && !form.MatchString(line) {
			t.Errorf("CHANGELOG.md: %q has not the form - [TYPE] area: what a user sees", line)
		}
	}
}

func TestPackagesComeFromWhereverTheMachineSays(t *testing.T) {
	t.Parallel()
	r := load(t)
	hosts := []string{"py" + "pi.org", "pythonhosted" + ".org", "registry.npm" + "js.org", "proxy.gol" + "ang.org", "reg" + "istry-1.docker.io"}
	for _, name := range r.files {
		if path.Ext(name) == ".lock" || path.Base(name) == "go.sum" {
			continue
		}
		text := r.contents(t, name)
		for _, h := range hosts {
			if strings.Contains(text, h) {
				t.Errorf("%s names %s: a machine behind a mirror cannot reach it; leave the address to pip, npm and go", name, h)
			}
		}
	}
}

func TestFilesThatOthersRelyOnAreThere(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, name := range []string{
		"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Makefile", ".ci/run", "deploy/weir.yaml",
		"internal/admin/openapi.yaml", "docs/architecture.md", "docs/benchmarks.md", "docs/cli.md", "docs/glossary.md", "docs/metrics.md", "docs/operations.md",
	} {
		if !slices.Contains(r.files, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if !strings.Contains(r.contents(t, "LICENSE"), "Apache License\n                           Version 2.0, January 2004") {
		t.Error("LICENSE is not the Apache License 2.0")
	}
}
