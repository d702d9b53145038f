// SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

const (
	keep = 4096  // KEEP
	hold = 65536 // HOLD
)

// scanner is scan.c in a machine where reading or writing outside of memory, and whatever else C leaves undefined, is an error.
type scanner struct {
	t      testing.TB
	module api.Module
	end    uint32 // of memory: what is given ends there, so that no byte behind it can be read
}

func newScanner(t testing.TB) *scanner {
	t.Helper()
	code, err := os.ReadFile("testdata/scan.wasm")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	runtime := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = runtime.Close(ctx) })
	module, err := runtime.Instantiate(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := module.Memory().Grow(32); !ok {
		t.Fatal("no memory")
	}
	return &scanner{t: t, module: module, end: module.Memory().Size()}
}

func (s *scanner) call(name string, args ...uint64) uint32 {
	s.t.Helper()
	got, err := s.module.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	if len(got) == 0 {
		return 0
	}
	return uint32(got[0]) //nolint:gosec // the machine has 32 bits
}

// put writes b at the very end of memory.
func (s *scanner) put(b string) (at, size uint64) {
	s.t.Helper()
	from := s.end - uint32(len(b)) //nolint:gosec // short
	if !s.module.Memory().WriteString(from, b) {
		s.t.Fatal("too long")
	}
	return uint64(from), uint64(len(b))
}

func (s *scanner) read(at, n uint32) string {
	s.t.Helper()
	b, ok := s.module.Memory().Read(at, n)
	if !ok {
		s.t.Fatalf("%d bytes at %d are not in memory", n, at)
	}
	return string(b)
}

// last feeds a response in pieces and returns what is kept of it.
func (s *scanner) last(pieces []string) string {
	s.t.Helper()
	s.call("reset")
	for _, p := range pieces {
		at, n := s.put(p)
		s.call("feed", at, n)
	}
	n := s.call("last_size")
	if n == 0 {
		return ""
	}
	return s.read(s.call("last"), n)
}

// strip sends a stream through in pieces and returns what goes on.
func (s *scanner) strip(pieces []string) string {
	s.t.Helper()
	s.call("reset")
	var out strings.Builder
	held := ""
	for i, p := range pieces {
		if p != "" && i < len(pieces)-1 { // as the module does
			at, n := s.put(p)
			found, line := s.call("feed", at, n), uint64(0)
			if strings.HasSuffix(p, "\n") {
				line = 1
			}
			if s.call("passes", uint64(found), line) == 1 {
				out.WriteString(p)
				continue
			}
		}
		at, n := s.put(held + p)
		end := uint64(0)
		if i == len(pieces)-1 {
			end = 1
		}
		size := s.call("lines", at, n, end)
		rest := s.call("held")
		if uint64(size)+uint64(rest) > n || rest > hold {
			s.t.Fatalf("of %d bytes %d go on and %d are held", n, size, rest)
		}
		out.WriteString(s.read(uint32(at), size))
		held = s.read(uint32(at)+size, rest)
	}
	if held != "" {
		s.t.Fatalf("%q is held at the end", held)
	}
	return out.String()
}

var (
	anObject  = regexp.MustCompile(`^[ \t-\r]*:[ \t-\r]*\{`)
	emptyList = regexp.MustCompile(`^[ \t-\r]*:[ \t-\r]*\[[ \t-\r]*\]`)
	isEvent   = regexp.MustCompile(`^data: ?\{`)
)

// behind returns where what stands behind a key ends. A quote that ends a key begins no other.
func behind(b, key string, what *regexp.Regexp) []int {
	var out []int
	for from := 0; ; {
		i := strings.Index(b[from:], key)
		if i < 0 {
			return out
		}
		from += i + len(key)
		if m := what.FindStringIndex(b[from:]); m != nil {
			out = append(out, from+m[1])
		}
	}
}

// modelLast is what scan_last must return, written down as it would be of a whole response.
func modelLast(all string) string {
	whole, part := "", ""
	begins := append(behind(all, `"usage"`, anObject), len(all)+1)
	for i, begin := range begins[:len(begins)-1] {
		begin--                  // the brace
		limit := begins[i+1] - 1 // another object begins: this one is of no interest any more
		switch n := objectLength(all[begin:limit]); {
		case n > 0 && n <= keep:
			whole, part = all[begin:begin+n], ""
		default:
			part = all[begin:min(limit, begin+keep)]
		}
	}
	if whole != "" {
		return whole
	}
	return part
}

// objectLength returns how long the object is that b begins with, or zero when it has no end.
func objectLength(b string) int {
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// modelStrip is what must go on of a whole stream.
func modelStrip(all string) string {
	var out strings.Builder
	blank := false
	for line := range strings.Lines(all) {
		if blank && (line == "\n" || line == "\r\n" || line == "\r") {
			blank = false
			continue
		}
		blank = len(line) <= hold && isEvent.MatchString(line) && !strings.Contains(line, `"choices":[{`) &&
			len(behind(line, `"usage"`, anObject)) > 0 && len(behind(line, `"choices"`, emptyList)) > 0
		if !blank {
			out.WriteString(line)
		}
	}
	return out.String()
}

// words are what responses are made of here: the right ones, and what is nearly right.
var words = []string{
	`"usage"`, `"usage":{`, `"usage": {"prompt_tokens":1}`, `"usage":{"prompt_tokens":12,"completion_tokens":34,"d":{"c":0}}`, `"usage":null`,
	`"usage" : {"a":"}\"{","b":"\\"}`, `""usage":{}`, `"usag`, `"usage`, `\"usage\":{`, `usage":{`, `"usage""usage":{"x":2}`, `"prompt_usage":{}`,
	`:`, `{`, `}`, `"`, `\`, ` `, "\t", `,`, `null`, "\n", "\r\n", "\n\n", "\r", "data: ", "data: {", "data:{", `"choices":[]`, `"choices": [ ]`, `"choices":[{`,
	`"choices":[{"delta":{"content":"hi"}}]`, `"choices"`, `[]`, "data: [DONE]\n\n", `"id":"x",`, "ü", "\x00\xff", strings.Repeat("x", 300), strings.Repeat("{", 40),
	"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\n", "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":4}}\r\n\r\n",
}

// text strings words together.
func text(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(24) {
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.String()
}

// cut cuts b anywhere; empty pieces are among what comes out.
func cut(r *rand.Rand, b string) []string {
	var out []string
	for len(b) > 0 && len(out) < 200 {
		n := r.IntN(min(len(b), 1+r.IntN(40)) + 1)
		out = append(out, b[:n])
		b = b[n:]
	}
	return append(out, b)
}

func check(t testing.TB, s *scanner, all string, pieces []string) {
	t.Helper()
	if got, want := s.last(pieces), modelLast(all); got != want {
		t.Fatalf("of %q in pieces %q: kept %q, want %q", all, pieces, got, want)
	}
	if diff := cmp.Diff(s.strip(pieces), modelStrip(all)); diff != "" {
		t.Fatalf("of %q in pieces %q: what goes on (-got +want):\n%s", all, pieces, diff)
	}
}

func TestCutsDoNotMatter(t *testing.T) {
	s := newScanner(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		all := text(r)
		check(t, s, all, cut(r, all))
	}
}

// samples are responses as providers send them.
var samples = map[string]string{
	"json":    `{"id":"chatcmpl-1","choices":[{"message":{"content":"say \"usage\":{ now"}}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}`,
	"pretty":  "{\n  \"usage\" : {\n    \"prompt_tokens\": 9\n  }\n}\n",
	"stream":  "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\ndata: [DONE]\n\n",
	"bare":    "data:{\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\r\n\r\ndata: [DONE]\r\n\r\n",
	"always":  "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\ndata: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":9,\"comple",
	"no end":  "data: {\"error\":{\"message\":\"overloaded\"}}",
	"last":    "data: [DONE]\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}",
	"twice":   "data: {\"choices\":[],\"usage\":{\"a\":1}}\ndata: {\"choices\":[],\"usage\":{\"a\":2}}\n\n\n",
	"claude":  "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n",
	"nothing": "",
}

// TestAnyTwoCuts cuts the samples at each place, and at another not far behind it.
func TestAnyTwoCuts(t *testing.T) {
	s := newScanner(t)
	for name, all := range samples {
		for i := range len(all) + 1 {
			for j := i; j <= min(i+10, len(all)); j++ {
				check(t, s, all, []string{all[:i], all[i:j], all[j:]})
			}
		}
		if name == "always" && !strings.Contains(modelLast(all), `"completion_tokens":1}`) {
			t.Errorf("of a stream that is cut, %q is kept: not the last whole object", modelLast(all))
		}
	}
}

func TestLongLinesAndObjectsAreBounded(t *testing.T) {
	s := newScanner(t)
	for _, n := range []int{keep - 20, keep - 8, keep - 7, keep - 6, keep, 2 * keep, hold - 60, hold, hold + 60} {
		long := strings.Repeat("y", n)
		for _, all := range []string{
			`{"usage":{"a":"` + long + `"}}`,
			`{"usage":{"a":1},"usage":{"a":"` + long + `"}}`,
			"data: {\"x\":\"" + long + "\",\"choices\":[],\"usage\":{\"a\":1}}\n\ndata: [DONE]\n\n",
			"data: {\"x\":\"" + long,
		} {
			check(t, s, all, []string{all})
			half := len(all) / 2
			check(t, s, all, []string{all[:half], all[half : len(all)-9], all[len(all)-9:]})
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, all := range samples {
		f.Add(all, uint64(1))
	}
	s := newScanner(f)
	f.Fuzz(func(t *testing.T, all string, seed uint64) {
		if len(all) > 1<<20 {
			t.Skip("longer than the memory")
		}
		s.t = t
		check(t, s, all, cut(rand.New(rand.NewPCG(seed, 0)), all))
	})
}
