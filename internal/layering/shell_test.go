// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/cli"
)

// shellFence is a block of a document that a reader pastes into a shell, or a session in which the commands stand behind prompts.
var shellFence = regexp.MustCompile("(?ms)^ *```(sh|bash|console)\n(.*?)^ *```")

// pasted returns the command lines that a document tells its reader to run, each whole.
func pasted(text string) []string {
	var out []string
	for _, m := range shellFence.FindAllStringSubmatch(text, -1) {
		for line := range strings.SplitSeq(strings.ReplaceAll(m[2], "\\\n", " "), "\n") {
			command, prompted := strings.CutPrefix(strings.TrimSpace(line), "$ ")
			if prompted || m[1] != "console" {
				out = append(out, command)
			}
		}
	}
	return out
}

// split cuts a line into the words of each of its simple commands, as a shell would: quotes hold words together, and a comment ends the line. What stands in
// a substitution is a command of its own.
func split(line string) [][]string {
	var commands [][]string
	var command []string
	var word strings.Builder
	var quote rune
	begun := false
	endWord := func() {
		if begun {
			command = append(command, word.String())
		}
		word.Reset()
		begun = false
	}
	endCommand := func() {
		endWord()
		if len(command) > 0 {
			commands = append(commands, command)
		}
		command = nil
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == '#' && !begun:
			endCommand()
			return commands
		case strings.ContainsRune(";&|()<>", c):
			endCommand()
		case c == ' ' || c == '\t':
			endWord()
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	endCommand()
	return commands
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// weirArguments returns the arguments of weir in a simple command that runs it, wherever it is installed.
func weirArguments(words []string) ([]string, bool) {
	for len(words) > 0 && (assignment.MatchString(words[0]) || slices.Contains([]string{"exec", "sudo", "time"}, words[0])) {
		words = words[1:]
	}
	if len(words) == 0 || words[0] != "weir" && !strings.HasSuffix(words[0], "/weir") {
		return nil, false
	}
	return words[1:], true
}

// parse takes a command line as the program itself does, as far as before it begins to act.
func parse(args []string) error {
	root := cli.New(cli.Programs{})
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if c.HasSubCommands() {
		return fmt.Errorf("%s needs a command", c.CommandPath())
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := c.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	return errors.Join(c.ValidateArgs(c.Flags().Args()), c.ValidateRequiredFlags())
}

func TestCommandsThatReadersPasteAreUnderstood(t *testing.T) {
	t.Parallel()
	r := load(t)
	living, _ := r.documents()
	lines := map[string][]string{}
	for _, name := range living {
		lines[name] = pasted(r.contents(t, name))
	}
	var examples func(c *cobra.Command)
	examples = func(c *cobra.Command) {
		lines[c.CommandPath()] = strings.Split(strings.ReplaceAll(c.Example, "\\\n", " "), "\n")
		for _, sub := range c.Commands() {
			examples(sub)
		}
	}
	examples(cli.New(cli.Programs{}))
	commands := 0
	for where, all := range lines {
		for _, line := range all {
			for _, words := range split(line) {
				args, ours := weirArguments(words)
				if !ours {
					continue
				}
				commands++
				if err := parse(args); err != nil {
					t.Errorf("%s says %q: %v", where, strings.TrimSpace(line), err)
				}
			}
		}
	}
	if commands < 80 {
		t.Errorf("only %d commands were found: the test does not see them", commands)
	}
}

func TestPastedCommandsAreCutAsByAShell(t *testing.T) {
	t.Parallel()
	text := "```console\n$ make && A=b bin/weir key create --name 'a b' \\\n    --rpm 60 # weir sinks\nweir is ready\n```\n" +
		"1. a list\n   ```sh\n   echo \"weir none\" | weir apply -f - > out; x=$(weir version)\n   ```\n```yaml\nweir: dev\n```\n"
	var got []string
	for _, line := range pasted(text) {
		for _, words := range split(line) {
			if args, ours := weirArguments(words); ours {
				got = append(got, strings.Join(args, "|"))
			}
		}
	}
	if want := []string{"key|create|--name|a b|--rpm|60", "apply|-f|-", "version"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	for command, understood := range map[string]bool{
		"usage list --last 1":          true,
		"usage list --last one":        false, // no such number
		"usage list --latest 1":        false,
		"usage list all":               false, // no such argument
		"usage":                        false,
		"channel enable":               false, // whose?
		"channel enable openai":        true,
		"channel enable --help":        true,
		"rewind":                       false,
		"key create --json --token @f": true,
	} {
		if err := parse(strings.Fields(command)); (err == nil) != understood {
			t.Errorf("parse(%q) = %v", command, err)
		}
	}
}
