// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func elements(text string, at Span) []string {
	var out []string
	for e := range Elements([]byte(text), at) {
		out = append(out, string(e.Of([]byte(text))))
	}
	return out
}

func TestElementsAreFoundWithWhatIsInThem(t *testing.T) {
	for text, want := range map[string][]string{
		`[]`:                    nil,
		` [ ] `:                 nil,
		`[1]`:                   {"1"},
		`[ 1 , "a,]" ,null ]`:   {"1", `"a,]"`, "null"},
		`[[1,[2]],{"a":[3,4]}]`: {"[1,[2]]", `{"a":[3,4]}`},
		`[{},[],""]`:            {"{}", "[]", `""`},
		`{"a":1}`:               nil,
		`"[1]"`:                 nil,
		`[1,`:                   {"1"},
		`[1 2]`:                 {"1"},
		`[`:                     nil,
	} {
		start := len(text) - len(strings.TrimLeft(text, " "))
		if diff := cmp.Diff(elements(text, Span{start, len(strings.TrimRight(text, " "))}), want); diff != "" {
			t.Errorf("%s: got, want: %s", text, diff)
		}
	}
	if got := elements(`[1]`, Span{}); got != nil {
		t.Errorf("elements of no value: %q", got)
	}
}

func TestElementsAgreeWithEncodingJSON(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 500 {
		list := make([]string, rng.IntN(6))
		for i := range list {
			list[i] = randomValue(rng, 4)
		}
		text := "[" + strings.Join(list, " ,") + "]"
		var want []json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			continue
		}
		got := elements(text, Span{0, len(text)})
		if len(got) != len(want) {
			t.Fatalf("%s: %d elements, want %d", text, len(got), len(want))
		}
		for i := range got {
			if strings.TrimSpace(got[i]) != strings.TrimSpace(string(want[i])) {
				t.Fatalf("%s: element %d is %s, want %s", text, i, got[i], want[i])
			}
		}
	}
}

func TestEditsAreMadeInOrderOfPlace(t *testing.T) {
	text := `{"a":1,"b":2}`
	edits := Edits{
		{At: Span{11, 12}, With: "two"},
		{At: Span{12, 12}, With: "!"},
		{At: Span{5, 6}, With: ""},
		{At: Span{12, 12}, With: "?"},
	}
	if got, want := string(edits.Apply([]byte(text))), `{"a":,"b":two!?}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(Edits(nil).Apply([]byte(text))); got != text {
		t.Errorf("no edits made %s of %s", got, text)
	}
}
