// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of Weir: the long-running programs, and the verbs that speak to the admin REST API.
//
// [Main] is the whole of a process. A command returns an error; Main alone prints it and chooses the exit status: 0 done, 1 failed,
// 2 wrong usage. The rules of what is printed where are at the top of print.go.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"

	"github.com/weir-proxy/weir/internal/config"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// DevOptions are what weir dev is told on the command line.
type DevOptions struct {
	Dir  string       // where its state is kept
	Port int          // the first of its ports
	Out  io.Writer    // for people: what runs where, and the key
	Log  *slog.Logger // for everything else
}

// Programs are the long-running processes. They return nil when ctx ends and they have stopped cleanly.
type Programs struct {
	Serve        func(ctx context.Context, c config.Config, log *slog.Logger) error
	Envoy        func(ctx context.Context, c config.Config, log *slog.Logger) error
	Dev          func(ctx context.Context, o DevOptions) error
	FakeProvider func(ctx context.Context, listen string, log *slog.Logger) error
	Render       func(c config.Config, o RenderOptions) ([]byte, error) // nothing runs: it returns what is printed
	Version      string                                                 // of this build
}

// Streams are where a process reads and writes.
type Streams struct {
	Out, Err io.Writer
}

// Main runs the command that args, without the program's name, ask for, and returns the exit status.
func Main(ctx context.Context, p Programs, args []string, s Streams) int {
	root := New(p)
	root.SetArgs(args)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSilent) {
		return exitFailed
	}
	printError(s.Err, err)
	_, wrong := errors.AsType[*usageError](err)
	if wrong || refused(err) {
		fmt.Fprintf(s.Err, "hint: %s --help\n", cmd.CommandPath())
	}
	if wrong {
		return exitUsage
	}
	return exitFailed
}

// refused reports whether the server refuses a value and has no better hint than where to read what it may be.
func refused(err error) bool {
	p, ok := errors.AsType[*admin.Problem](err)
	_, better := errors.AsType[*hinted](err)
	return ok && !better && p.Hint == admin.HintDocument
}

// errSilent fails a command that has already said why on its standard output.
var errSilent = errors.New("the findings are printed")

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func wrongUsage(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// New returns the root of the command line.
func New(p Programs) *cobra.Command {
	root := &cobra.Command{
		Use:   "weir COMMAND",
		Short: "A gateway for language-model APIs",
		Long: `Weir is a gateway for language-model APIs: Envoy moves the bytes, a processor decides, Postgres keeps the books.

"weir dev" runs all of it on this machine. "weir serve" and "weir envoy" are the same in production.
The others administer a running Weir over its admin REST API, or look into files that a processor has left.`,
		Version:           p.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().Bool("json", false, "print JSON, and nothing else, to standard output; programs log in JSON")
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Programs:"},
		&cobra.Group{ID: groupAdmin, Title: "Administration:"},
		&cobra.Group{ID: groupFiles, Title: "Files of a processor:"},
	)
	for _, c := range []*cobra.Command{devCommand(p), serveCommand(p), envoyCommand(p), fakeCommand(p)} {
		c.GroupID = groupRun
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		tenantCommand(), keyCommand(), budgetCommand(), limitCommand(), channelCommand(), priceCommand(), pluginCommand(), usageCommand(), auditCommand(), applyCommand(), importCommand(),
		readyCommand(), doctorCommand(p.Version),
	} {
		c.GroupID = groupAdmin
		connectionFlags(c)
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{journalCommand(), logCommand()} {
		c.GroupID = groupFiles
		root.AddCommand(c)
	}
	render := renderCommand(p)
	render.GroupID = groupRun
	root.AddCommand(render)
	root.AddCommand(versionCommand(p.Version))
	root.SetVersionTemplate("weir {{.Version}}\n")
	root.SetHelpCommand(helpCommand(root))
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { printHelp(c.OutOrStdout(), c) })
	finish(root)
	return root
}

const (
	groupRun   = "run"
	groupAdmin = "admin"
	groupFiles = "files"
)

// finish makes cobra keep to our rules in every command: mistakes are a *usageError, and a command that only groups others wants one.
func finish(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		text, _, _ := strings.Cut(err.Error(), ": strconv.") // What follows speaks to programmers.
		return &usageError{errors.New(text)}
	})
	if c.HasSubCommands() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = missingVerb
	} else if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

func missingVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 && !c.HasParent() {
		return c.Help()
	}
	var verbs []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			verbs = append(verbs, sub.Name())
		}
	}
	if len(args) == 0 {
		return wrongUsage("%s needs one of: %s", c.CommandPath(), strings.Join(verbs, ", "))
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return wrongUsage("there is no command %q; is it %s?", c.CommandPath()+" "+args[0], strings.Join(near, " or "))
	}
	return wrongUsage("there is no command %q, but: %s", c.CommandPath()+" "+args[0], strings.Join(verbs, ", "))
}

// arguments names what a command takes, so that what is missing or too much can be named as well.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return fmt.Errorf("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// fromFile resolves the forms in which a secret is given: itself, @FILE, or env:NAME. Only the first is seen by other users of the machine.
func fromFile(flag, value string) (string, error) {
	if path, ok := strings.CutPrefix(value, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read --%s: %w", flag, err)
		}
		secret := strings.TrimRight(string(b), "\r\n")
		if secret == "" {
			return "", fmt.Errorf("read --%s: %s is empty", flag, path)
		}
		return secret, nil
	}
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		secret := os.Getenv(name)
		if secret == "" {
			return "", wrongUsage("--%s: the environment variable %q is not set", flag, name)
		}
		return secret, nil
	}
	return value, nil
}
