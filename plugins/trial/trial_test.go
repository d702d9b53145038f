// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/workshop"
)

// toy is a plugin in Go.
type toy struct {
	event func(*abi.Event) abi.Verdict
}

func (t toy) About() host.About { return host.About{Event: t.event != nil} }

func (t toy) Request(context.Context, *abi.Exchange, host.Mode) host.Result {
	return host.Result{Verdict: &abi.Verdict{}}
}

func (t toy) Event(_ context.Context, e *abi.Event, _ host.Mode) host.Result {
	v := t.event(e)
	return host.Result{Verdict: &v, Fuel: 7}
}

// try runs a case with a toy.
func try(t *testing.T, p toy, text string) *Result {
	t.Helper()
	c, err := ParseCase("case", text)
	if err != nil {
		t.Fatal(err)
	}
	r := &Result{Name: "case"}
	b := &Bench{count: &freshCounters{}}
	b.count.reset()
	if err := (&trialRun{bench: b, c: c, plugin: p, known: map[string]host.Result{}, result: r}).all(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

const secretText = `A secret.
-- response.text --
My secret is out.
-- want --
request goes on
response goes on
-- want.text --
0: My ****** is out.
0 ends: stop
`

// hasty masks only what comes in one piece.
var hasty = toy{event: func(e *abi.Event) abi.Verdict {
	i := strings.Index(e.Text, "secret")
	if i < 0 {
		return abi.Verdict{}
	}
	return abi.Verdict{Edits: []abi.Edit{{Start: int64(i), End: int64(i + 6), With: "******"}}}
}}

func TestSecretThatACutLetsThroughIsFound(t *testing.T) {
	t.Parallel()
	r := try(t, hasty, secretText)
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0], "the text character by character") || !strings.Contains(r.Faults[0], "+ 0: My secret is out.") {
		t.Errorf("faults %q", r.Faults)
	}
}

func TestPluginThatHoldsBackPassesEveryCut(t *testing.T) {
	t.Parallel()
	patient := toy{event: func(e *abi.Event) abi.Verdict {
		held, _ := strings.CutPrefix(string(e.State), "=")
		switch e.Kind {
		case abi.KindText:
			return abi.Verdict{Edits: []abi.Edit{{End: int64(len(e.Text))}}, State: []byte("=" + held + e.Text)}
		case abi.KindFinish:
			return abi.Verdict{Edits: []abi.Edit{{With: strings.ReplaceAll(held, "secret", "******")}}}
		}
		return abi.Verdict{State: e.State}
	}}
	r := try(t, patient, secretText)
	if len(r.Faults) != 0 {
		t.Errorf("faults %q", r.Faults)
	}
	letters := len("My secret is out.")
	if bytes := len(tell("My secret is out.")); r.Plays != 1+1+(bytes-1)+1+1+(letters-1) {
		t.Errorf("%d plays of %d bytes and %d letters", r.Plays, bytes, letters)
	}
	if r.Cost.Calls < 4 || r.Cost.Fuel != 7*int64(r.Cost.Calls) || r.Cost.Most != 7 {
		t.Errorf("cost %+v", r.Cost)
	}
}

func TestDifferencesAreShownLineByLine(t *testing.T) {
	t.Parallel()
	r := try(t, hasty, strings.Replace(strings.Replace(secretText, "response.text", "response.json", 1), "My secret is out.", `{"choices":[{"index":0,"message":{"content":"My secret."},"finish_reason":"stop"}]}`, 1))
	want := []string{"want.text (- wanted, + came):\n- 0: My ****** is out.\n+ 0: My ******."}
	if diff := cmp.Diff(r.Faults, want); diff != "" {
		t.Error(diff)
	}
}

func TestCasesThatSayNothingFail(t *testing.T) {
	t.Parallel()
	r := try(t, hasty, "Nothing is wanted.\n")
	if len(r.Faults) != 1 || !strings.Contains(r.Hint, "--update") {
		t.Errorf("%+v", r)
	}
}

func TestMistakesInCasesAreNamed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"-- wish --\n":                              `there is no section "wish"`,
		"-- want --\n-- want --\n":                  `the section "want" is there twice`,
		"-- response.sse --\n-- response.text --\n": "a case has one response",
		"-- settings --\nspeed: 9\n":                `settings, line 1: there is no setting "speed"`,
		"-- settings --\n\ntenant: acme\n":          `settings, line 2: "acme" is not a number above 0 and a name`,
		"-- settings --\ngrants: log, root\n":       `there is no capability "root"`,
		"-- settings --\nheader: X-A: 1\n":          "is not a name in lower case",
		"-- request --\n{\n":                        `section "request": unexpected end`,
		"-- request --\n{}\n":                       "it has no model",
		"-- settings --\noperation: embeddings\n-- response.text --\nhello\n":    "only a chat",
		"-- settings --\noperation: telepathy\n":                                 `there is no operation "telepathy"`,
		"-- settings --\ntime: noon\n":                                           "cannot parse",
		"-- settings --\njust words\n":                                           "not of the form name: value",
		"-- settings --\nstatus: many\n":                                         "invalid syntax",
		"-- settings --\nkey: 0\n":                                               "not a number above 0",
		"-- settings --\nbudget: 1e3\n-- request --\n{\"model\":\"m\"}\n":        "invalid syntax",
		"-- settings --\nshow-body: perhaps\n-- request --\n{\"model\":\"m\"}\n": "invalid syntax",
	} {
		if _, err := ParseCase("case", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestArchivesAreWrittenAsTheyWereRead(t *testing.T) {
	t.Parallel()
	text := "A comment.\n-- a --\n1\n-- b --\n-- no marker\n2\n"
	a := parseArchive(text)
	if a.String() != text {
		t.Errorf("%q", a.String())
	}
	a.put("b", "3")
	a.put("c", "4\n")
	if want := "A comment.\n-- a --\n1\n-- b --\n3\n-- c --\n4\n"; a.String() != want {
		t.Errorf("%q, want %q", a.String(), want)
	}
}

// TestPluginsOfTheLibraryKeepToTheirCases builds some of the library. The others are tried by weir plugin test.
func TestPluginsOfTheLibraryKeepToTheirCases(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pii-redactor", "limits", "router"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(repo.Root(t), "plugins", "library", name)
			file := filepath.Join(t.TempDir(), name+".wasm")
			if err := workshop.Build(t.Context(), dir, file); err != nil {
				t.Fatal(err)
			}
			wasm, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cases, err := ReadCases(filepath.Join(dir, "cases"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := NewBench(t.Context(), wasm, Options{Name: name, CacheDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}()
			for _, c := range cases {
				b.options.Quick = c.Text() == "" // weir plugin test makes all the cuts; here, those of texts are enough
				r, err := b.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				for _, fault := range r.Faults {
					t.Errorf("case %s: %s", c.Name, fault)
				}
			}
			report, err := Inspect(t.Context(), wasm, cases[0].config, host.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if report.ABI != "weir/1" || len(report.Refused) > 0 || report.Schema == nil || report.About == nil || report.Memory.Pristine == 0 {
				t.Errorf("inspected: %+v", report)
			}
			wantGrants := map[string][]string{"pii-redactor": {"pii"}, "limits": {"clock", "tokens"}, "router": {"regexp"}}[name]
			if diff := cmp.Diff(report.Grants, wantGrants); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusedModulesAreRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for wasm, want := range map[string]string{
		"text":                    "is not a core WebAssembly module",
		"\x00asm\x01\x00\x00\x00": "it does not export weir_abi_1",
		"\x00asm\x0d\x00\x01\x00": "is not a core WebAssembly module",
	} {
		r, err := Inspect(t.Context(), []byte(wasm), nil, host.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Refused) == 0 || !strings.Contains(strings.Join(r.Refused, "\n"), want) {
			t.Errorf("%q: refused %q, want %q", wasm, r.Refused, want)
		}
	}
}

func TestOutcomesAreWrittenIntoCases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.txtar")
	if err := os.WriteFile(path, []byte("A case.\n-- want.request --\nold\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases, err := ReadCases(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench{count: &freshCounters{}, options: Options{Update: true}}
	b.count.reset()
	r := &Result{}
	if err := (&trialRun{bench: b, c: cases[0], plugin: hasty, result: r}).all(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "A case.\n-- want --\nrequest goes on\n"; string(got) != want || !r.Updated {
		t.Errorf("%q, want %q", got, want)
	}
}
