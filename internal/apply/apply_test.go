// SPDX-License-Identifier: Apache-2.0

package apply_test

import (
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/admin/admintest"
	"github.com/weir-proxy/weir/internal/apply"
	"github.com/weir-proxy/weir/internal/store"
)

// environ is an environment of a map; files are the names that begin with a slash.
func environ(m map[string]string) apply.Environment {
	return apply.Environment{
		Lookup: func(name string) (string, bool) { v, ok := m[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if v, ok := m[path]; ok {
				return []byte(v), nil
			}
			return nil, fs.ErrNotExist
		},
		Module: func(source string) ([]byte, error) {
			if v, ok := m["module "+source]; ok {
				return []byte(v), nil
			}
			return nil, errors.New("there is no such module")
		},
	}
}

func read(env map[string]string, texts ...string) (*apply.Declared, error) {
	var files []apply.File
	for i, text := range texts {
		files = append(files, apply.File{Name: string(rune('a'+i)) + ".yaml", Data: []byte(text)})
	}
	return apply.Read(apply.Kinds(), files, environ(env))
}

func TestMistakesAreReportedWithTheirLines(t *testing.T) {
	t.Parallel()
	const hash = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	for text, want := range map[string]string{
		"tenants: [":                               "a.yaml:1: not YAML: ",
		"- a":                                      "a.yaml:1: a document must hold sections: tenants, channels, keys, limits, budgets, prices, plugins, attachments",
		"tenants: []\nroutes: []":                  `a.yaml:2: unknown section "routes"; there are tenants, channels, keys, limits, budgets, prices, plugins, attachments`,
		"tenants: {name: a}":                       "a.yaml:1: tenants must be a list",
		"tenants:\n- a":                            "a.yaml:2: a tenant must be a mapping",
		"attachments:\n- a":                        "a.yaml:2: an attachment must be a mapping",
		"tenants:\n- name: a\n  nmae: b":           `a.yaml:3: unknown field "nmae"`,
		"tenants:\n- disabled: true":               "a.yaml:2: a tenant needs a name",
		"tenants:\n- name: a\n- name: a":           "a.yaml:3: tenant a is declared already, at a.yaml:2",
		"keys:\n- name: k":                         "a.yaml:2: key default/k: it needs a hash",
		"keys:\n- {name: k, secret: plain}":        "does not stand in the file itself",
		"keys:\n- {name: k, secret: 'env:ABSENT'}": `the environment variable "ABSENT" is not set`,
		"keys:\n- {name: k, secret: 'env:SHORT'}":  "fewer than 8",
		"keys:\n- {name: k, secret: '@/absent'}":   "read secret: ",
		"keys:\n- {name: k, secret: '@/empty'}":    "/empty is empty",
		"keys:\n- {name: k, hash: '" + hash + "', secret: 'env:SHORT'}":                           "and not both",
		"keys:\n- {name: k, hash: '" + hash + "', expires: soon}":                                 `"soon" is not a time`,
		"keys:\n- {name: k, hash: '" + hash + "', allow_ip: [office]}":                            `allow_ip: "office" is not as in`,
		"keys:\n- name: k\n  models: 5":                                                           "a.yaml:3: ",
		"limits:\n- {tenant: a}":                                                                  "a.yaml:2: limit of the tenant a, for *: it limits nothing",
		"limits:\n- {key: a, concurrency: -1}":                                                    "limit of the key default/a, for *: a limit is not below zero",
		"limits:\n- {concurrency: 1}\n- {concurrency: 2}":                                         "limit of all, for * is declared already",
		"budgets:\n- {usd: 1}":                                                                    "a.yaml:2: budget of nobody: it needs a key or a tenant",
		"budgets:\n- {tenant: a}":                                                                 "budget of the tenant a: it needs usd",
		"budgets:\n- {tenant: a, usd: -1}":                                                        "it is negative",
		"budgets:\n- {key: a, usd: .nan}":                                                         "not an amount of dollars",
		"budgets:\n- {key: a, usd: 1e30}":                                                         "not an amount of dollars",
		"prices:\n- {model: m}":                                                                   "a.yaml:2: price m: it needs rates",
		"prices:\n- {model: m, rates: [{input: a}]}":                                              "input: \"a\" is not an amount of dollars",
		"plugins:\n- {name: p}":                                                                   "a.yaml:2: plugin p: it needs a source",
		"plugins:\n- {name: p, source: absent.wasm}":                                              "a.yaml:2: plugin p: source: there is no such module",
		"attachments:\n- {tenant: a}":                                                             "a.yaml:2: attachment of nothing: it needs a plugin",
		"attachments:\n- {plugin: p, version: 12ab}":                                              "attachment p, for all: version: it is the whole digest",
		"attachments:\n- {plugin: p, tenant: a, time: 5}":                                         `attachment p, for the tenant a: time: "5" is not a time`,
		"attachments:\n- {plugin: p, key: k, upstreams: [{name: a}]}":                             "attachment p, for the key default/k: upstreams: each needs",
		"attachments:\n- {plugin: p, config: '@/absent'}":                                         "config: file does not exist",
		"attachments:\n- {plugin: p, grant: log}":                                                 `unknown field "grant"`,
		"attachments:\n- {plugin: p}\n- {plugin: p, place: 3}":                                    "attachment p, for all is declared already, at a.yaml:2",
		"tenants:\n- name: \"a\\tb\"":                                                             "a.yaml:2: tenant a\tb: invalid tenant name",
		"tenants:\n- {name: a, time_zone: Mars/Olympus}":                                          "is not known",
		"keys:\n- {name: K, hash: '" + hash + "'}":                                                "invalid key name",
		"keys:\n- {name: k, hash: 'sha256:zz'}":                                                   "hexadecimal",
		"keys:\n- {name: k, hash: '" + hash + "', expires: '2020-01-01T00:00:00Z'}":               "in the past",
		"keys:\n- {name: k, hash: '" + hash + "', allow_ip: [10.0.0.1/8]}":                        "do you mean 10.0.0.0/8",
		"keys:\n- {name: k, hash: '" + hash + "', tags: {a: \"\\a\"}}":                            "printable",
		"keys:\n- {name: k, hash: '" + hash + "', allow_ip: ['fe80::1%eth0/64']}":                 "is not as in",
		"limits:\n- {key: a, requests_per_minute: 99999999999999999999}":                          "does not fit",
		"limits:\n- {key: a, requests_per_minute: 9000000000000000}":                              "from 1 to",
		"limits:\n- {key: a, requests_per_minute: 5, burst_seconds: .nan}":                        "burst_seconds",
		"limits:\n- {key: a, requests_per_minute: 5, burst_seconds: 1e300}":                       "burst_seconds",
		"limits:\n- {key: a, requests_per_minute: 5, model: a b}":                                 "spaces",
		"budgets:\n- {key: a, usd: 5, period: year}":                                              "none of day, week, month, never",
		"budgets:\n- {key: a, usd: 5, notices: [500]}":                                            "percent",
		"prices:\n- {model: m, max_output: -5, rates: [{input: 1, output: 1}]}":                   "negative",
		"prices:\n- {model: m, rates: [{input: 1}]}":                                              "must be given",
		"prices:\n- {model: m, rates: [{input: 1000001, output: 1}]}":                             "from 0 to",
		"channels:\n- {name: c}":                                                                  "needs a provider",
		"channels:\n- {name: c, provider: azure}":                                                 "needs a base_url",
		"channels:\n- {name: c, provider: openai}":                                                "needs models",
		"channels:\n- {name: c, provider: openai, models: ['a=']}":                                `"a=" is not MODEL`,
		"channels:\n- {name: c, provider: openai, models: [a], api_key: sk-plain}":                "api_key: a secret does not stand in the file",
		"tenants:\n- name: a\n---\ntenants:\n- name: b\n  x: 1\nkeys:\n- name: k":                 "a.yaml:6: unknown field",
		"tenants:\n- name: a\n  groups: [x]\n  disabled: perhaps\nkeys:\n- {name: k, expires: x}": "a.yaml:4: ",
	} {
		_, err := read(map[string]string{"SHORT": "1234567", "/empty": "\n"}, text)
		if e, ok := errors.AsType[*apply.Error](err); !ok || !strings.Contains(e.Error(), want) || strings.Contains(err.Error(), "sk-plain") {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
	}
	_, err := read(nil, "tenants:\n- name: a\n  x: 1\n", "routes: []\n", "tenants: [{name: b}, {name: b}]")
	if e, ok := errors.AsType[*apply.Error](err); !ok || len(e.Problems) != 3 {
		t.Errorf("all mistakes of all files: %v", err)
	}
}

// run plans and takes the steps, and returns them as lines.
func run(t *testing.T, c *admin.Client, prune bool, env map[string]string, texts ...string) []string {
	t.Helper()
	d, err := read(env, texts...)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := apply.Plan(t.Context(), c, apply.Kinds(), d, prune)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range steps {
		line := s.Action + " " + s.Kind + " " + s.Name
		for _, d := range s.Changes {
			if s.Action == apply.Change {
				line += " " + d.Field
			}
		}
		lines = append(lines, line)
		if err := s.Do(t.Context()); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return lines
}

func client(t *testing.T) (*admin.Client, *admintest.Server) {
	t.Helper()
	s := admintest.Start(t, nil, func(h http.Handler) http.Handler { return h })
	c, err := admin.NewClient(s.URL, admintest.Token)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestApplyMakesWhatIsDeclaredAndThenNothing(t *testing.T) {
	c, _ := client(t)
	example, err := os.ReadFile("../../deploy/apply.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"OPENAI_API_KEY": "sk-provider", "CI_KEY": "sk-of-ci-0123456789", "module guard.wasm": module(403)}
	text := string(example)
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", what, diff)
		}
	}
	expect("the first time", run(t, c, true, env, text), "create tenant acme", "create channel openai", "create key acme/laptop", "create key default/ci",
		"create limit of the key acme/laptop, for gpt-4o*", "create limit of the tenant acme, for each key, for *",
		"create budget of the key acme/laptop", "create budget of the tenant acme", "create price vllm/*", "create plugin guard", "create attachment guard, for the key acme/laptop")
	expect("again", run(t, c, true, env, text))
	text = strings.NewReplacer("weight: 1", "weight: 7", "usd: 20", "usd: 30.5", "time_zone: UTC", "time_zone: Europe/Berlin", "output: 0.8", "output: 0.9", "place: 0", "place: 5", "words: [dragon]", "words: [unicorn, dragon]", `["gpt-4o*"]`, `["*"]`, "tokens_per_minute: 100000\n", "tokens_per_minute: 5\n", "expires: 2099-01-01T00:00:00Z", "").Replace(text)
	expect("other values", run(t, c, false, env, text), "change tenant acme time_zone", "change channel openai weight", "change key acme/laptop models expires",
		"change limit of the key acme/laptop, for gpt-4o* tokens_per_minute", "change budget of the key acme/laptop usd", "change price vllm/* rates", "change attachment guard, for the key acme/laptop place config")
	expect("and again", run(t, c, false, env, text))
	env = maps.Clone(env)
	env["OPENAI_API_KEY"], env["CI_KEY"] = "sk-another", "sk-another-of-ci"
	expect("other secrets", run(t, c, false, env, text), "change channel openai api_key", "change key default/ci secret")
	expect("the same ones", run(t, c, false, env, text))

	if _, err := c.SetTenant(t.Context(), "acme", admin.TenantChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	expect("what somebody changed", run(t, c, false, env, text), "change tenant acme disabled")
	// Sections that are in no file are left alone, others are emptied; what uses a thing goes before it.
	expect("no tenants", run(t, c, false, env, "tenants: []"))
	expect("only tenants", run(t, c, true, env, "channels:\n"), "delete channel openai")
	expect("only limits", run(t, c, true, env, "limits:\n- {tenant: acme, each_key: true, requests_per_minute: 60}"),
		"change limit of the tenant acme, for each key, for * concurrency", "delete limit of the key acme/laptop, for gpt-4o*")
	expect("no limits", run(t, c, true, env, "limits: []"), "delete limit of the tenant acme, for each key, for *")
	expect("no budgets and prices", run(t, c, true, env, "budgets: []\nprices:\n"), "delete price vllm/*", "delete budget of the tenant acme",
		"delete budget of the key acme/laptop")
	expect("no plugins", run(t, c, true, env, "plugins: []\nattachments: []\n"), "delete attachment guard, for the key acme/laptop", "delete plugin guard")
	expect("no keys and tenants", run(t, c, true, env, "tenants: []\nkeys: []\n"), "delete key default/ci", "delete key acme/laptop", "delete tenant acme")
	expect("nothing is left", run(t, c, true, env, "tenants: []\nchannels: []\nkeys: []"))
}

func TestEveryMemberIsDeclaredInTheExample(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../deploy/apply.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := read(map[string]string{"OPENAI_API_KEY": "sk-provider", "CI_KEY": "sk-of-ci-0123456789", "module guard.wasm": module(403)}, string(example))
	if err != nil || d == nil {
		t.Fatal(err)
	}
	for _, k := range apply.Kinds() {
		for _, f := range k.New().Fields() {
			if f.Name != "secret" && !strings.Contains(string(example), "    "+f.Name+": ") {
				t.Errorf("%s: the example has no %s", k.Section, f.Name)
			}
		}
	}
}

func TestFailureSaysWhereTheThingWasDeclared(t *testing.T) {
	c, s := client(t)
	if _, err := s.Store.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	d, err := read(map[string]string{"K": "sk-0123456789"}, "tenants:\n- name: acme\nkeys:\n- name: k\n  tenant: nobody\n  secret: env:K\n")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := apply.Plan(t.Context(), c, apply.Kinds(), d, false)
	if err != nil || len(steps) != 1 {
		t.Fatalf("steps %+v, %v", steps, err)
	}
	if err := steps[0].Do(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "a.yaml:4: ") {
		t.Errorf("error %v", err)
	}
	keys, err := s.Store.Keys(t.Context(), store.KeyFilter{})
	if err != nil || slices.ContainsFunc(keys, func(k store.Key) bool { return k.Name == "k" }) {
		t.Errorf("keys %v, %v", keys, err)
	}
}
