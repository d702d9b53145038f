// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/postgres"
	"github.com/weir-proxy/weir/internal/profile"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// startWeir runs what weir dev would, but for the provider, which all gateways share: Postgres, the processor, Envoy.
func (s *site) startWeir(ctx context.Context) (*gateway, error) {
	server, err := postgres.Start(ctx, postgres.Options{
		Install: s.install, Dir: s.path("postgres"), Port: s.port + portPostgres, LogFile: s.path("postgres.log"),
	})
	if err != nil {
		return nil, err
	}
	s.parts.Go(func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		if err := server.Stop(stop); err != nil {
			slog.Warn("stop postgres", "err", err)
		}
	})
	if err := s.seed(ctx, server.DSN()); err != nil {
		return nil, err
	}
	dir := s.path("weir")
	cmd := exec.Command(s.weir, app.DevProcessorCommand, dir, strconv.Itoa(s.port))
	cmd.Env = s.environment("DATABASE_URL=" + server.DSN())
	if s.profile != "" {
		cmd.Env = append(cmd.Env, profile.Variable+"="+s.profile)
	}
	processor, err := s.start(ctx, "processor", cmd)
	if err != nil {
		return nil, err
	}
	module, err := s.tapModule(ctx)
	if err != nil {
		return nil, err
	}
	socket := s.path("weir", "weir.sock")
	boot, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Socket: socket, Admin: s.address(portWeirEnvoy), Limits: envoy.Limits{SharePath: envoy.SharePath(socket)}, TapModule: module,
	})
	if err != nil {
		return nil, err
	}
	pid, err := s.startEnvoy(ctx, weir, boot, s.address(portWeirEnvoy))
	if err != nil {
		return nil, err
	}
	if err := await(ctx, "weir", func() error { return s.weirReady(ctx) }); err != nil {
		return nil, err
	}
	b, err := openBooks(ctx, server)
	if err != nil {
		return nil, err
	}
	return &gateway{name: weir, address: s.address(portWeir), envoy: pid, processor: processor, books: b}, nil
}

// seed makes the database, the key and the channel, and the secret key that the processor reads the channel's credential with.
func (s *site) seed(ctx context.Context, dsn string) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString(secret)
	if err := os.WriteFile(s.path("weir", "secret.key"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write secret key: %w", err)
	}
	st, err := store.Open(ctx, dsn, store.Options{SecretKey: secret, Logger: slog.New(slog.DiscardHandler), MaxConns: 1})
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer st.Close()
	if err := st.Migrate(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	_, _, keyErr := st.CreateKey(ctx, store.NewKey{Name: "bench", Secret: policy.DevSecret})
	_, channelErr := st.CreateChannel(ctx, store.NewChannel{
		Name: "fake", Provider: string(envoy.Fake), BaseURL: "http://" + s.address(portProvider) + "/v1", Credential: "sk-fake", Weight: 1,
		Models: []policy.Model{{Name: "gpt-4o-mini"}},
	})
	return errors.Join(keyErr, channelErr)
}

// weirReady asks whether a request would succeed.
func (s *site) weirReady(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address(portWeirAdmin)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("readyz answers %s", resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}
