// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/plugins/trial"
	"github.com/weir-proxy/weir/plugins/workshop"
)

// pluginAuthorCommands are those for who writes plugins. They work on files, and need no running Weir.
func pluginAuthorCommands() []*cobra.Command {
	return []*cobra.Command{pluginNew(), pluginBuild(), pluginTest(), pluginBench(), pluginInspect()}
}

func pluginNew() *cobra.Command {
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a plugin: a folder that builds, with cases that pass",
		Long: `Begin a plugin: a folder with a plugin that refuses prompts with certain words, the JSON Schema of its configuration, cases for
"weir plugin test", and a copy of the SDK. It needs nothing else but the compiler.`,
		Example: `  weir plugin new no-dragons --lang go && cd no-dragons && weir plugin test`,
		Args:    arguments("NAME"),
	}
	lang := c.Flags().String("lang", string(workshop.Go), "the `LANGUAGE`: go, rust or assemblyscript")
	dir := c.Flags().String("dir", "", "the `FOLDER` to make (default NAME)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *dir == "" {
			*dir = args[0]
		}
		if err := workshop.New(*dir, args[0], workshop.Language(*lang)); err != nil {
			return err
		}
		if asJSON(c) {
			return printJSON(c, map[string]string{"folder": *dir})
		}
		remark(c, "%s has a plugin in %s. Next: weir plugin test %s", *dir, *lang, *dir)
		return nil
	}
	return c
}

func pluginBuild() *cobra.Command {
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build the plugin in a folder",
		Long: `Build the plugin in a folder, the current one unless told otherwise, with the compiler of its language: Go if there are Go files, Rust if
there is a Cargo.toml. What about.json and schema.json in the folder say goes into the module.`,
		Example: `  weir plugin build
  weir plugin build plugins/library/limits --out bin/plugins/limits.wasm`,
		Args: cobra.MaximumNArgs(1),
	}
	out := c.Flags().String("out", "", "the `FILE` to write (default DIR/NAME.wasm, NAME that of the folder)")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := folderOf(args)
		if err != nil {
			return err
		}
		if *out == "" {
			*out = filepath.Join(dir, filepath.Base(dir)+".wasm")
		}
		if err := workshop.Build(c.Context(), dir, *out); err != nil {
			return buildHint(err)
		}
		if asJSON(c) {
			return printJSON(c, map[string]string{"file": *out})
		}
		remark(c, "Built %s.", *out)
		return nil
	}
	return c
}

// folderOf returns the absolute folder that is meant, so that it has a name.
func folderOf(args []string) (string, error) {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the folder: %w", err)
	}
	if _, err := os.Stat(abs); err != nil {
		return "", fmt.Errorf("find the plugin: %w", err)
	}
	return abs, nil
}

func buildHint(err error) error {
	if e, ok := errors.AsType[*workshop.BuildError](err); ok && e.Hint != "" {
		return withHint(err, "%s", e.Hint)
	}
	if errors.Is(err, workshop.ErrNoSources) {
		return withHint(err, "weir plugin new begins one")
	}
	return err
}

// tried is a plugin with its cases.
type tried struct {
	name  string
	wasm  []byte
	cases []*trial.Case
}

// openPlugin reads a module and its cases; of a folder, it builds the module first.
func openPlugin(c *cobra.Command, args []string, casesDir string) (*tried, error) {
	path, err := folderOf(args)
	if err != nil {
		return nil, err
	}
	file, dir := path, filepath.Dir(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		temp, err := os.MkdirTemp("", "weir-plugin-")
		if err != nil {
			return nil, fmt.Errorf("build the plugin: %w", err)
		}
		defer func() { _ = os.RemoveAll(temp) }() // of no use to anybody, whatever happens
		file, dir = filepath.Join(temp, filepath.Base(path)+".wasm"), path
		if err := workshop.Build(c.Context(), path, file); err != nil {
			return nil, buildHint(err)
		}
	}
	t := &tried{name: strings.TrimSuffix(filepath.Base(path), ".wasm")}
	if t.wasm, err = os.ReadFile(file); err != nil {
		return nil, fmt.Errorf("read the plugin: %w", err)
	}
	if casesDir == "" {
		casesDir = filepath.Join(dir, "cases")
	}
	t.cases, err = trial.ReadCases(casesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(err, "write one, or name their folder with --cases")
	}
	return t, err
}

// compiled is where compiled plugins are kept between runs; empty if the user has no such place, or may not write there, as where HOME is nobody's.
// A plugin is then compiled each time.
func compiled() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir = filepath.Join(dir, "weir", "plugins")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return ""
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return ""
	}
	return dir
}

type testFlags struct {
	cases, run    string
	maxFuel       int64
	update, quick bool
}

func pluginTest() *cobra.Command {
	c := &cobra.Command{
		Use:   "test [DIR|FILE]",
		Short: "Hold a plugin to its cases, however responses are cut",
		Long: `Hold a plugin to its cases: the exchanges in cases/*.txtar beside it, each with what should become of it. A folder is built first. Streams
are played whole, byte by byte and with every cut in two, and must come out the same; so must a text, however it is cut into events.
For each case it prints the calls, the fuel of the call that used most, which is exact, and the most memory. The exit status is 1
when a case fails.

A case is sections in a text file; those not needed are left out:

  A sentence that says what the case shows.
  -- settings --
  tenant: 7 acme
  header: x-team: red
  -- config --
  {"words":["dragon"]}
  -- request --
  {"model":"m","messages":[{"role":"user","content":"Hello"}]}
  -- response.text --
  Hello there.
  -- want --
  request goes on
  response goes on
  -- want.text --
  0: Hello there.
  0 ends: stop

Responses are response.sse and response.json, as recorded, or response.text. want.request is the body that a provider gets if it is
changed, want.response the bytes that the client gets. Settings: operation, tenant, key, address, header, response-header, channels,
budget, input-tokens, time, grants, show-body, status, cuts (all, events, none).

A plugin that speaks proxy-wasm is tried in the same way. Its calls are answered by sections "answer UPSTREAM": a status, headers, an empty
line and a body, or "no answer". want has a line for each call, property and metric, and want.calls the calls as they were made.`,
		Example: `  weir plugin test
  weir plugin test guard.wasm --cases cases --max-fuel 500000
  weir plugin test plugins/library/limits --update`,
		Args: cobra.MaximumNArgs(1),
	}
	var f testFlags
	c.Flags().StringVar(&f.cases, "cases", "", "the `FOLDER` of the cases (default cases, beside the plugin)")
	c.Flags().StringVar(&f.run, "run", "", "only the cases whose name has this `TEXT` in it")
	c.Flags().Int64Var(&f.maxFuel, "max-fuel", 0, "fail when a call uses more `FUEL`")
	c.Flags().BoolVar(&f.update, "update", false, "write what comes into the cases, as what is wanted")
	c.Flags().BoolVar(&f.quick, "quick", false, "leave the cuts in two out")
	c.RunE = func(c *cobra.Command, args []string) error { return runPluginTest(c, args, f) }
	return c
}

func runPluginTest(c *cobra.Command, args []string, f testFlags) error {
	p, err := openPlugin(c, args, f.cases)
	if err != nil {
		return err
	}
	b, err := trial.NewBench(c.Context(), p.wasm, trial.Options{Name: p.name, CacheDir: compiled(), MaxFuel: f.maxFuel, Update: f.update, Quick: f.quick})
	if err != nil {
		return err
	}
	defer func() { _ = b.Close(c.Context()) }() // the process ends
	results := []*trial.Result{}
	failed := 0
	for _, one := range p.cases {
		if !strings.Contains(one.Name, f.run) {
			continue
		}
		r, err := b.Run(c.Context(), one)
		if err != nil {
			return err
		}
		if !r.Passed {
			failed++
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return withHint(fmt.Errorf("no case has %q in its name", f.run), "leave --run out")
	}
	if asJSON(c) {
		err = printJSON(c, results)
	} else {
		err = printTrial(c, p.name, results)
	}
	if err == nil && failed > 0 {
		return errSilent
	}
	return err
}

func printTrial(c *cobra.Command, name string, results []*trial.Result) error {
	t := table{header: []string{"CASE", "RESULT", "PLAYS", "CALLS", "MAX FUEL", "MEMORY"}}
	failed := 0
	for _, r := range results {
		verdict := "ok"
		switch {
		case !r.Passed:
			verdict = "FAILED"
			failed++
		case r.Updated:
			verdict = "updated"
		}
		t.add(r.Name, verdict, count(int64(r.Plays)), count(int64(r.Cost.Calls)), count(r.Cost.Most), kib(int64(r.Cost.Memory)))
	}
	if err := t.print(c); err != nil {
		return err
	}
	for _, r := range results {
		for _, fault := range r.Faults {
			fmt.Fprintf(c.ErrOrStderr(), "weir: %s: case %s: ", printable(name), printable(r.Name))
			for line := range strings.Lines(fault + "\n") {
				fmt.Fprintln(c.ErrOrStderr(), printable(strings.TrimSuffix(line, "\n")))
			}
		}
		for _, line := range r.Logs {
			if !r.Passed {
				fmt.Fprintf(c.ErrOrStderr(), "it logs: %s\n", printable(line))
			}
		}
		if r.Hint != "" {
			fmt.Fprintf(c.ErrOrStderr(), "hint: %s\n", printable(r.Hint))
		}
	}
	if failed > 0 {
		remark(c, "%d of %d cases failed.", failed, len(results))
	} else {
		remark(c, "All %d cases pass.", len(results))
	}
	return nil
}

func kib(n int64) string { return count(n>>10) + " KiB" }
