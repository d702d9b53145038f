// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// layer says which packages of this repository a package may import, and why no others.
type layer struct {
	may []string
	why string
}

// layers has every package that is built into a program. Tests may import more: they put real parts together.
var layers = map[string]layer{
	"policy":                        {[]string{"internal/jsonscan"}, "the domain knows nothing of what is around it: dependencies point to it"},
	"policy/limit":                  {[]string{"policy"}, "it counts by a clock that it is given; where replicas meet is not its business"},
	"usage":                         {[]string{"policy", "usage/journal"}, "it reads a file and writes to a Book; who writes the one and keeps the other is not its business"},
	"policy/budget":                 {[]string{"policy"}, "it keeps leases; who keeps the budgets, and who tells of ends, is not its business"},
	"extproc":                       {[]string{"policy"}, "it translates between Envoy and the engine, and decides nothing"},
	"envoy":                         {[]string{"policy", "envoy/native", "internal/child", "internal/wheel"}, "it makes configuration of channels; who decides and who keeps them is not its business"},
	"envoy/native":                  {nil, "it holds what was built; who loads it is not its business"},
	"usage/journal":                 {nil, "it keeps tickets, whatever is in them, and knows nothing of who admits and who settles"},
	"plugins/abi":                   {nil, "it is a format, whoever speaks it"},
	"plugins/host":                  {[]string{"plugins/abi", "plugins/meter", "plugins/pii"}, "it runs plugins and says what they said; who asks them, and what becomes of a verdict, is policy's and extproc's business"},
	"plugins/pii":                   {nil, "it reads bytes"},
	"plugins/sdk/go":                {nil, "it is built into plugins, and so are its imports"},
	"plugins/examples/guard-go":     {[]string{"plugins/sdk/go"}, "it shows what a plugin needs"},
	"plugins/sdk":                   {nil, "it is sources, for who begins a plugin"},
	"plugins/trial":                 {[]string{"policy", "plugins/abi", "plugins/answer", "plugins/chain", "plugins/host", "plugins/meter", "plugins/proxywasm"}, "it puts a plugin into an exchange without a gateway; what is tried is not its business"},
	"plugins/workshop":              {[]string{"plugins/sdk"}, "it writes and builds files; it runs no plugin"},
	"plugins/library/limits":        {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/library/model-alias":   {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/library/pii-redactor":  {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/library/prompt-guard":  {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/library/router":        {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/library/system-prompt": {[]string{"plugins/sdk/go"}, "it is a module of its own, and knows the host by its interface alone"},
	"plugins/meter":                 {nil, "it turns bytes into bytes, whoever runs them"},
	"plugins/wasmtest":              {nil, "it serves tests"},
	"cmd/weir":                      {[]string{"internal/app", "internal/cli", "internal/config", "internal/fake", "internal/profile", "internal/version"}, "main names the parts of the program and has no code of its own"},
	"plugins/prompt":                {[]string{"policy", "plugins/abi", "internal/jsonscan"}, "it turns bytes into bytes, whoever judges them"},
	"plugins/chain":                 {[]string{"policy", "plugins/abi", "plugins/answer", "plugins/host", "plugins/prompt", "plugins/proxywasm"}, "it asks plugins in the engine's place; where they come from is not its business"},
	"plugins/answer":                {[]string{"plugins/abi", "policy", "usage", "internal/jsonscan"}, "it turns a response into events and verdicts into bytes; who judges, and who moves the bytes, is not its business"},
	"plugins/proxywasm":             {[]string{"policy", "plugins/abi", "plugins/host", "plugins/meter"}, "another ABI on the same machinery; of weir/1 it needs which headers are taken"},
	"internal/app": {
		[]string{
			"envoy", "extproc", "policy", "policy/budget", "policy/limit", "usage", "usage/journal", "internal/admin", "internal/child", "internal/config",
			"internal/costs", "internal/fake", "internal/kept", "internal/loader", "internal/mesh", "internal/postgres", "internal/prices", "internal/store",
			"internal/telemetry", "internal/tokens", "internal/version", "plugins/chain", "plugins/host", "plugins/proxywasm",
		},
		"it puts the parts together; the command line calls it, not the other way round",
	},
	"internal/admin":           {[]string{"policy", "policy/limit", "usage", "internal/prices", "internal/store"}, "the API is the store's, for people; it must not need a running gateway"},
	"internal/admin/admintest": {[]string{"policy", "usage", "internal/admin", "internal/loader", "internal/prices", "internal/store", "internal/postgres/pgtest", "plugins/host", "plugins/proxywasm"}, "it serves tests"},
	"internal/apply":           {[]string{"policy/budget", "internal/admin"}, "it compares files with what the API says, as any other client could"},
	"internal/authority":       {nil, "it serves tests"},
	"internal/child":           {nil, "it runs processes, whichever they are"},
	"internal/filelock":        {nil, "it locks files, whatever they are for"},
	"internal/cli": {
		[]string{
			"policy", "policy/budget", "usage", "usage/journal", "internal/admin", "internal/apply", "internal/config", "internal/fetch", "internal/oneapi", "internal/store",
			"plugins/host", "plugins/trial", "plugins/workshop",
		},
		"the commands speak to the API as any other client does, or read files; the store and the host are there for their types",
	},
	"deploy":                      {nil, "it is files, and tests of them"},
	"deploy/image":                {nil, "it packs a file, whichever it is"},
	"internal/mesh":               {[]string{"envoy"}, "it says to a mesh what package envoy says to Envoy, and knows no more"},
	"internal/telemetry":          {[]string{"policy", "usage", "internal/config"}, "it tells of rows; who makes them and who asks is not its business"},
	"internal/config":             {nil, "what a process is told must not depend on what it does with it"},
	"internal/fake":               {nil, "a provider that shares code with the gateway would share its mistakes"},
	"internal/jsonscan":           {nil, "it reads bytes"},
	"internal/kept":               {[]string{"policy", "internal/store"}, "it keeps what the store has read; when to read it and when to believe it is not its business"},
	"internal/layering":           {nil, "it is tests alone"},
	"internal/oneapi":             {[]string{"policy/budget"}, "it turns files into a file; what is made of that is package apply's business"},
	"internal/postgres":           {[]string{"internal/child", "internal/filelock", "internal/wheel"}, "it runs a server; what is in it is store's business"},
	"internal/postgres/pgtest":    {[]string{"internal/postgres", "internal/repo"}, "it serves tests"},
	"internal/prices":             {nil, "what a token costs does not depend on who asks"},
	"internal/costs":              {[]string{"policy", "usage", "internal/prices", "internal/tokens"}, "it puts a price on what those count; who reserves or keeps money is not its business"},
	"internal/prices/gen":         {nil, "it writes a file, from a list that it fetches"},
	"internal/profile":            {nil, "it watches the process, whatever that does"},
	"internal/repo":               {nil, "it serves tests"},
	"internal/sdks":               {[]string{"internal/repo", "internal/wheel"}, "it serves tests"},
	"internal/store":              {[]string{"policy", "policy/budget", "policy/limit", "usage", "internal/prices"}, "it keeps what those define"},
	"internal/tokens":             {[]string{"internal/jsonscan", "internal/tokens/bpe"}, "it reads a body; what is done with the number is not its business"},
	"internal/tokens/bpe":         {nil, "it counts bytes"},
	"internal/tokens/bpe/gen":     {nil, "it writes what bpe embeds, so it cannot need it"},
	"internal/tokens/bpe/oracle":  {[]string{"internal/tokens/bpe", "internal/tokens/bpe/samples"}, "it compares bpe with tiktoken"},
	"internal/tokens/bpe/samples": {nil, "it makes texts for tests, in which bpe may use it"},
	"internal/version":            {nil, "it is one string"},
	"internal/wheel":              {[]string{"internal/filelock"}, "it fetches packages, whichever they are"},
	"internal/fetch":              {nil, "it gets bytes from elsewhere, whatever is in them"},
	"internal/loader":             {[]string{"policy", "plugins/abi", "plugins/chain", "plugins/host", "plugins/meter", "plugins/proxywasm", "internal/store"}, "it makes what is attached ready to judge; who attaches it is not its business"},
}

// onlyForTests are packages that no program may contain.
var onlyForTests = []string{"internal/admin/admintest", "internal/authority", "internal/postgres/pgtest", "internal/repo", "internal/sdks", "plugins/wasmtest", "test/rig"}

func TestDependenciesPointToPolicy(t *testing.T) {
	t.Parallel()
	r := load(t)
	seen := map[string]bool{}
	for _, s := range r.code {
		seen[s.pkg] = true
		if strings.HasPrefix(s.pkg, "test/") {
			continue // put together from everything
		}
		l, known := layers[s.pkg]
		if !known {
			t.Errorf("%s: give the package %s a place in the table layers, and a row in docs/architecture.md", s.path, s.pkg)
			continue
		}
		if s.test {
			continue
		}
		for _, p := range ours(s) {
			if !slices.Contains(l.may, p) {
				t.Errorf("%s imports %s: %s", s.path, p, l.why)
			}
			if slices.Contains(onlyForTests, p) && !slices.Contains(onlyForTests, s.pkg) {
				t.Errorf("%s imports %s, which is for tests alone", s.path, p)
			}
		}
	}
	for p := range layers {
		if !seen[p] {
			t.Errorf("the table layers has a package that is gone: %s", p)
		}
	}
}

// ours returns the packages of this repository that a file imports.
func ours(s *source) []string {
	var out []string
	for _, i := range s.imports {
		if p, ok := strings.CutPrefix(i, module+"/"); ok {
			out = append(out, p)
		}
	}
	return out
}

// library says which packages may use a module.
type library struct {
	by  []string // patterns of path.Match; a test is free to use what the package may, and what anyTest has
	why string
}

// libraries has every module that this repository uses itself; docs/adr/0006-choose-dependencies.md says why it does.
var libraries = map[string]library{
	"github.com/envoyproxy/go-control-plane":   {[]string{"envoy", "extproc", "internal/app", "internal/mesh", "test/*"}, "Envoy's types end where Envoy is spoken to"},
	"github.com/tetratelabs/wazero":            {[]string{"plugins/host", "plugins/meter", "envoy/native"}, "guests are run by the host of plugins; the meter's tests run them with and without meters, and the native tap's run it where a byte read too far is seen"},
	"github.com/cncf/xds/go":                   {[]string{"envoy"}, "a matcher of Envoy is made of its types"},
	"google.golang.org/grpc":                   {[]string{"envoy", "extproc", "internal/app", "internal/telemetry", "test/*"}, "only Envoy is spoken to by gRPC; its spans are telemetry's"},
	"google.golang.org/protobuf":               {[]string{"envoy", "extproc", "internal/mesh", "internal/telemetry", "test/*"}, "only Envoy is spoken to in protobuf"},
	"github.com/jackc/pgx/v5":                  {[]string{"internal/store", "internal/postgres", "internal/postgres/pgtest", "test/*"}, "SQL is in the store"},
	"github.com/pressly/goose/v3":              {[]string{"internal/store"}, "migrations are the store's"},
	"github.com/spf13/cobra":                   {[]string{"internal/cli", "internal/layering"}, "only the command line parses a command line"},
	"github.com/goccy/go-yaml":                 {[]string{"internal/apply", "internal/config", "internal/mesh"}, "weir.yaml is YAML, and so are what is applied and what a mesh is told"},
	"github.com/prometheus/client_golang":      {[]string{"envoy", "extproc", "plugins/chain", "usage", "usage/journal", "internal/app", "internal/admin/admintest", "internal/loader", "internal/telemetry", "test/*"}, "metrics belong to what runs in the processor; policy reports by its results"},
	"github.com/google/uuid":                   {[]string{"*", "*/*", "*/*/*"}, "an id is an id everywhere"},
	"oras.land/oras-go/v2":                     {[]string{"internal/fetch"}, "registries are spoken to in one place"},
	"github.com/opencontainers/image-spec":     {[]string{"internal/fetch"}, "registries are spoken to in one place"},
	"github.com/santhosh-tekuri/jsonschema/v6": {[]string{"internal/loader"}, "configurations are checked where plugins are tried"},
	"go.opentelemetry.io/otel":                 {[]string{"internal/telemetry"}, "collectors are spoken to in one place"},
	"go.opentelemetry.io/proto/otlp":           {[]string{"internal/telemetry", "test/e2e"}, "collectors are spoken to in one place"},
	"golang.org/x/sync":                        {[]string{"internal/*", "test/*"}, "the domain starts no goroutines"},
	"golang.org/x/sys":                         {[]string{"plugins/host"}, "only the memory of plugins needs calls that the standard library has not"},
	"github.com/google/go-cmp":                 {[]string{"internal/repo"}, "it panics on what it does not understand: tests, and what they stand on"},
	"github.com/rogpeppe/go-internal":          {nil, "it runs scripts: tests alone"},
	"istio.io/api":                             {[]string{"test/mesh"}, "what istiod reads is read as it reads it in the tests of a module of their own, and nowhere else"},
	"istio.io/istio":                           {[]string{"test/mesh"}, "istiod runs in the tests of a module of their own, and nowhere else"},
}

// anyTest are the modules that every test may use.
var anyTest = []string{"github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "github.com/goccy/go-yaml"}

func TestLibrariesStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, s := range r.code {
		for _, i := range s.imports {
			m, l, known := libraryOf(i)
			switch {
			case strings.HasPrefix(i, module+"/") || !strings.Contains(strings.SplitN(i, "/", 2)[0], "."):
			case !known:
				t.Errorf("%s imports %s: the default answer to a new dependency is no; else it needs an ADR, and a row in the table libraries", s.path, i)
			case s.test && slices.Contains(anyTest, m):
			case !matches(l.by, s.pkg):
				t.Errorf("%s imports %s: %s", s.path, i, l.why)
			}
		}
	}
}

// libraryOf finds the row of an import.
func libraryOf(imported string) (module string, l library, known bool) {
	for m, l := range libraries {
		if imported == m || strings.HasPrefix(imported, m+"/") {
			return m, l, true
		}
	}
	return "", library{}, false
}

func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, pkg)
		return err == nil && ok
	})
}

func TestDecisionRecordNamesEveryDependency(t *testing.T) {
	t.Parallel()
	r := load(t)
	used := map[string]bool{}
	for _, s := range r.code {
		for _, i := range s.imports {
			if m, _, known := libraryOf(i); known {
				used[m] = true
			}
		}
	}
	record := r.contents(t, "docs/adr/0006-choose-dependencies.md")
	for m := range libraries {
		if !used[m] {
			t.Errorf("nothing imports %s: take it out of the table libraries, and of go.mod", m)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(used)) {
		if !strings.Contains(record, "`"+m+"`") {
			t.Errorf("docs/adr/0006-choose-dependencies.md does not say why %s is used", m)
		}
	}
}
