// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/repo"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	repo.Golden(t, filepath.Join("testdata", "golden", name), got, *update)
}

func TestEventsAreAsTheResponseTellsThem(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			w := &watcher{t: t}
			got := r.play(t, r.options(w.judge("watcher")), r.whole())
			if got.err != nil {
				t.Error(got.err)
			}
			if diff := cmp.Diff(got.body, string(r.body)); diff != "" {
				t.Errorf("what nobody edits is changed (-got +want):\n%s", diff)
			}
			golden(t, r.name+".events", strings.Join(w.seen, "\n")+"\n")
		})
	}
}

func TestRedactedResponsesAreAsRecorded(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			got := r.play(t, r.options(redactor()), r.whole())
			if got.err != nil {
				t.Error(got.err)
			}
			golden(t, r.name+".redacted", got.body)
			if strings.Contains(got.body, "ada@") {
				t.Error("the secret is there")
			}
		})
	}
}

func TestCutsOfTheBytesMakeNoDifference(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			before, after := &watcher{t: t}, &watcher{t: t}
			want := r.play(t, r.options(before.judge("before"), redactor(), after.judge("after")), r.whole())
			cut := 0
			cuts(r.body, func(name string, chunks [][]byte) {
				b, a := &watcher{t: t}, &watcher{t: t}
				o := r.options(b.judge("before"), redactor(), a.judge("after"))
				if got := r.play(t, o, chunks); got.body != want.body {
					t.Fatalf("%s: the output differs (-got +want):\n%s", name, cmp.Diff(got.body, want.body))
				}
				if !slices.Equal(b.seen, before.seen) || !slices.Equal(a.seen, after.seen) {
					t.Fatalf("%s: the events differ (-got +want):\n%s", name, cmp.Diff([][]string{b.seen, a.seen}, [][]string{before.seen, after.seen}))
				}
				if cut++; cut%8 != 0 && len(chunks) == 2 { // enough of these
					return
				}
				if got := r.play(t, r.options((&watcher{t: t}).judge("watcher")), chunks); got.body != string(r.body) {
					t.Fatalf("%s: unedited, the output differs (-got +want):\n%s", name, cmp.Diff(got.body, string(r.body)))
				}
			})
		})
	}
}
