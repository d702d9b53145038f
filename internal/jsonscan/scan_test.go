// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testKeys = NewKeys("model", "stream", "stream_options")

// scan returns the values found, by key, or the error.
func scan(t *testing.T, text string) (map[string]string, *Error) {
	t.Helper()
	var o Object
	err := testKeys.Scan([]byte(text), &o)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("Scan(%.80q) = %T, want an *Error", text, err)
		}
		if e.Offset < 0 || e.Offset > len(text) {
			t.Fatalf("Scan(%.80q) puts the fault at %d of %d", text, e.Offset, len(text))
		}
		return nil, e
	}
	if text[o.Close] != '}' {
		t.Fatalf("Scan(%.80q) puts the closing brace at %d", text, o.Close)
	}
	got := map[string]string{}
	for i, name := range testKeys.names {
		if v := o.Values[i]; v.Found() {
			got[name] = string(v.Of([]byte(text)))
		}
	}
	return got, nil
}

func TestScanFindsTopLevelValues(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want map[string]string
	}{
		"nothing":          {`{}`, map[string]string{}},
		"white space":      {" \t\r\n{ \n} \n", map[string]string{}},
		"plain":            {`{"model":"m","stream":true}`, map[string]string{"model": `"m"`, "stream": "true"}},
		"spaced":           {` { "model" : "m" , "stream" : null } `, map[string]string{"model": `"m"`, "stream": "null"}},
		"nested are other": {`{"a":{"model":"x","model":"y"},"b":[{"stream":1}],"model":"m"}`, map[string]string{"model": `"m"`}},
		"object value":     {`{"stream_options":{"include_usage":true,"x":[1,{}]}}`, map[string]string{"stream_options": `{"include_usage":true,"x":[1,{}]}`}},
		"any kind":         {`{"model":-0.5e+10,"stream":[[],{}]}`, map[string]string{"model": "-0.5e+10", "stream": "[[],{}]"}},
		"unknown repeats":  {`{"x":1,"x":2,"model":"m"}`, map[string]string{"model": `"m"`}},
		"longer, shorter":  {`{"models":1,"mode":2,"stream_option":3,"streams":4,"":5}`, map[string]string{}},
		"strings":          {`{"model":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é 漢字 😀 ` + "\x7f" + `"}`, map[string]string{"model": `"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é 漢字 😀 ` + "\x7f" + `"`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := scan(t, tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("values differ (-got +want):\n%s", diff)
			}
		})
	}
}

func TestScanRefusesWithOffsetAndReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want string
	}{
		{``, "unexpected end of the text at byte 0"},
		{`  `, "unexpected end of the text at byte 2"},
		{"\uFEFF{}", "unexpected byte order mark at byte 0"},
		{`[]`, "expected a JSON object at byte 0"},
		{` "model"`, "expected a JSON object at byte 1"},
		{`{`, "unexpected end of the text at byte 1"},
		{`{"a":1`, "unexpected end of the text at byte 6"},
		{`{"a":1}x`, "unexpected data after the object at byte 7"},
		{`{"a":1} {"model":"m"}`, "unexpected data after the object at byte 8"},
		{`{}` + "\x00", "unexpected data after the object at byte 2"},
		{`{a:1}`, "expected a string as key at byte 1"},
		{`{'a':1}`, "expected a string as key at byte 1"},
		{`{"a":1,}`, "expected a string as key at byte 7"},
		{`{,}`, "expected a string as key at byte 1"},
		{`{"a" 1}`, "expected a colon after the key at byte 5"},
		{`{"a":}`, "expected a value at byte 5"},
		{`{"a":[1,]}`, "expected a value at byte 8"},
		{`{"a":[,]}`, "expected a value at byte 6"},
		{`{"a":[1 2]}`, "expected a comma or a closing bracket at byte 8"},
		{`{"a":[}]}`, "expected a comma or a closing bracket at byte 6"},
		{`{"a":{]}}`, "expected a comma or a closing brace at byte 6"},
		{`{"a":1 "b":2}`, "expected a comma or a closing brace at byte 7"},
		{`{"a":{"b":1]}`, "expected a comma or a closing brace at byte 11"},
		{`{"a":{"b"}}`, "expected a colon after the key at byte 9"},
		{`{"a":tru}`, "expected a value at byte 8"},
		{`{"a":True}`, "expected a value at byte 5"},
		{`{"a":nullx}`, "expected a comma or a closing brace at byte 9"},
		{`{"a":NaN}`, "expected a value at byte 5"},
		{`{"a":Infinity}`, "expected a value at byte 5"},
		{`{"a":+1}`, "expected a value at byte 5"},
		{`{"a":.5}`, "expected a value at byte 5"},
		{`{"a":-}`, "malformed number at byte 6"},
		{`{"a":01}`, "expected a comma or a closing brace at byte 6"},
		{`{"a":1.}`, "malformed number at byte 7"},
		{`{"a":1e}`, "malformed number at byte 7"},
		{`{"a":1e+}`, "malformed number at byte 8"},
		{`{"a":0x10}`, "expected a comma or a closing brace at byte 6"},
		{`{"a":1/*c*/}`, "expected a comma or a closing brace at byte 6"},
		{`// c` + "\n{}", "expected a JSON object at byte 0"},
		{"{\"a\":\"x\ny\"}", "unescaped control character in a string at byte 7"},
		{"{\"a\":\"\x00\"}", "unescaped control character in a string at byte 6"},
		{"{\"\x1f\":1}", "unescaped control character in a string at byte 2"},
		{`{"a":"\x41"}`, "malformed escape in a string at byte 7"},
		{`{"a":"\u12g4"}`, "malformed escape in a string at byte 10"},
		{`{"a":"\u12`, "unexpected end of the text at byte 10"},
		{`{"a":"\`, "unexpected end of the text at byte 7"},
		{`{"a":"\ud800"}`, "lone surrogate in a string at byte 6"},
		{`{"a":"\ud800\n"}`, "lone surrogate in a string at byte 6"},
		{`{"a":"\ud800\ud800"}`, "lone surrogate in a string at byte 6"},
		{`{"a":"\udc00\ud800"}`, "lone surrogate in a string at byte 6"},
		{"{\"a\":\"\xff\"}", "invalid UTF-8 in a string at byte 6"},
		{"{\"a\":\"ab\xc0\xaf\"}", "invalid UTF-8 in a string at byte 8"},
		{"{\"a\":\"\xe2\x82\"}", "invalid UTF-8 in a string at byte 6"},
		{"{\"a\":\"\xe0\x80\x80\"}", "invalid UTF-8 in a string at byte 6"},
		{"{\"a\":\"\xed\xa0\x80\"}", "invalid UTF-8 in a string at byte 6"},
		{"{\"a\":\"\xf4\x90\x80\x80\"}", "invalid UTF-8 in a string at byte 6"},
		{`{"a":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`, "nested too deeply at byte 516"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.40q", tt.text), func(t *testing.T) {
			t.Parallel()
			_, err := scan(t, tt.text)
			if err == nil {
				t.Fatalf("accepted, want %q", tt.want)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("error = %q, want %q", got, tt.want)
			}
			if err.Key != "" {
				t.Errorf("key = %q, want none", err.Key)
			}
		})
	}
}

func TestScanRefusesKeysThatParsersReadDifferently(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, key, want string }{
		{`{"model":"a","model":"b"}`, "model", "duplicate key at byte 13"},
		{`{"stream":true,"x":1,"stream":true}`, "stream", "duplicate key at byte 21"},
		{`{"model":"a","mod\u0065l":"b"}`, "model", "ambiguous spelling of a key at byte 13"},
		{`{"\u006d\u006F\u0064\u0065\u006c":"b"}`, "model", "ambiguous spelling of a key at byte 1"},
		{`{"MODEL":"a"}`, "model", "ambiguous spelling of a key at byte 1"},
		{`{"model":"a","Model":"b"}`, "model", "ambiguous spelling of a key at byte 13"},
		{`{"ſtream":true}`, "stream", "ambiguous spelling of a key at byte 1"},
		{`{"\u017Ftream":true}`, "stream", "ambiguous spelling of a key at byte 1"},
		{`{"ſtream_optionſ":{}}`, "stream_options", "ambiguous spelling of a key at byte 1"},
	}
	for _, tt := range tests {
		_, err := scan(t, tt.text)
		if err == nil {
			t.Errorf("%s: accepted", tt.text)
			continue
		}
		if err.Key != tt.key || err.Error() != tt.want {
			t.Errorf("%s: %q of %q, want %q of %q", tt.text, err, err.Key, tt.want, tt.key)
		}
	}
	// The Kelvin sign folds to k, which none of the keys above has.
	var o Object
	if err := NewKeys("key").Scan([]byte("{\"\u212Aey\":1}"), &o); err == nil {
		t.Error("a Kelvin sign for a k: accepted")
	}
}

func TestScanAcceptsNestingUpToTheLimit(t *testing.T) {
	t.Parallel()
	mixed := strings.Repeat(`[{"k":`, (MaxDepth-2)/2) + "[]" + strings.Repeat(`}]`, (MaxDepth-2)/2)
	if _, err := scan(t, `{"a":`+mixed+`,"model":"m"}`); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	if _, err := scan(t, `{"a":[`+mixed+`]}`); err == nil || err.Reason != reasonDepth {
		t.Errorf("depth %d: %v, want %q", MaxDepth+1, err, reasonDepth)
	}
}

func TestScanRefusesDeepNestingEarly(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"[", `{"a":`, `[{"a":`} {
		text := `{"x":` + strings.Repeat(open, 32<<20/len(open))
		_, err := scan(t, text)
		if err == nil || err.Reason != reasonDepth || err.Offset > MaxDepth*len(open)+5 {
			t.Errorf("32 MB of %q: %v, want %q within %d levels", open, err, reasonDepth, MaxDepth)
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	text := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("words and \\n more ", 200) + `"}],"temp\u0065rature":0.5,"model":"m","stream":true,"stream_options":{"include_usage":true}}`)
	var o Object
	if got := testing.AllocsPerRun(100, func() {
		if err := testKeys.Scan(text, &o); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("Scan allocates %v times, want 0", got)
	}
}

// Every offset modulo the word size, and every length around it, must see the byte that matters.
func TestStringScanSeesEveryPosition(t *testing.T) {
	t.Parallel()
	bad := []string{"\x00", "\x1f", "\xff", "\xc3"}
	for lead := range 70 {
		for _, b := range bad {
			text := `{"a":"` + strings.Repeat("z", lead) + b + strings.Repeat("z", 40) + `"}`
			_, err := scan(t, text)
			if err == nil || err.Offset != lead+6 {
				t.Fatalf("%q after %d bytes: %v, want a fault at %d", b, lead, err, lead+6)
			}
		}
		for _, good := range []string{`\"`, `\\`, "é", "漢", "😀", " ", "~", "\x7f", "!", "#", "[", "]"} {
			model := `"` + strings.Repeat("z", lead) + good + strings.Repeat("y", lead%9) + `"`
			got, err := scan(t, `{"model":`+model+`}`)
			if err != nil || got["model"] != model {
				t.Fatalf("%q after %d bytes: %q, %v", good, lead, got["model"], err)
			}
		}
	}
}

func TestUnquoteAgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, v := range []string{`""`, `"gpt-4o"`, `"a\/b"`, `"\u0067pt"`, `"\ud83d\ude00"`, `"\"\\\b\f\n\r\t"`, `"é漢😀"`, `"\u00E9\u6f22"`} {
		var want string
		if err := json.Unmarshal([]byte(v), &want); err != nil {
			t.Fatal(err)
		}
		if got := Unquote([]byte(v)); got != want {
			t.Errorf("Unquote(%s) = %q, want %q", v, got, want)
		}
		if got := View([]byte(v)); got != want {
			t.Errorf("View(%s) = %q, want %q", v, got, want)
		}
	}
}

// FuzzScan holds Scan against encoding/json: what Scan accepts is valid and has the same values there; what only Scan refuses it
// refuses for one of the reasons that it has beyond the grammar.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"model":"m","stream":true,"stream_options":{"include_usage":false}}`, `{"mod\u0065l":1}`, "{\"\u017Ftream\":1}",
		`{"a":[1,-0.5e-7,{"b":[]},"\ud83d\ude00"]}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"model":1,"model":2}`, `[1]`, `{"a":1}}`,
		"\uFEFF{}", `{"a":01}`, `{"a":"` + "\t" + `"}`, `{"MODEL":"漢字漢字漢字漢字漢字漢字漢字漢字"}`,
	} {
		f.Add([]byte(s))
	}
	stricter := []string{reasonNoObject, reasonSurrogate, reasonUTF8, reasonDepth, reasonDuplicate, reasonSpelling}
	f.Fuzz(func(t *testing.T, text []byte) {
		var o Object
		err := testKeys.Scan(text, &o)
		if !json.Valid(text) {
			if err == nil {
				t.Fatalf("accepted what encoding/json refuses: %q", text)
			}
			return
		}
		if e, ok := errors.AsType[*Error](err); ok {
			if !slices.Contains(stricter, e.Reason) {
				t.Fatalf("refused what encoding/json accepts: %v: %q", err, text)
			}
			return
		}
		var want struct {
			Model   json.RawMessage `json:"model"`
			Stream  json.RawMessage `json:"stream"`
			Options json.RawMessage `json:"stream_options"`
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("encoding/json cannot decode what it finds valid: %v: %q", err, text)
		}
		for i, w := range []json.RawMessage{want.Model, want.Stream, want.Options} {
			var got []byte
			if o.Values[i].Found() {
				got = o.Values[i].Of(text)
			}
			if !bytes.Equal(got, w) {
				t.Fatalf("%s = %q, want %q: %q", testKeys.names[i], got, w, text)
			}
			var s string
			if len(got) > 0 && got[0] == '"' {
				if err := json.Unmarshal(got, &s); err != nil || Unquote(got) != s {
					t.Fatalf("Unquote(%s) = %q, want %q (%v)", got, Unquote(got), s, err)
				}
			}
		}
	})
}

// Whatever Scan finds in a valid text Find finds too, and it ends on any other.
func FuzzFind(f *testing.F) {
	for _, s := range []string{`{"model":"a\"b","stream":[{"x":"\\"}],"stream_options":{"model":""}}`, `{"`, `{"a\"`, `{"model":"`, `{"model":"a`, `{"":""}`, `{"model":1,"model":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want, got Object
		scanned, found := testKeys.Scan(text, &want), testKeys.Find(text, &got)
		var e *Error
		if scanned != nil && (!errors.As(scanned, &e) || e.Key == "") {
			return
		}
		if diff := cmp.Diff(scanned, found); diff != "" {
			t.Fatalf("%q: (-Scan +Find)\n%s", text, diff)
		}
		if scanned == nil && got != want {
			t.Fatalf("%q: Find %v, Scan %v", text, got, want)
		}
	})
}

// The fuzzer seldom makes large valid texts: these are made at random, then damaged by a byte.
func TestScanAgreesWithEncodingJSONOnRandomTexts(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		text := []byte(randomObject(rng, 0))
		if _, err := scan(t, string(text)); err != nil {
			t.Fatalf("refused: %v: %s", err, text)
		}
		var scanned, found Object
		if err := errors.Join(testKeys.Scan(text, &scanned), testKeys.Find(text, &found)); err != nil || scanned != found {
			t.Fatalf("Scan %v, Find %v, %v: %s", scanned, found, err, text)
		}
		text[rng.IntN(len(text))] = byte(rng.IntN(256))
		var o Object
		if err := testKeys.Scan(text, &o); err == nil && !json.Valid(text) {
			t.Fatalf("accepted what encoding/json refuses: %q", text)
		}
	}
}

func randomObject(rng *rand.Rand, depth int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range rng.IntN(6) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"k%d":%s`, i, randomValue(rng, depth+1))
	}
	return b.String() + "}"
}

func randomValue(rng *rand.Rand, depth int) string {
	switch n := rng.IntN(8); {
	case n == 0 && depth < 6:
		return randomObject(rng, depth)
	case n == 1 && depth < 6:
		return "[" + randomValue(rng, depth+1) + " , " + randomValue(rng, depth+1) + "]"
	case n < 5:
		var s []rune
		for range rng.IntN(60) {
			s = append(s, []rune("abc \"\\\n\té漢😀\u2028z")[rng.IntN(13)])
		}
		b, _ := json.Marshal(string(s))
		return string(b)
	case n == 5:
		return []string{"true", "false", "null", "{}", "[]"}[rng.IntN(5)]
	default:
		b, _ := json.Marshal(rng.NormFloat64() * 1e10)
		return string(b)
	}
}
