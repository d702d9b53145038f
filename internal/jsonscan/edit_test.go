// SPDX-License-Identifier: Apache-2.0

package jsonscan

import "testing"

func TestInsertAddsTheLastMember(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"empty":       {`{}`, `{"stream":true}`},
		"empty, wide": {" { } ", ` { "stream":true} `},
		"members":     {`{"model":"m","a":[{}]}`, `{"model":"m","a":[{}],"stream":true}`},
		"spaced":      {"{\n  \"model\": \"m\"\n}\n", "{\n  \"model\": \"m\"\n,\"stream\":true}\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o Object
			if err := testKeys.Scan([]byte(tt.text), &o); err != nil {
				t.Fatal(err)
			}
			got := o.Insert(`"stream":true`).Apply([]byte(tt.text))
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if err := testKeys.Scan(got, &o); err != nil || string(o.Values[1].Of(got)) != "true" {
				t.Errorf("the result does not scan: %v", err)
			}
		})
	}
}

func TestEditMovesOnlyWhatIsBehindIt(t *testing.T) {
	t.Parallel()
	text := []byte(`{"stream":null,"model":"m"}`)
	for _, with := range []string{`true`, `{"a":"longer"}`, `1`} {
		var o Object
		if err := testKeys.Scan(text, &o); err != nil {
			t.Fatal(err)
		}
		e := Edit{At: o.Values[1], With: with}
		out := e.Apply(text)
		if want := `{"stream":` + with + `,"model":"m"}`; string(out) != want {
			t.Errorf("got %q, want %q", out, want)
		}
		if got := string(e.Move(o.Values[0]).Of(out)); got != `"m"` {
			t.Errorf("model moved to %q", got)
		}
		back := Edit{At: o.Values[0], With: `"other"`}
		if got := back.Move(o.Values[1]); got != o.Values[1] {
			t.Errorf("an edit behind moved %v to %v", o.Values[1], got)
		}
	}
}
