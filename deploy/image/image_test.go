// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/repo"
)

// program builds weir as make image does.
func program(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("images hold programs for Linux")
	}
	out := filepath.Join(t.TempDir(), "weir")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-o", out, "./cmd/weir")
	cmd.Dir, cmd.Env = repo.Root(t), append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, b)
	}
	return out
}

// untar returns the members of a tar by name.
func untar(t *testing.T, r io.Reader) map[string]member {
	t.Helper()
	out := map[string]member{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = member{h, b}
	}
}

type member struct {
	*tar.Header
	content []byte
}

// named is a descriptor.
type named struct {
	MediaType, Digest string
	Size              int
}

// pathOf is where what a descriptor names is.
func pathOf(d named) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

// blobOf finds what a descriptor names and checks that it is that.
func blobOf(t *testing.T, archive map[string]member, d named) []byte {
	t.Helper()
	b := archive[pathOf(d)].content
	sum := sha256.Sum256(b)
	if "sha256:"+hex.EncodeToString(sum[:]) != d.Digest || len(b) != d.Size || d.MediaType == "" {
		t.Fatalf("%+v names %d bytes of %x", d, len(b), sum)
	}
	return b
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheImageHoldsTheProgramAndNoShell(t *testing.T) {
	dir := t.TempDir()
	trust, binary, out := filepath.Join(dir, "ca.pem"), program(t), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(trust, []byte("-- certificates --\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{name: "weir:test", version: "v0.0.0-test", arch: runtime.GOARCH}
	if err := run(out, binary, trust, o); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(out, binary, trust, o); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("the same program makes another image the second time: %v", err)
	}

	archive := untar(t, bytes.NewReader(raw))
	index := decode[struct{ Manifests []named }](t, archive["index.json"].content)
	manifest := decode[struct {
		Config named
		Layers []named
	}](t, blobOf(t, archive, index.Manifests[0]))
	config := decode[struct {
		OS, Architecture string
		Config           struct {
			User            string
			Entrypoint, Cmd []string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}](t, blobOf(t, archive, manifest.Config))
	if config.OS != "linux" || config.Architecture != runtime.GOARCH || config.Config.User != "65532:65532" {
		t.Errorf("configuration %+v", config)
	}
	classic := decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, archive["manifest.json"].content)
	if len(classic) != 1 || classic[0].Config != pathOf(manifest.Config) || !slices.Equal(classic[0].RepoTags, []string{"weir:test"}) ||
		!slices.Equal(classic[0].Layers, []string{pathOf(manifest.Layers[0])}) {
		t.Errorf("docker load reads %+v, the layout of OCI has %+v", classic, manifest)
	}
	z, err := gzip.NewReader(bytes.NewReader(blobOf(t, archive, manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(plain); "sha256:"+hex.EncodeToString(sum[:]) != config.RootFS.DiffIDs[0] {
		t.Errorf("the layer is %x, the configuration says %s", sum, config.RootFS.DiffIDs[0])
	}
	root := untar(t, bytes.NewReader(plain))
	for name, f := range root {
		if f.Mode&0o111 != 0 && f.Typeflag == tar.TypeReg && name != "usr/local/bin/weir" {
			t.Errorf("%s can be run", name)
		}
		if slices.Contains([]string{"sh", "bash", "busybox", "ash", "dash"}, path.Base(name)) || f.Mode&0o6000 != 0 {
			t.Errorf("the image has %s, mode %o", name, f.Mode)
		}
	}
	if s := root["var/lib/weir/"]; s.Header == nil || s.Uid != 65532 || s.Mode != 0o750 {
		t.Errorf("the folder of the state: %+v", s.Header)
	}
	if got := string(root["etc/ssl/certs/ca-certificates.crt"].content); got != "-- certificates --\n" {
		t.Errorf("certificates: %q", got)
	}

	// Unpacked, the entry point runs with nothing around it.
	entry := filepath.Join(dir, "weir")
	if err := os.WriteFile(entry, root[strings.TrimPrefix(config.Config.Entrypoint[0], "/")].content, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), entry, "version")
	cmd.Env = []string{}
	if b, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(b), "weir") {
		t.Errorf("weir version: %v\n%s", err, b)
	}
	if err := checkStatic(entry); err != nil {
		t.Error(err)
	}
	onlyTheStateIsWritable(t, root)
	runsReadOnly(t, root)
}

// onlyTheStateIsWritable looks for what the image's user could change: nothing, so that its file system may be read-only.
func onlyTheStateIsWritable(t *testing.T, root map[string]member) {
	t.Helper()
	for name, f := range root {
		if name == "tmp/" || name == "var/lib/weir/" { // where volumes are mounted
			continue
		}
		if f.Uid != 0 || f.Gid != 0 || f.Mode&0o022 != 0 {
			t.Errorf("%s is of %d:%d, mode %o: whoever runs there could change it", name, f.Uid, f.Gid, f.Mode)
		}
	}
}

// runsReadOnly runs the image's command as the image's user, with nothing around it but what is in the image, and nothing to write to but the volume.
// The database is not there: what has to be shown is that a processor lives.
func runsReadOnly(t *testing.T, root map[string]member) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can change the root of a process and its user: what the image may write to was looked at, and it was not run so")
		return
	}
	dir, address := t.TempDir(), freeAddress(t)
	for _, name := range slices.Sorted(maps.Keys(root)) { // folders come before what is in them
		path, f := filepath.Join(dir, name), root[name]
		if f.Typeflag == tar.TypeDir {
			mode := os.FileMode(f.Mode).Perm()
			if name == "tmp/" {
				mode = 0o555
			}
			if err := os.Mkdir(path, mode); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, f.content, os.FileMode(f.Mode).Perm()); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, f.Uid, f.Gid); err != nil {
			t.Fatal(err)
		}
	}
	settings := fmt.Sprintf("admin: {listen: %q}\n", address)
	if err := os.WriteFile(filepath.Join(dir, "etc", "weir", "weir.yaml"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // t.TempDir is for its owner alone
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/usr/local/bin/weir", "serve", "--config", "/etc/weir/weir.yaml")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/var/lib/weir", &log, &log
	cmd.Env = []string{
		"DATABASE_URL=postgres://weir:weir@127.0.0.1:1/weir", "WEIR_ADMIN_TOKEN=token",
		"WEIR_SECRET_KEY=" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32)),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: user, Gid: user}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lives := livez(t, address)
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	if err := cmd.Wait(); err != nil || !lives {
		t.Errorf("as user %d on what is in the image: lives %t, ended with %v\n%s", user, lives, err, &log)
	}
	if _, err := os.Stat(filepath.Join(dir, "var", "lib", "weir", "journal")); err != nil {
		t.Errorf("it has no state: %v", err)
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only asked for its address
	return l.Addr().String()
}

// livez waits until a processor says that it lives.
func livez(t *testing.T, address string) bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		resp, err := http.Get("http://" + address + "/livez")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	return false
}

func TestProgramsThatNeedALibraryAreRefused(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("there is no program to try")
	}
	if err := checkStatic(sh); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("sh: got %v", err)
	}
	if err := checkStatic("image_test.go"); err == nil {
		t.Error("a text is taken for a program")
	}
}
