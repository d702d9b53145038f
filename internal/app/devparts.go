// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/child"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// DevProcessorCommand is the first argument with which [Dev] runs this program as its processor; the state folder and the port
// follow. It is not for people: the environment must hold DATABASE_URL, and may hold DevWaitVariable.
const DevProcessorCommand = "dev-processor"

// DevWaitVariable is the environment variable with another processor.wait for a development gateway's processor.
const DevWaitVariable = "WEIR_DEV_WAIT"

// DevProcessor is the processor of a development gateway.
func DevProcessor(ctx context.Context, dir, port string) error {
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("port %q: %w", port, err)
	}
	cfg, err := devConfig(dir, n, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	if text := os.Getenv(DevWaitVariable); text != "" {
		if cfg.Processor.Wait, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%s: %w", DevWaitVariable, err)
		}
	}
	return Serve(ctx, cfg, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
}

// processor runs the processor once.
func (d *dev) processor(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := d.logFile("processor.log")
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // what was read is read
	cmd := exec.Command(self, DevProcessorCommand, d.Dir, strconv.Itoa(d.Port))
	cmd.Env = append(os.Environ(), "DATABASE_URL="+d.dsn)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("start the processor: %w", err)
	}
	select {
	case <-ctx.Done():
		p.Stop(syscall.SIGTERM, 15*time.Second)
		return nil
	case <-p.Done():
		return p.Err()
	}
}

// lock keeps a second gateway out of the same folder.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(hinted{fmt.Errorf("another weir dev runs in %s", dir), "stop it, or choose another folder with --dir or WEIR_DEV_DIR"}, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// devSecretKey reads, or makes once, the key that the credentials of this gateway are encrypted with.
func devSecretKey(dir string) (string, error) {
	file := filepath.Join(dir, "secret.key")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			return "", err
		}
		b = []byte(base64.StdEncoding.EncodeToString(raw))
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	return string(b), nil
}

// maxSocketPath is what fits into a socket's address on every system: 104 bytes on the BSDs, with its end.
const maxSocketPath = 100

// socketPath is in the state folder, unless that lies too deep for a socket's address.
func socketPath(dir string) string {
	path := filepath.Join(dir, "weir.sock")
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "weir-"+hex.EncodeToString(sum[:6])+".sock")
}

// seed puts into the database what the first request needs: the key sk-weir-dev, and a channel. It returns what the channel is, for
// people. What an earlier start or a person has put there stays.
func (d *dev) seed(ctx context.Context) (provider string, err error) {
	key, err := d.cfg.EncryptionKey()
	if err != nil {
		return "", err
	}
	s, err := store.Open(ctx, d.dsn, store.Options{SecretKey: key, Logger: d.Log, MaxConns: 2})
	if err != nil {
		return "", hinted{fmt.Errorf("open database: %w", err), databaseForm}
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		hint, permanent := store.Permanent(err)
		if !permanent {
			hint = "is the Postgres of DATABASE_URL running, and reached from here? Without DATABASE_URL weir dev runs one of its own"
		}
		return "", hinted{fmt.Errorf("prepare database: %w", err), hint}
	}
	if _, err := s.Key(ctx, "dev"); errors.Is(err, store.ErrNotFound) {
		if _, _, err := s.CreateKey(ctx, store.NewKey{Name: "dev", Secret: policy.DevSecret}); err != nil {
			return "", fmt.Errorf("make the development key: %w", err)
		}
	}
	channel := d.fakeChannel()
	if os.Getenv("OPENAI_API_KEY") != "" {
		channel = openAIChannel()
	}
	return channel.Name + ", at " + channel.BaseURL, putChannel(ctx, s, channel)
}

// putChannel adds the channel, or points the one of that name to where it is now.
func putChannel(ctx context.Context, s *store.Store, n store.NewChannel) error {
	_, err := s.Channel(ctx, n.Name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = s.CreateChannel(ctx, n)
	case err == nil:
		_, err = s.SetChannel(ctx, n.Name, store.ChannelChange{BaseURL: &n.BaseURL, Credential: &n.Credential})
	}
	if err != nil {
		return fmt.Errorf("channel %s: %w", n.Name, err)
	}
	return nil
}

func (d *dev) fakeChannel() store.NewChannel {
	return store.NewChannel{
		Name: "fake", Provider: "fake", BaseURL: "http://" + address(d.Port, 3) + "/v1", Credential: "sk-fake", Weight: 1,
		Models: models("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini",
			"gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "text-embedding-3-large"),
	}
}

// openAIChannel is OpenAI with its well-known models; weir channel set changes them.
func openAIChannel() store.NewChannel {
	return store.NewChannel{
		Name: "openai", Provider: "openai", BaseURL: "https://api.openai.com/v1", Weight: 1, Priority: 10,
		Credential: store.Secret(os.Getenv("OPENAI_API_KEY")),
		Models: models("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini",
			"gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "text-embedding-3-large"),
	}
}

func models(names ...string) []policy.Model {
	var out []policy.Model
	for _, n := range names {
		out = append(out, policy.Model{Name: n})
	}
	return out
}

// writeAdminFile tells the command line where this gateway is administered.
func (d *dev) writeAdminFile() error {
	b, err := json.Marshal(map[string]string{
		"url": "http://" + d.cfg.Admin.Listen, "token": DevAdminToken, "gateway": "http://" + d.cfg.Gateway.Listen,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "admin.json"), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write admin.json: %w", err)
	}
	return nil
}

// awaitReady returns when a request would succeed. It says what is missing if that takes too long.
func (d *dev) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last := "the processor does not answer"
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.cfg.Admin.Listen+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			var state admin.Readiness
			_ = json.NewDecoder(resp.Body).Decode(&state) // what cannot be read is not ready
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			for _, c := range state.Checks {
				last = c.Name + ": " + c.Detail
			}
		}
		select {
		case <-ctx.Done():
			return hinted{fmt.Errorf("not ready in time: %s", last), "see the files in " + filepath.Join(d.Dir, "log")}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// banner says where everything is.
func (d *dev) banner(provider string) {
	database := "$DATABASE_URL"
	if os.Getenv("DATABASE_URL") == "" {
		database = d.dsn
	}
	base := "http://" + d.cfg.Gateway.Listen
	fmt.Fprintf(d.Out, `
Weir is ready.
├─ Gateway   %s/v1
├─ Key       %s
├─ Admin     http://%s   token %s
├─ Provider  %s
├─ Postgres  %s
└─ Logs      %s

Try it:
  curl -N %s/v1/chat/completions -H 'Authorization: Bearer %s' \
    -d '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
  %s usage list --last 1

Ctrl-C stops everything; a second start keeps the data.
`, base, policy.DevSecret, d.cfg.Admin.Listen, DevAdminToken, provider, database, filepath.Join(d.Dir, "log"), base, policy.DevSecret, os.Args[0])
}
