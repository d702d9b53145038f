// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// printHelp prints what a command is for, how it is called, what is below it, and its flags. docs/cli.md is made of the same parts.
func printHelp(w io.Writer, c *cobra.Command) {
	c.InitDefaultHelpFlag()
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n", c.Long, usageLine(c))
	for _, g := range groupsOf(c) {
		fmt.Fprintf(w, "\n%s\n", g.title)
		for _, sub := range g.commands {
			fmt.Fprintf(w, "  %-*s  %s\n", g.width, sub.Name(), sub.Short)
		}
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	if own := c.LocalFlags(); own.HasAvailableFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", own.FlagUsages())
	}
	if inherited := c.InheritedFlags(); inherited.HasAvailableFlags() {
		fmt.Fprintf(w, "\nCommon flags:\n%s", inherited.FlagUsages())
	}
	if c.HasSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help says more about a command.\n", c.CommandPath())
	}
}

func usageLine(c *cobra.Command) string {
	if !c.HasParent() {
		return c.Use
	}
	return c.Parent().CommandPath() + " " + c.Use
}

// commandGroup is a list of commands in a help text.
type commandGroup struct {
	title    string
	width    int
	commands []*cobra.Command
}

func groupsOf(c *cobra.Command) []commandGroup {
	groups := []commandGroup{}
	for _, g := range append(c.Groups(), &cobra.Group{Title: "Commands:"}) {
		out := commandGroup{title: g.Title}
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() {
				out.commands = append(out.commands, sub)
				out.width = max(out.width, len(sub.Name()))
			}
		}
		if len(out.commands) > 0 {
			groups = append(groups, out)
		}
	}
	return groups
}

// helpCommand answers "weir help key create" as "weir key create --help" is answered.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "help COMMAND",
		Short:  "Say more about a command",
		Long:   "Say more about a command, as its flag --help does.",
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return wrongUsage("there is no command %q", "weir "+strings.Join(args, " "))
			}
			return c.Help()
		},
	}
}
