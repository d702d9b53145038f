// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/workshop"
)

// redactorBench holds the redactor of the library.
func redactorBench(t *testing.T) *Bench {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pii-redactor.wasm")
	if err := workshop.Build(t.Context(), filepath.Join(repo.Root(t), "plugins", "library", "pii-redactor"), file); err != nil {
		t.Fatal(err)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBench(t.Context(), wasm, Options{Name: "pii-redactor", CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(t.Context()) })
	return b
}

// delta is what an event of a stream gives to one of its texts.
type delta struct {
	to   int // a choice, or an item of the output
	text string
}

// chatOf writes a chat's stream; each choice ends by itself.
func chatOf(deltas []delta, choices int) string {
	var b strings.Builder
	chunk := func(choice int, member, finish string) {
		b.WriteString(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":` + strconv.Itoa(choice) +
			`,"delta":{` + member + `},"finish_reason":` + finish + "}]}\n\n")
	}
	for _, d := range deltas {
		chunk(d.to, `"content":`+quoted(d.text), "null")
	}
	for n := range choices {
		chunk(n, "", `"stop"`)
	}
	b.WriteString("data: [DONE]\n\n")
	return b.String()
}

// responsesOf writes a stream of the responses API, in which each item of the output has one text.
func responsesOf(deltas []delta, _ int) string {
	var b strings.Builder
	whole := map[int]string{}
	for _, d := range deltas {
		whole[d.to] += d.text
		b.WriteString("event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","item_id":"i` + strconv.Itoa(d.to) + `","output_index":` +
			strconv.Itoa(d.to) + `,"content_index":0,"delta":` + quoted(d.text) + "}\n\n")
	}
	for n := range len(whole) {
		b.WriteString("event: response.output_text.done\n" + `data: {"type":"response.output_text.done","item_id":"i` + strconv.Itoa(n) + `","output_index":` +
			strconv.Itoa(n) + `,"content_index":0,"text":` + quoted(whole[n]) + "}\n\n")
	}
	return b.String()
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // it is a text
	}
	return string(b)
}

// Two texts come in turns, cut in two wherever they can be, and character by character.
func TestNoSplitOfTwoChoicesLetsASecretThrough(t *testing.T) {
	t.Parallel()
	b := redactorBench(t)
	texts := [2]string{"Ask ada@example.org or 4111 1111 1111 1111.", "The key is sk-proj-abcdefghijklmnopqrstuvwx1234, é."}
	clean := [2]string{"Ask [EMAIL] or [CARD].", "The key is [SECRET], é."}
	secrets := []string{"ada@", "example.org", "4111", "1111", "sk-proj", "abcdefgh", "uvwx1234"}
	for name, of := range map[string]struct {
		operation string
		write     func([]delta, int) string
	}{"chat": {"chat", chatOf}, "responses": {"responses", responsesOf}} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseCase("two", "-- settings --\noperation: "+of.operation+"\n-- request --\n{\"model\":\"m\",\"n\":2,\"stream\":true,\"messages\":[],\"input\":\"x\"}\n-- response.sse --\n\n")
			if err != nil {
				t.Fatal(err)
			}
			p, err := b.load(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close() //nolint:errcheck // nothing was written
			known := map[string]host.Result{}
			try := func(deltas []delta) {
				t.Helper()
				s := begin(c, &recorder{asker: p, known: known})
				s.watch([]byte(of.write(deltas, len(texts))), nil)
				o := s.end()
				for _, x := range secrets {
					if strings.Contains(o.client, x) {
						t.Fatalf("%q is let through of %v:\n%s", x, deltas, o.client)
					}
				}
				heard := read(c, o.client)
				for n, want := range clean {
					if !strings.Contains(heard, strconv.Itoa(n)+": "+want+"\n") {
						t.Fatalf("text %d of %v is not %q but:\n%s", n, deltas, want, heard)
					}
				}
			}
			for i := range texts[0] {
				for j := range texts[1] {
					try([]delta{{0, texts[0][:i]}, {1, texts[1][:j]}, {0, texts[0][i:]}, {1, texts[1][j:]}})
				}
			}
			var letters []delta
			first, second := runes(texts[0]), runes(texts[1])
			for n := range max(len(first), len(second)) {
				for to, text := range [][]string{first, second} {
					if n < len(text) {
						letters = append(letters, delta{to, text[n]})
					}
				}
			}
			try(letters)
		})
	}
}
