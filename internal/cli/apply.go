// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/internal/apply"
	"github.com/weir-proxy/weir/internal/fetch"
)

func applyCommand() *cobra.Command {
	var names []string
	var prune, dry bool
	c := &cobra.Command{
		Use:   "apply -f FILE… [--prune] [--dry-run]",
		Short: "Make an installation what files say",
		Long: `Make tenants, channels, keys, limits, budgets, prices, plugins and their attachments what YAML files say, and nothing else of them: what
is left out of one is as if it had just been made. A second time there is nothing to do. A file may have several documents, - is standard
input, and -f may be given more than once.

Things that are in no file stay. With --prune they are deleted, keys being revoked, but only of sections that are in some file; the tenant
"default" stays. --dry-run prints what would be done and does nothing.

Keys are declared by their hash (sha256: and 64 hexadecimal digits), or by secret: env:NAME or @FILE, which is hashed here and not sent;
credentials of channels by api_key: env:NAME or @FILE. A plugin has a source, as weir plugin push takes it: the module is pushed if it is
not the latest version, and put in force where the plugin is attached. Changes are made in order, those of keys, limits and budgets several
at a time; a failure ends the run, and what was done before stays done.`,
		Example: `  weir apply -f installation.yaml --dry-run
  weir apply -f tenants.yaml -f channels.yaml --prune
  generate-keys | weir apply -f -`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if len(names) == 0 {
				return wrongUsage("-f is needed: the file to apply")
			}
			files, err := readFiles(c, names)
			if err != nil {
				return err
			}
			err = applyFiles(c, files, apply.Environment{
				Lookup: os.LookupEnv, ReadFile: os.ReadFile,
				Module: func(source string) ([]byte, error) { return fetch.Module(c.Context(), source, fetch.Options{}) },
			}, applyOptions{prune, dry})
			if _, mistaken := errors.AsType[*apply.Error](err); mistaken {
				return withHint(err, "deploy/apply.yaml shows every section and what may stand in it")
			}
			return err
		},
	}
	c.Flags().StringArrayVarP(&names, "file", "f", nil, "the `FILE` to apply; - is standard input")
	c.Flags().BoolVar(&prune, "prune", false, "delete what is in no file, of the sections that are")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be done, and do nothing")
	return c
}

type applyOptions struct{ prune, dry bool }

// applyFiles makes the installation what files say, or prints what that would change.
func applyFiles(c *cobra.Command, files []apply.File, env apply.Environment, o applyOptions) error {
	kinds := apply.Kinds()
	declared, err := apply.Read(kinds, files, env)
	if err != nil {
		return err
	}
	client, err := connect(c)
	if err != nil {
		return err
	}
	steps, err := apply.Plan(c.Context(), client, kinds, declared, o.prune)
	if err != nil {
		return err
	}
	return takeSteps(c, steps, o.dry)
}

func readFiles(c *cobra.Command, names []string) ([]apply.File, error) {
	var files []apply.File
	for _, name := range names {
		var b []byte
		var err error
		if name == "-" {
			name = "standard input"
			b, err = io.ReadAll(c.InOrStdin())
		} else {
			b, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		files = append(files, apply.File{Name: name, Data: b})
	}
	return files, nil
}

// takeSteps prints each step, and takes it unless it is only to be shown. With --json the steps that were taken are printed, also when one failed.
func takeSteps(c *cobra.Command, steps []apply.Step, dry bool) error {
	taken := []apply.Step{}
	var failed error
	for rest := steps; len(rest) > 0 && failed == nil; {
		now := rest[:together(rest)]
		rest = rest[len(now):]
		if !dry {
			now, failed = take(c.Context(), now)
		}
		for _, s := range now {
			taken = append(taken, s)
			if !asJSON(c) {
				printStep(c.OutOrStdout(), s)
			}
		}
	}
	if asJSON(c) {
		if err := printJSON(c, taken); err != nil {
			return err
		}
	}
	switch {
	case failed != nil:
		return failed
	case len(steps) == 0:
		remark(c, "There is nothing to change.")
	case dry:
		remark(c, "%s would be made.", changes(len(steps)))
	case len(steps) == 1:
		remark(c, "1 change is made.")
	default:
		remark(c, "%s are made.", changes(len(steps)))
	}
	return nil
}

// stepsAtOnce is how many changes are made at a time. The API answers when a change is in force, and many wait for that no longer than one.
const stepsAtOnce = 16

// together returns how many of the first steps do not need one another.
func together(steps []apply.Step) int {
	switch steps[0].Kind {
	case "key", "limit", "budget":
	default:
		return 1
	}
	n := 1
	for n < min(len(steps), 4*stepsAtOnce) && steps[n].Kind == steps[0].Kind && steps[n].Action == steps[0].Action {
		n++
	}
	return n
}

// take takes steps, and returns those that were taken and the first error.
func take(ctx context.Context, steps []apply.Step) ([]apply.Step, error) {
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(stepsAtOnce)
	done := make([]bool, len(steps))
	for i, s := range steps {
		g.Go(func() error {
			if within.Err() != nil {
				return context.Cause(within)
			}
			err := s.Do(within)
			done[i] = err == nil
			return err
		})
	}
	err := g.Wait()
	var taken []apply.Step
	for i, s := range steps {
		if done[i] {
			taken = append(taken, s)
		}
	}
	return taken, err
}

func changes(n int) string {
	if n == 1 {
		return "1 change"
	}
	return count(int64(n)) + " changes"
}

// printStep prints a step as a diff: what is made begins with +, what ends with -, what changes with ~ and has a line for each field.
func printStep(w io.Writer, s apply.Step) {
	sign := map[string]string{apply.Create: "+", apply.Change: "~", apply.Delete: "-"}[s.Action]
	fmt.Fprintf(w, "%s %s %s\n", sign, s.Kind, printable(s.Name))
	for _, d := range s.Changes {
		if s.Action == apply.Create {
			fmt.Fprintf(w, "    %s: %s\n", d.Field, printable(d.After))
			continue
		}
		fmt.Fprintf(w, "    %s: %s → %s\n", d.Field, printable(cmp.Or(d.Before, "none")), printable(cmp.Or(d.After, "none")))
	}
}
