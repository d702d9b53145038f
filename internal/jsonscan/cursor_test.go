// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree reads what is ahead as encoding/json would, but for numbers.
func tree(c *Cursor) any {
	switch c.Kind() {
	case '{':
		object := map[string]any{}
		for c.Enter(); ; {
			key, ok := c.Member()
			if !ok {
				return object
			}
			object[string(AppendUnquoted(nil, key))] = tree(c)
		}
	case '[':
		array := []any{}
		for c.Enter(); c.Element(); {
			array = append(array, tree(c))
		}
		return array
	case '"':
		return Unquote(c.Value())
	}
	return json.RawMessage(c.Value())
}

// decoded is the tree by encoding/json.
func decoded(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = decoded(v[k])
		}
		return v
	case []any:
		for i := range v {
			v[i] = decoded(v[i])
		}
		return v
	case string:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return json.RawMessage(b)
}

func TestCursorReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, ` { "a" : [ 1 , "x" , { } , [ ] , null , true ] , "b\"\\" : "\\\"\u0041" } `, `[]`, `"\\"`, `-1`, ` [[[]],{"a":{"b":{}}}] `,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a\n}]"}]}],"n":2}`,
	} {
		c := NewCursor([]byte(text))
		got := tree(&c)
		var want any
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, decoded(want)); diff != "" {
			t.Errorf("%s: (-got +want)\n%s", text, diff)
		}
		if c.Kind() != 0 {
			t.Errorf("%s: %q is left over", text, c.text[c.at:])
		}
	}
}

func TestCursorTakesValuesWhole(t *testing.T) {
	t.Parallel()
	c := NewCursor([]byte(`{"a":{"b":["}"]},"c":[1,[2]] ,"d": 3}`))
	var got []string
	for c.Enter(); ; {
		key, ok := c.Member()
		if !ok {
			break
		}
		got = append(got, string(key), string(c.Value()))
	}
	if want := []string{"a", `{"b":["}"]}`, "c", `[1,[2]]`, "d", "3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzCursor(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":"\""}]}`, `{`, `{"a`, `{"a":`, `[,,]`, `:`, `{"a"::1}`, `"\`, `]`, "{\"\\\"", `[}`, `{]`} {
		f.Add([]byte(s))
	}
	keys := NewKeys("a")
	f.Fuzz(func(t *testing.T, text []byte) {
		// Any text: it ends. walk is bounded by the bytes that a value takes.
		c := NewCursor(text)
		steps := 0
		var walk func()
		walk = func() {
			if steps++; steps > 2*len(text)+10 {
				t.Fatalf("%q: no end", text)
			}
			switch c.Kind() {
			case '{':
				for c.Enter(); ; {
					if _, ok := c.Member(); !ok {
						return
					}
					walk()
				}
			case '[':
				for c.Enter(); c.Element(); {
					walk()
				}
			default:
				c.Value()
			}
		}
		walk()
		var o Object
		if keys.Scan(text, &o) != nil {
			return
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		c = NewCursor(text)
		if _, ok := tree(&c).(map[string]any); !ok || c.Kind() != 0 {
			t.Fatalf("%q: not read to its end", text)
		}
	})
}
