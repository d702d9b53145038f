// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLineIsReadInAnyOrderOfKeys(t *testing.T) {
	want := Line{
		Kind: KindExchange, Names: Names{Exchange: "X", Ticket: "T-1_x", Tags: "AQ"}, Usage: `{"prompt_tokens":1,"s":"a\b/é"}`, Cluster: "channel-12", Status: 200,
		Flags: "URX,UF", Details: "via_upstream", Attempts: 2, RequestBytes: 10, ResponseBytes: 20,
		Duration: 5 * time.Second, FirstByte: 0, LogType: "DownstreamEnd",
	}
	for _, s := range []string{
		`{"attempts":2,"cluster":"channel-12","details":"via_upstream","duration":5000,"exchange":"X","first_byte":0,"flags":"URX,UF","kind":"exchange",` +
			`"log_type":"DownstreamEnd","rx":10,"start":"1795362624.103","status":200,"tags":"AQ","ticket":"T-1_x","tx":20,` +
			`"usage":"{\"prompt_tokens\":1,\"s\":\"a\\b/é\"}"}` + "\n",
		` { "usage" : "{\u0022prompt_tokens\u0022:1,\"s\":\"a\\b\/\u00e9\"}","kind":"exchange","tx":20.9,"new":[1,{"x":[true,false,null]}],` +
			`"ticket":"T-1_x","tags":"AQ","status":2e2,"start":1795362624.103,"rx":10,"log_type":"DownstreamEnd","flags":"URX,UF","first_byte":0,` +
			`"duration":5000,"exchange":"X","details":"via_upstream","cluster":"channel-12","attempts":2} `,
	} {
		got, err := ParseLine([]byte(s))
		if err != nil {
			t.Fatalf("ParseLine(%s): %v", s, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("ParseLine(%s) (-want +got):\n%s", s, d)
		}
	}
}

func TestLineTakesNullAndDashForAbsent(t *testing.T) {
	got, err := ParseLine([]byte(`{"kind":"attempt","ticket":"-","usage":null,"cluster":null,"status":null,"flags":"-","details":"-",` +
		`"attempt":3,"rx":"-","tx":null,"start":null,"duration":null,"first_byte":null,"log_type":null,"retry_after":7}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Line{Kind: KindAttempt, Attempts: 3, FirstByte: -1, RetryAfter: "7"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestMalformedLinesAreRefused(t *testing.T) {
	for name, s := range map[string]string{
		"empty":             ``,
		"not an object":     `"kind"`,
		"unfinished":        `{"kind":"exchange"`,
		"unfinished string": `{"kind":"exchange","ticket":"abc`,
		"ends in backslash": `{"kind":"exchange","ticket":"abc\`,
		"trailing comma":    `{"kind":"exchange",}`,
		"no comma":          `{"kind":"exchange" "status":1}`,
		"more behind":       `{"kind":"exchange"}{"kind":"exchange"}`,
		"no kind":           `{"status":200}`,
		"unknown kind":      `{"kind":"tcp"}`,
		"control character": "{\"kind\":\"exchange\",\"ticket\":\"a\tb\"}",
		"bad escape":        `{"kind":"exchange","ticket":"\x"}`,
		"octal escape":      `{"kind":"exchange","ticket":"\377"}`,
		"short unicode":     `{"kind":"exchange","ticket":"\u00e"}`,
		"text for a number": `{"kind":"exchange","status":"200"}`,
		"number for text":   `{"kind":"exchange","ticket":7}`,
		"object for text":   `{"kind":"exchange","usage":{}}`,
		"negative":          `{"kind":"exchange","rx":-1}`,
		"huge":              `{"kind":"exchange","rx":1e300}`,
		"huge status":       `{"kind":"exchange","status":4294967296}`,
		"huge duration":     `{"kind":"exchange","duration":9000000000000000}`,
		"leading zero":      `{"kind":"exchange","rx":01}`,
		"bare minus":        `{"kind":"exchange","rx":-}`,
		"no fraction":       `{"kind":"exchange","rx":1.}`,
		"no exponent":       `{"kind":"exchange","rx":1e}`,
		"NaN":               `{"kind":"exchange","rx":NaN}`,
		"deep":              `{"kind":"exchange","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"zeros":             "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			if l, err := ParseLine([]byte(s)); !errors.Is(err, ErrLine) {
				t.Errorf("got %+v, %v, want an error that wraps ErrLine", l, err)
			}
		})
	}
}

func TestEnvoysOwnLinesAreRead(t *testing.T) {
	b, err := os.ReadFile("testdata/envoy-1.40.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		l, err := ParseLine(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if !l.Final() || l.Ticket == "" {
			t.Errorf("%s: got %+v", line, l)
		}
	}
}

// pieces runs splitLine and returns what it found, as text.
func pieces(s string) (found []string) {
	splitLine(s, new(Line),
		func(l *Line, end int) { found = append(found, fmt.Sprintf("%s %s to %d", l.Kind, l.Ticket, end)) },
		func(from, to int, _ error) { found = append(found, fmt.Sprintf("bad %d to %d", from, to)) })
	return found
}

func TestGluedLinesComeApart(t *testing.T) {
	const (
		a = `{"kind":"exchange","ticket":"A","usage":"{\"prompt_tokens\":1}"}` // 64 bytes
		b = `{"kind":"attempt","ticket":"B"}`                                  // 31 bytes
	)
	for name, c := range map[string]struct {
		line string
		want []string
	}{
		"whole":                {a, []string{"exchange A to 64"}},
		"carriage return":      {a + "\r", []string{"exchange A to 65"}},
		"only the newline":     {a + b, []string{"exchange A to 64", "attempt B to 95"}},
		"torn in a key":        {`{"ki` + b, []string{"bad 0 to 4", "attempt B to 35"}},
		"torn behind a brace":  {`{` + b, []string{"bad 0 to 1", "attempt B to 32"}},
		"torn in a string":     {`{"kind":"exchange","ticket":"AA` + b, []string{"bad 0 to 31", "attempt B to 62"}},
		"torn at a backslash":  {a[:44] + b, []string{"bad 0 to 44", "attempt B to 75"}},
		"torn behind a colon":  {`{"kind":"exchange","ticket":` + b, []string{"bad 0 to 28", "attempt B to 59"}},
		"torn before the end":  {a[:63] + b, []string{"bad 0 to 63", "attempt B to 94"}},
		"torn, torn, whole":    {`{"kind":"exch` + `{"kind":"ex` + b, []string{"bad 0 to 24", "attempt B to 55"}},
		"whole, torn, whole":   {b + `{"kind":` + b, []string{"attempt B to 31", "bad 31 to 39", "attempt B to 70"}},
		"whole, torn":          {b + `{"kind":`, []string{"attempt B to 31", "bad 31 to 39"}},
		"zeros of a lost page": {"\x00\x00\x00" + b, []string{"bad 0 to 3", "attempt B to 34"}},
		"not ours, whole":      {`{"x":{"kind":"exchange"}}` + b, []string{"bad 0 to 25", "attempt B to 56"}},
		"nothing":              {``, nil},
		"garbage":              {`hello`, []string{"bad 0 to 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, pieces(c.line)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestEveryTearOfALineLeavesTheNextOneWhole(t *testing.T) {
	b, err := os.ReadFile("testdata/envoy-1.40.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	whole := `{"kind":"exchange","ticket":"whole"}`
	for line := range bytes.Lines(b) {
		line := strings.TrimSpace(string(line))
		for n := range len(line) + 1 {
			got := pieces(line[:n] + whole)
			if n > 0 && n < len(line) && len(got) != 2 || got[len(got)-1] != fmt.Sprintf("exchange whole to %d", n+len(whole)) {
				t.Fatalf("torn at %d: got %q from %s", n, got, line[:n]+whole)
			}
		}
	}
}

// reference decodes a line by encoding/json into the members that a Line keeps as text, so that the two can be compared.
func reference(b []byte) (map[string]string, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	texts := make(map[string]string)
	for _, k := range []string{"kind", "ticket", "tags", "usage", "cluster", "flags", "details", "log_type", "exchange"} {
		var s *string
		if raw, ok := m[k]; ok {
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, err
			}
		}
		if s != nil && *s != "-" {
			texts[k] = *s
		} else {
			texts[k] = ""
		}
	}
	return texts, nil
}

func FuzzParseLine(f *testing.F) {
	b, err := os.ReadFile("testdata/envoy-1.40.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		f.Add(line)
	}
	f.Add([]byte(`{"kind":"attempt","retry_after":"3","x":[{"\ud83d\ude00":"\ud83d"},1.5e-3,true]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLine(b)
		want, refErr := reference(b)
		if err == nil && refErr != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", refErr)
		}
		if err != nil {
			return // stricter: types, ranges, depth
		}
		got := map[string]string{
			"kind": string(l.Kind), "ticket": l.Ticket, "tags": l.Tags, "usage": l.Usage, "cluster": l.Cluster, "flags": l.Flags,
			"details": l.Details, "log_type": l.LogType, "exchange": l.Exchange,
		}
		for k, v := range got {
			got[k] = string([]rune(v)) // encoding/json replaces invalid UTF-8
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-encoding/json +ours):\n%s", d)
		}
		if l.Status < 0 || l.Attempts < 0 || l.RequestBytes < 0 || l.ResponseBytes < 0 || l.Duration < 0 || l.FirstByte < -1 {
			t.Fatalf("negative number in %+v", l)
		}
	})
}

// FuzzScanner holds the scanner to encoding/json: for values that do not nest too deep both accept the same, but for invalid UTF-8 nothing
// is changed.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+7,"\u00e9\ud83d\ude00\ud83d",true,false,null,{}]}`, `[]`, `"\/\b\f\n\r\t"`, `01`, `{"a" : 1 ,}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Count(s, "[")+strings.Count(s, "{") > maxDepth {
			return
		}
		p := scanner{s: s}
		p.skip()
		got := p.ok() && p.peek() == 0 && p.i == len(s)
		if want := json.Valid([]byte(s)); got != want {
			t.Fatalf("%q: got valid %v (%s at %d), want %v", s, got, p.reason, p.i, want)
		}
		var want string
		if json.Unmarshal([]byte(s), &want) == nil && strings.TrimSpace(s) != "null" {
			p := scanner{s: s}
			if got := string([]rune(p.str())); got != want {
				t.Fatalf("%q: got %q, want %q", s, got, want)
			}
		}
	})
}

// FuzzSplitLine glues a whole line to anything: no piece is lost or counted twice, and the whole line is found.
func FuzzSplitLine(f *testing.F) {
	f.Add(`{"kind":"exchange","usage":"{\"prompt_tokens\":1`)
	f.Add(`{"a":{"b":{"c":1},"b":{"c":1}`)
	f.Fuzz(func(t *testing.T, torn string) {
		s := torn + `{"kind":"attempt","ticket":"whole"}`
		at, last := 0, ""
		splitLine(s, new(Line),
			func(l *Line, end int) {
				if end <= at {
					t.Fatalf("a line ends at %d, behind %d", end, at)
				}
				at, last = end, l.Ticket
			},
			func(from, to int, err error) {
				if from != at || to <= from || !errors.Is(err, ErrLine) {
					t.Fatalf("bad from %d to %d, behind %d: %v", from, to, at, err)
				}
				at = to
			})
		if at != len(s) {
			t.Fatalf("stopped at %d of %d", at, len(s))
		}
		if !strings.ContainsAny(torn, "{") && last != "whole" {
			t.Fatalf("the whole line was not found behind %q", torn)
		}
	})
}
