// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
)

// newLogger logs to standard error: as text for people at a terminal, as JSON for everything else.
func newLogger(c *cobra.Command, level slog.Level) *slog.Logger {
	w := c.ErrOrStderr()
	o := &slog.HandlerOptions{Level: level}
	if isTerminal(w) && !asJSON(c) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// configured is a program that weir.yaml configures.
type configured struct {
	command *cobra.Command
	secrets bool // it needs the database, the secret key and the token
	run     func(ctx context.Context, cfg config.Config, log *slog.Logger) error
}

func (p configured) build() *cobra.Command {
	var path string
	p.command.Flags().StringVar(&path, "config", "weir.yaml", "the `FILE` of the configuration")
	p.command.Args = arguments()
	p.command.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			return withHint(err, "say where it is with --config; deploy/weir.yaml is one to begin with")
		}
		if err != nil {
			return err
		}
		if p.secrets {
			if err := cfg.ValidateSecrets(); err != nil {
				return withHint(err, "secrets come from the environment, or from the files that DATABASE_URL_FILE, WEIR_SECRET_KEY_FILE and WEIR_ADMIN_TOKEN_FILE name")
			}
		}
		return p.run(c.Context(), cfg, newLogger(c, cfg.LogLevel))
	}
	return p.command
}

func serveCommand(p Programs) *cobra.Command {
	return configured{
		command: &cobra.Command{
			Use:   "serve [--config FILE]",
			Short: "Run the processor, in production",
			Long: `Run the processor: it decides on each request for Envoy, configures Envoy, ships usage to Postgres, and serves the admin API.

DATABASE_URL, WEIR_SECRET_KEY and WEIR_ADMIN_TOKEN come from the environment, or from the files that DATABASE_URL_FILE and so on
name. Where Postgres is down it waits, answers /readyz with 503, and refuses requests; a wrong password or database is an error.

SIGTERM stops it: it decides on no more requests, waits for the lines of those in flight for processor.drain, ships the log, and says
what it leaves on the disk. Requests that it has decided on go on in Envoy, and new ones wait there some 4 s for the next processor,
so that stopping it and starting it again fails none. It may be started before the old one has stopped. A second SIGTERM ends it at
once.`,
			Example: "  weir serve --config /etc/weir/weir.yaml",
		},
		secrets: true,
		run:     p.Serve,
	}.build()
}

func envoyCommand(p Programs) *cobra.Command {
	var node, admin string
	c := configured{
		command: &cobra.Command{
			Use:   "envoy [--config FILE] [--node NAME] [--admin ADDRESS]",
			Short: "Run Envoy, configured by the processor",
			Long: `Run Envoy 1.40 or later with a bootstrap made for this Weir. It may start before "weir serve" or after it, and goes on when that stops:
streams in flight run to their end. It needs none of the secrets.

One processor serves several Envoys. Each but one needs a name of its own, by which its access log is named, and on the same machine an
admin address of its own. On another machine than the processor it needs envoy.processor and envoy.access_log in its file.`,
			Example: `  weir envoy --config /etc/weir/weir.yaml
  weir envoy --config /etc/weir/weir.yaml --node second --admin 127.0.0.1:10012`,
		},
		run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			cfg.Envoy.Node = node
			if admin != "" {
				cfg.Envoy.Admin = admin
				if err := cfg.Validate(); err != nil {
					return wrongUsage("--admin: %v", err)
				}
			}
			return p.Envoy(ctx, cfg, log)
		},
	}.build()
	c.Flags().StringVar(&node, "node", "weir", "the `NAME` of this Envoy")
	c.Flags().StringVar(&admin, "admin", "", "the `ADDRESS` of this Envoy's admin interface, instead of envoy.admin")
	return c
}

// devPorts is how many ports weir dev takes, from its first.
const devPorts = 5

// defaultDevPort is documented with weir dev.
const defaultDevPort = 10000

func devCommand(p Programs) *cobra.Command {
	var dir string
	var port int
	c := &cobra.Command{
		Use:   "dev [--port N] [--dir DIR]",
		Short: "Run everything on this machine, to try it out",
		Long: `Run Envoy, the processor, Postgres and a provider on this machine, and print a key. What is missing is fetched once. Ctrl-C stops all of
it; the next start keeps the data.

The provider is OpenAI when OPENAI_API_KEY is set, else a built-in one that invents its answers. Ports, all on 127.0.0.1, from N:
N gateway, N+1 admin API, N+2 Envoy's admin, N+3 built-in provider, N+4 Postgres.

$WEIR_DEV_PLUGIN_HEADERS names headers that plugins may be shown, as plugins.headers of weir.yaml does.

It is not safe for more than that: its key sk-weir-dev and its admin token weir-dev-admin are known to all.`,
		Example: `  weir dev
  curl http://127.0.0.1:10000/v1/models -H 'authorization: Bearer sk-weir-dev'`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("port") {
				if s := os.Getenv("WEIR_DEV_PORT"); s != "" {
					n, err := strconv.Atoi(s)
					if err != nil {
						return wrongUsage("WEIR_DEV_PORT %q is not a number", s)
					}
					port = n
				}
			}
			if port < 1 || port > 65536-devPorts {
				return wrongUsage("port %d: must be from 1 to %d, because %d are needed", port, 65536-devPorts, devPorts)
			}
			if !c.Flags().Changed("dir") {
				if s := os.Getenv("WEIR_DEV_DIR"); s != "" {
					dir = s
				}
			}
			if dir == "" {
				return wrongUsage("--dir must not be empty")
			}
			return p.Dev(c.Context(), DevOptions{Dir: dir, Port: port, Out: c.OutOrStdout(), Log: newLogger(c, slog.LevelInfo)})
		},
	}
	c.Flags().IntVar(&port, "port", defaultDevPort, "`N`, the first of the ports, or $WEIR_DEV_PORT")
	c.Flags().StringVar(&dir, "dir", defaultDevDir, "the `DIR` where its state is kept, or $WEIR_DEV_DIR")
	return c
}

func fakeCommand(p Programs) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:   "fake-provider [--listen ADDRESS]",
		Short: "Run a provider that invents its answers, for tests",
		Long: `Run a provider that speaks OpenAI's API, invents its answers, and counts what it served: GET /ledger, POST /ledger/reset.
Headers of a request steer it: x-fake-delay-ms, x-fake-interval-ms, x-fake-tokens, x-fake-status, x-fake-cut-after, x-fake-no-usage.`,
		Example: `  weir fake-provider --listen 127.0.0.1:10003
  weir channel add fake --provider fake --base-url http://127.0.0.1:10003/v1 --models fake-model`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(listen); err != nil {
				return wrongUsage("--listen %q is not HOST:PORT", listen)
			}
			return p.FakeProvider(c.Context(), listen, newLogger(c, slog.LevelInfo))
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:10003", "the `ADDRESS` where it listens")
	return c
}

func versionCommand(version string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long:  "Print the version of this program. weir doctor compares it with that of the server.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			v := admin.Version{Version: version, Go: runtime.Version()}
			if asJSON(c) {
				return printJSON(c, v)
			}
			c.Println("weir", v.Version, v.Go)
			return nil
		},
	}
}
