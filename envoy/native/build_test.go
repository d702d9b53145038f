// SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/wheel"
)

var build = flag.Bool("build", false, "take over what is built from the C sources")

// artefacts are what is built, from which sources and how.
var artefacts = []struct {
	file string
	args []string
}{
	{"built/linux_amd64.so", append([]string{"-target", "x86_64-linux-gnu.2.28"}, library...)},
	{"built/linux_arm64.so", append([]string{"-target", "aarch64-linux-gnu.2.28"}, library...)},
	{"testdata/scan.wasm", []string{
		"-target", "wasm32-freestanding", "-O1", "-nostdlib", "-s", "-Wl,--no-entry", "-Wl,--export-dynamic",
		"-fsanitize=undefined", "-fsanitize-trap=undefined", "src/scan.c", "src/wasm.c", // what C leaves undefined stops the module
	}},
}

var (
	library  = []string{"-O2", "-shared", "-nostdlib", "-s", "-ffreestanding", "-fno-stack-protector", "-fPIC", "src/scan.c", "src/module.c"}
	everyone = []string{"cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-fno-builtin", "-fvisibility=hidden"}
)

// TestModulesAreBuiltFromTheirSources builds what is embedded anew, byte for byte.
func TestModulesAreBuiltFromTheirSources(t *testing.T) {
	root, err := wheel.Fetch(t.Context(), repo.Cache(t), wheel.Zig())
	if (errors.Is(err, wheel.ErrNetwork) || errors.Is(err, wheel.ErrNoPip)) && os.Getenv("WEIR_REQUIRE_ALL") == "" {
		t.Skipf("SKIP: the compiler cannot be fetched: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range artefacts {
		out := filepath.Join(t.TempDir(), filepath.Base(a.file))
		args := append(append([]string{}, everyone...), a.args...)
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "ziglang", "zig"), append(args, "-o", out)...)
		cache := t.TempDir()
		cmd.Env = append(os.Environ(), "ZIG_GLOBAL_CACHE_DIR="+cache, "ZIG_LOCAL_CACHE_DIR="+cache)
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Fatalf("%s: %v\n%s", a.file, err, said)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if *build {
			if err := os.WriteFile(a.file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(a.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its sources make: run make native", a.file)
		}
	}
}
