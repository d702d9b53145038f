// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

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
not the latest version, and put in force where the plugin is attached. Changes are made one by one; a failure ends the run, and what was
done before stays done.`,
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
			kinds := apply.Kinds()
			declared, err := apply.Read(kinds, files, apply.Environment{
				Lookup: os.LookupEnv, ReadFile: os.ReadFile,
				Module: func(source string) ([]byte, error) { return fetch.Module(c.Context(), source, fetch.Options{}) },
			})
			if err != nil {
				return withHint(err, "deploy/apply.yaml shows every section and what may stand in it")
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			steps, err := apply.Plan(c.Context(), client, kinds, declared, prune)
			if err != nil {
				return err
			}
			return takeSteps(c, steps, dry)
		},
	}
	c.Flags().StringArrayVarP(&names, "file", "f", nil, "the `FILE` to apply; - is standard input")
	c.Flags().BoolVar(&prune, "prune", false, "delete what is in no file, of the sections that are")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be done, and do nothing")
	return c
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
	for _, s := range steps {
		if !dry {
			if failed = s.Do(c.Context()); failed != nil {
				break
			}
		}
		taken = append(taken, s)
		if !asJSON(c) {
			printStep(c.OutOrStdout(), s)
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
		remark(c, "%d changes would be made.", len(steps))
	default:
		remark(c, "%d changes are made.", len(steps))
	}
	return nil
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
