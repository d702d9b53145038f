// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/trial"
)

func pluginBench() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench [DIR|FILE]",
		Short: "Measure what the calls of a plugin cost",
		Long: `Measure what the calls of a plugin cost, with what its cases give it: microseconds of a processor for each call, putting its memory back
included, and fuel. A folder is built first. Events are those of the case's response; a text comes character by character.`,
		Example: `  weir plugin bench plugins/library/pii-redactor --run prompt --time 2s`,
		Args:    cobra.MaximumNArgs(1),
	}
	cases := c.Flags().String("cases", "", "the `FOLDER` of the cases (default cases, beside the plugin)")
	run := c.Flags().String("run", "", "only the cases whose name has this `TEXT` in it")
	each := c.Flags().Duration("time", 500*time.Millisecond, "how `LONG` each hook is called for each case")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := openPlugin(c, args, *cases)
		if err != nil {
			return err
		}
		b, err := trial.NewBench(c.Context(), p.wasm, trial.Options{Name: p.name, CacheDir: compiled()})
		if err != nil {
			return err
		}
		defer func() { _ = b.Close(c.Context()) }() // the process ends
		all := []trial.Measurement{}
		for _, one := range p.cases {
			if !strings.Contains(one.Name, *run) || one.Refused() {
				continue
			}
			m, err := b.Measure(c.Context(), one, *each)
			if err != nil {
				return fmt.Errorf("case %s: %w", one.Name, err)
			}
			all = append(all, m...)
		}
		return printList(c, all, "There is nothing to measure.", []string{"CASE", "CALL", "CPU", "FUEL", "INPUT", "CALLS", "REMARK"}, func(m trial.Measurement) []string {
			return []string{
				m.Name, m.Call, strconv.FormatFloat(m.Micros, 'f', 1, 64) + " µs", count(m.Fuel), count(int64(m.Bytes)) + " B", count(int64(m.Calls)), m.Failure,
			}
		})
	}
	return c
}

func pluginInspect() *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what a module is, what it needs, and why it would be refused",
		Long: `Say what a module is, which hooks it has, what it imports and which grants that needs, what it says of itself and of its configuration, and
its memory. It is started once, with the configuration that is given. The exit status is 1 when a gateway would refuse it.`,
		Example: `  weir plugin inspect guard.wasm
  weir plugin inspect --json guard.wasm --config @guard.json`,
		Args: arguments("FILE"),
	}
	config := c.Flags().String("config", "", "the `CONFIGURATION` to start it with, or @FILE that holds it")
	c.RunE = func(c *cobra.Command, args []string) error {
		wasm, err := os.ReadFile(args[0])
		if err != nil {
			return fmt.Errorf("inspect a plugin: %w", err)
		}
		text, err := fromFile("config", *config)
		if err != nil {
			return err
		}
		r, err := trial.Inspect(c.Context(), wasm, []byte(text), host.Limits{})
		if err != nil {
			return err
		}
		if asJSON(c) {
			err = printJSON(c, r)
		} else {
			err = printInspection(c, r)
		}
		if err == nil && len(r.Refused) > 0 {
			return errSilent
		}
		return err
	}
	return c
}

func printInspection(c *cobra.Command, r *trial.Report) error {
	var imports []string
	for _, i := range r.Imports {
		if i.Grant != "" {
			i.Name += " (" + i.Grant + ")"
		}
		imports = append(imports, i.Name)
	}
	t := table{}
	t.add("digest", r.Digest)
	t.add("size", count(int64(r.Bytes))+" bytes")
	t.add("abi", r.ABI)
	t.add("hooks", strings.Join(r.Hooks, ", "))
	t.add("imports", strings.Join(imports, ", "))
	t.add("grants", strings.Join(r.Grants, ", "))
	t.add("memory", fmt.Sprintf("%s at first, %s at most, %s as each call finds it", kib(r.Memory.Min), kib(r.Memory.Max), kib(int64(r.Memory.Pristine))))
	t.add("about", string(r.About))
	t.add("schema", string(r.Schema))
	if r.Obstacle != "" {
		t.add("slow", "each call makes a new instance: "+r.Obstacle)
	}
	for _, s := range r.Remarks {
		t.add("remark", s)
	}
	for _, s := range r.Refused {
		t.add("refused", s)
	}
	return t.print(c)
}
