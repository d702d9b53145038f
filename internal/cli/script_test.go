// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weir-proxy/weir/internal/admin/admintest"
	"github.com/weir-proxy/weir/internal/cli"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weir": func() {
		os.Exit(cli.Main(context.Background(), programs(os.Stdout), os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
	}})
}

// programs say what they were asked to do, so that scripts can see it.
func programs(w io.Writer) cli.Programs {
	configured := func(name string) func(context.Context, config.Config, *slog.Logger) error {
		return func(_ context.Context, c config.Config, log *slog.Logger) error {
			fmt.Fprintf(w, "%s: gateway %s, secrets %t", name, c.Gateway.Listen, c.ValidateSecrets() == nil)
			if c.Envoy.Node != "" {
				fmt.Fprintf(w, ", node %s, admin %s", c.Envoy.Node, c.Envoy.Admin)
			}
			fmt.Fprintln(w)
			log.Debug("a debug line")
			log.Info("an info line")
			return nil
		}
	}
	return cli.Programs{
		Serve: configured("serve"),
		Envoy: configured("envoy"),
		Dev: func(_ context.Context, o cli.DevOptions) error {
			_, err := fmt.Fprintf(o.Out, "dev: port %d, dir %s\n", o.Port, o.Dir)
			return err
		},
		FakeProvider: func(_ context.Context, listen string, _ *slog.Logger) error {
			_, err := fmt.Fprintf(w, "fake: %s\n", listen)
			return err
		},
		Render: func(c config.Config, o cli.RenderOptions) ([]byte, error) {
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s: %v, socket %s, at %q, labels %v, gateway %q\n", o.Mesh, o.What, c.Processor.Socket, o.Place, o.Labels, o.Target)
			for _, channel := range o.Channels {
				fmt.Fprintf(&b, "channel %s\n", channel.Name)
			}
			return b.Bytes(), nil
		},
		Version: admintest.Version,
	}
}

// Each script has a server with a database of its own, whose address and token are in its environment, and a provider at $PROVIDER that
// takes the credential "good".
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			s := admintest.Start(t, nil, nil)
			provider := httptest.NewServer(fake.New(fake.Options{
				Credentials: map[string]string{"good": "a"}, Models: []string{"gpt-4o", "gpt-4o-mini"},
			}))
			t.Cleanup(provider.Close)
			elsewhere := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(elsewhere.Close)
			env.Setenv("WEIR_URL", s.URL)
			env.Setenv("WEIR_TOKEN", admintest.Token)
			env.Setenv("PROVIDER", provider.URL+"/v1")
			env.Setenv("ELSEWHERE", elsewhere.URL)
			env.Setenv("TZ", "UTC")
			env.Values[storeKey{}] = s.Store
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"used":    used,
			"status":  status,
			"journal": keepJournal,
			"damage":  damage,
			"guest":   guest,
			"filter":  filter,
		},
	})
}

type storeKey struct{}

// used KEY CHANNEL MODEL N posts N rows of usage. Those of gpt-4o have a cost, all others none.
func used(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: used KEY CHANNEL MODEL N")
	}
	ctx := context.Background()
	s, _ := ts.Value(storeKey{}).(*store.Store)
	k, err := s.Key(ctx, args[0])
	ts.Check(err)
	ch, err := s.Channel(ctx, args[1])
	ts.Check(err)
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	records := make([]usage.Record, n)
	for i := range records {
		records[i] = usage.Record{
			Tenant: k.Tenant, Key: k.ID, Channel: ch.ID, Model: strings.ReplaceAll(args[2], `\e`, "\x1b"), UpstreamModel: "up", Operation: policy.OpChat,
			Status: usage.StatusOK, HTTPStatus: 200, Attempts: 1, Tokens: usage.Tokens{Input: 100, CachedInput: 20, Output: 50, Reasoning: 10},
			FirstByte: 30 * time.Millisecond, Duration: 400 * time.Millisecond,
		}
		if args[2] == "gpt-4o" {
			records[i].Cost = usage.Cost{CostNanoUSD: 1_234_500, PriceVersion: 5}
		}
	}
	ts.Check(admintest.PostUsage(ctx, s, records...))
}

// journal DIR makes a journal of three exchanges, the first of which is settled.
func keepJournal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: journal DIR")
	}
	j, _, err := journal.Open(ts.MkAbs(args[0]), journal.Options{})
	ts.Check(err)
	for n := range 3 {
		t := policy.Ticket{
			Exchange: uuid.MustParse(fmt.Sprintf("0190163d-8694-739b-aea5-00000000000%d", n)), Tenant: 1, Key: 2, Operation: policy.OpChat,
			Stream: n == 1, Model: "gpt-4o\x1b[31m", Choices: []policy.Choice{{Channel: 7}},
		}
		ts.Check(j.Append(journal.Intent{Exchange: t.Exchange, Ticket: t.String(), Bytes: int64(100 + n)}))
		if n == 0 {
			j.Settle(t.Exchange)
		}
	}
	ts.Check(j.Close())
}

// guest FILE TAG makes a plugin that tags every request. If the tag is "picky", it wants a configuration and the capability log; if it is "bad", it
// has nothing to call.
func guest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: guest FILE TAG")
	}
	g := wasmtest.Guest{Request: wasmtest.TagVerdict("v", args[1]), About: `{"name":"Guard","version":"1.0","description":"tags"}`, Schema: `{ "type": "object" }`}
	switch args[1] {
	case "picky":
		g.Picky, g.Imports = true, []string{"log"}
	case "bad":
		g.Request = nil
	}
	wasm := g.Wasm()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), wasm, 0o600))
	ts.Setenv("DIGEST", store.DigestOf(wasm).String())
}

// filter FILE makes a plugin that speaks proxy-wasm and calls the upstream judge.
func filter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: filter FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), wasmtest.Filter{Upstream: "judge", Picky: true}.Wasm(), 0o600))
}

// damage FILE turns a bit in the middle of a file, whose name may be a pattern.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if neg || len(args) != 1 || len(files) != 1 {
		ts.Fatalf("usage: damage FILE, of which there is one")
	}
	b, err := os.ReadFile(files[0])
	ts.Check(err)
	b[len(b)/2] ^= 4
	ts.Check(os.WriteFile(files[0], b, 0o600))
}

// status N COMMAND runs a command that must exit with status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("got exit status %s, want %s", got, args[0])
	}
}
