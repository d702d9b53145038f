// SPDX-License-Identifier: Apache-2.0

// Weir is a gateway for language-model APIs. See the README, or weir help.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/cli"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/profile"
	"github.com/weir-proxy/weir/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // whoever asks twice does not want to wait: the second signal ends the process
	if dir := os.Getenv(profile.Variable); dir != "" {
		go serveProfiles(ctx, dir)
	}
	if len(os.Args) == 4 && os.Args[1] == app.DevProcessorCommand {
		if err := app.DevProcessor(ctx, os.Args[2], os.Args[3]); err != nil {
			slog.Error("processor failed", "err", err)
			os.Exit(1) //nolint:gocritic // the process ends here
		}
		return
	}
	os.Exit(cli.Main(ctx, cli.Programs{
		Serve: app.Serve,
		Envoy: app.Envoy,
		Dev: func(ctx context.Context, o cli.DevOptions) error {
			return app.Dev(ctx, app.DevOptions{Dir: o.Dir, Port: o.Port, Out: o.Out, Log: o.Log})
		},
		FakeProvider: func(ctx context.Context, listen string, log *slog.Logger) error {
			log.Info("fake provider started", "listen", listen)
			return fake.New(fake.Options{}).Run(ctx, listen)
		},
		Render: func(c config.Config, o cli.RenderOptions) ([]byte, error) {
			return app.Render(c, app.RenderOptions{
				Mesh: o.Mesh, What: o.What, Channels: o.Channels, Name: o.Name, Namespace: o.Namespace, Place: o.Place, Route: o.Route,
				Labels: o.Labels, Target: o.Target, Listener: o.Listener, Host: o.Host,
			})
		},
		Version: version.String(),
	}, os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
}

// serveProfiles takes profiles when it is told to, as long as the process lives. Their failure is no reason to stop the work.
func serveProfiles(ctx context.Context, dir string) {
	if err := profile.OnSignal(ctx, dir, slog.Default()); err != nil {
		slog.Error("no more profiles", "err", err)
	}
}
