// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/repo"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

// unsetSecrets makes a test independent of the environment that it runs in.
func unsetSecrets(t *testing.T) {
	t.Helper()
	for _, name := range []string{"DATABASE_URL", "WEIR_SECRET_KEY", "WEIR_ADMIN_TOKEN"} {
		t.Setenv(name, "")
		t.Setenv(name+"_FILE", "")
	}
}

func TestCommentedFileHoldsEveryKeyWithItsDefault(t *testing.T) {
	unsetSecrets(t)
	path := filepath.Join("..", "..", "deploy", "weir.yaml")
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, Default().Complete()); diff != "" {
		t.Errorf("deploy/weir.yaml is not Default (-file +default):\n%s", diff)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Split(string(b), "\n")
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		n, set := lines[key]
		if !set {
			t.Errorf("deploy/weir.yaml lacks %s", key)
			continue
		}
		if above := strings.TrimSpace(text[n-2]); strings.Contains(key, ".") && !strings.HasPrefix(above, "#") {
			t.Errorf("deploy/weir.yaml:%d: %s has no comment above it", n, key)
		}
	}
}

// keysOf returns the full names of the keys of a section and of those below it.
func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for f := range t.Fields() {
		tag := f.Tag.Get("yaml")
		switch {
		case tag == "-":
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(f.Type, prefix+tag+".")...)
		default:
			keys = append(keys, prefix+tag)
		}
	}
	return keys
}

func TestEveryMistakeIsReportedWithItsLine(t *testing.T) {
	unsetSecrets(t)
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			_, err := Load(path)
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("Load: got %v, want an *Error", err)
			}
			got := strings.ReplaceAll(err.Error(), "testdata/", "") + "\n"
			repo.Golden(t, strings.TrimSuffix(path, ".yaml")+".txt", got, *update)
			if strings.Contains(got, "hunter2") || strings.Contains(got, "MDEyMzQ1") {
				t.Errorf("the text quotes a secret:\n%s", got)
			}
		})
	}
	repo.NoOrphans(t, "testdata/bad-*.txt", func(golden string) bool {
		return slices.Contains(files, strings.TrimSuffix(golden, ".txt")+".yaml")
	}, *update)
}

func TestEmptyFileMeansTheDefaults(t *testing.T) {
	unsetSecrets(t)
	got, err := Load("testdata/good-empty.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, Default().Complete()); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestPathsAreRelativeToTheFileAndFollowStateDir(t *testing.T) {
	unsetSecrets(t)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load("testdata/good-relative.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.StateDir = filepath.Join(dir, "state")
	want.LogLevel = slog.LevelDebug
	want.Processor.Socket = filepath.Join(dir, "state", "weir.sock")
	want.Envoy.LogDir, want.Envoy.Path = filepath.Join(dir, "state", "log"), filepath.Join(dir, "bin", "envoy")
	want.Envoy.CAFile, want.Envoy.Concurrency = systemCAFile(), 2
	want.Gateway.TLS = TLS{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	want.Gateway.ProxyProtocol = true
	want.Plugins.CacheDir, want.Plugins.Headers = filepath.Join(dir, "cache"), []string{"x-team", "user-agent"}
	want.Database.URL = "postgres:///weir?host=/run/postgresql"
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestMissingFileIsToldFromAFileWithMistakes(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "weir.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		t.Errorf("a missing file is reported as %v", e)
	}
}

func TestSecretsComeFromTheEnvironmentOrFromFiles(t *testing.T) {
	unsetSecrets(t)
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL", "postgres://weir:hunter2@db/weir")
	t.Setenv("WEIR_SECRET_KEY_FILE", file)
	t.Setenv("WEIR_ADMIN_TOKEN", "token")
	t.Setenv("WEIR_ADMIN_TOKEN_FILE", "/does/not/exist") // The variable itself goes first.
	c, err := Load("testdata/good-empty.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Database.URL.Reveal(); got != "postgres://weir:hunter2@db/weir" {
		t.Errorf("database.url: got %q", got)
	}
	if got := c.Admin.Token.Reveal(); got != "token" {
		t.Errorf("admin.token: got %q", got)
	}
	got, err := c.EncryptionKey()
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("secret_key: got %x, %v", got, err)
	}
	if err := c.ValidateSecrets(); err != nil {
		t.Errorf("ValidateSecrets: %v", err)
	}
}

func TestSecretKeyMayBeSeveral(t *testing.T) {
	key := func(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }
	c := Default()
	c.SecretKey = Secret(key(1) + "\n" + key(2) + " " + key(3))
	got, err := c.EncryptionKeys()
	if err != nil || len(got) != 3 || got[0][0] != 1 || got[1][0] != 2 || got[2][0] != 3 {
		t.Errorf("got %x, %v", got, err)
	}
	if first, err := c.EncryptionKey(); err != nil || first[0] != 1 {
		t.Errorf("the first: got %x, %v", first, err)
	}
	c.SecretKey = Secret(key(1) + "\nhunter2!")
	if _, err := c.EncryptionKeys(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("one that is none: got %v", err)
	}
}

func TestUnreadableSecretFileIsAnError(t *testing.T) {
	unsetSecrets(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIR_SECRET_KEY_FILE", filepath.Join(t.TempDir(), "missing"))
	t.Setenv("WEIR_ADMIN_TOKEN_FILE", empty)
	_, err := Load("testdata/good-empty.yaml")
	for _, want := range []string{"secret_key: read the file that WEIR_SECRET_KEY_FILE names: open ", "admin.token: read the file that WEIR_ADMIN_TOKEN_FILE names: " + empty + " is empty"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestValidateSecretsSaysWhatIsMissing(t *testing.T) {
	err := Default().ValidateSecrets()
	want := `database.url: neither DATABASE_URL nor DATABASE_URL_FILE is set in the environment
secret_key: neither WEIR_SECRET_KEY nor WEIR_SECRET_KEY_FILE is set in the environment
admin.token: neither WEIR_ADMIN_TOKEN nor WEIR_ADMIN_TOKEN_FILE is set in the environment`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}

	c := Default()
	c.Database.URL, c.SecretKey, c.Admin.Token = "mysql://root:hunter2@db/weir", "aHVudGVyMg==", ""
	want = `database.url: must begin with postgres:// or be a list of settings such as host=/run/postgresql dbname=weir
secret_key: must be 32 bytes in base64, not 7; make one with: openssl rand -base64 32
admin.token: must not be empty`
	if err := c.ValidateSecrets(); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	c.SecretKey = "hunter2!"
	if _, err := c.EncryptionKey(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("EncryptionKey: got %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := Default()
	c.Admin.Token = "hunter2"
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("configuration", "config", c, "token", c.Admin.Token)
	for _, got := range []string{string(j), log.String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Admin.Token)} {
		if strings.Contains(got, "hunter2") || !strings.Contains(got, "[redacted]") {
			t.Errorf("got %s", got)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := parse(b)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Errorf("got %v, want an *Error", err)
			}
			return
		}
		_ = c.Validate() // Must not panic.
	})
}
