// SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"debug/elf"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestModulesNeedLittle: what a module calls is Envoy's, or one of these few functions of the C library; and nothing in memory is both written and run.
func TestModulesNeedLittle(t *testing.T) {
	const callback, hook = "envoy_dynamic_module_callback_http_", "envoy_dynamic_module_on_"
	library := []string{"clock_gettime", "free", "getrandom", "malloc"}
	for _, arch := range []string{"amd64", "arm64"} {
		f, err := elf.NewFile(bytes.NewReader(Module("linux", arch)))
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		var needs, exports []string
		for _, s := range symbols {
			switch {
			case s.Section != elf.SHN_UNDEF:
				exports = append(exports, s.Name)
			case !strings.HasPrefix(s.Name, callback):
				needs = append(needs, s.Name)
			}
		}
		slices.Sort(needs)
		if diff := cmp.Diff(needs, library); diff != "" {
			t.Errorf("%s needs (-got +want):\n%s", arch, diff)
		}
		if stray := slices.DeleteFunc(exports, func(s string) bool { return strings.HasPrefix(s, hook) }); len(stray) > 0 {
			t.Errorf("%s shows more than hooks: %v", arch, stray)
		}
		if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
			t.Errorf("%s: libraries %v, %v; want none by name", arch, libs, err)
		}
		for _, p := range f.Progs {
			if p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X {
				t.Errorf("%s: %s is writable and executable", arch, p.Type)
			}
		}
	}
	if b := Module("darwin", "arm64"); b != nil {
		t.Errorf("for another platform: got %d bytes, want none", len(b))
	}
}
