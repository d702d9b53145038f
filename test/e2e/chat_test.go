// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

func TestAnExchangeIsARowWithTheProvidersCounts(t *testing.T) {
	w := newWorld(t, rig.Options{})
	for name, c := range map[string]struct {
		path, body string
		operation  string
		stream     bool
	}{
		"chat":             {"/v1/chat/completions", hello, "chat", false},
		"chat stream":      {"/v1/chat/completions", helloStream, "chat", true},
		"completions":      {"/v1/completions", `{"model":"gpt-3.5-turbo-instruct","prompt":"Hello"}`, "completions", false},
		"completions SSE":  {"/v1/completions", `{"model":"gpt-3.5-turbo-instruct","prompt":"Hello","stream":true}`, "completions", true},
		"embeddings":       {"/v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b c"]}`, "embeddings", false},
		"responses":        {"/v1/responses", `{"model":"o3-mini","input":"Hello"}`, "responses", false},
		"responses stream": {"/v1/responses", `{"model":"o3-mini","input":"Hello","stream":true}`, "responses", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.post(t, c.path, c.body)
			if a.status != 200 {
				t.Fatalf("got status %d: %s", a.status, a.body)
			}
			row := w.Row(a.exchange)
			sameAsLedger(t, row, w.provider)
			got := []any{row.Operation, row.Status, row.HTTPStatus, row.Attempts, row.Stream, row.Estimated, row.ChannelID, row.RequestBytes}
			want := []any{c.operation, "ok", 200, 1, c.stream, false, w.channel.ID, int64(len(c.body))}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("operation, status, ... (got -, want +):\n%s", diff)
			}
			if row.Input == 0 || row.ResponseBytes != int64(len(a.body)) {
				t.Errorf("input tokens %d, response bytes %d, want some and %d", row.Input, row.ResponseBytes, len(a.body))
			}
		})
	}
}

// The usage chunk is taken out for clients that did not ask for it, however the provider's bytes are cut into reads; everything else
// arrives as it was sent, and the counts are exact.
func TestTheUsageChunkReachesOnlyWhoAskedForIt(t *testing.T) {
	underBothTaps(t, theUsageChunkReachesOnlyWhoAskedForIt)
}

func theUsageChunkReachesOnlyWhoAskedForIt(t *testing.T, w *world) {
	t.Helper()
	asked := strings.Replace(helloStream, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	whole := w.post(t, "/v1/chat/completions", asked, "x-fake-tokens", "5")
	want := events(t, whole.body)
	if n := len(want); n < 4 || !strings.Contains(want[n-2], `"choices":[]`) {
		t.Fatalf("who asked got no usage chunk: %q", want)
	}
	stripped := append(append([]string{}, want[:len(want)-2]...), "[DONE]")

	frames := []int{1, 2, 3, 5, 7, 13, 16, 31, 64, 100, 127, 255, 256, 300, 511, 700, 1000, 2000, 65536}
	for _, frame := range frames {
		size := fmt.Sprint(frame)
		t.Run("frames of "+size, func(t *testing.T) {
			steer := []string{"x-fake-tokens", "5", "x-fake-frame", size}
			if frame < 500 {
				steer = append(steer, "x-fake-interval-ms", "1")
			}
			a := w.post(t, "/v1/chat/completions", helloStream, steer...)
			if diff := cmp.Diff(normal(events(t, a.body)), normal(stripped)); diff != "" {
				t.Errorf("who did not ask (got -, want +):\n%s", diff)
			}
			if strings.Contains(a.body, "\n\n\n") || !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
				t.Errorf("blank lines are left over: %q", a.body)
			}
			sameAsLedger(t, w.Row(a.exchange), w.provider)

			a = w.post(t, "/v1/chat/completions", asked, steer...)
			if diff := cmp.Diff(normal(events(t, a.body)), normal(want)); diff != "" {
				t.Errorf("who asked (got -, want +):\n%s", diff)
			}
			sameAsLedger(t, w.Row(a.exchange), w.provider)
		})
	}
}

// normal drops what differs between two answers to the same question: their id.
func normal(events []string) []string {
	var out []string
	for _, e := range events {
		if rest, ok := strings.CutPrefix(e, `{"id":"`); ok {
			_, e, _ = strings.Cut(rest, `"`)
		}
		out = append(out, e)
	}
	return out
}

// Providers say usage in other places too: on the last chunk with content, which nobody may take out.
func TestUsageOnAContentChunkIsKeptAndCounted(t *testing.T) {
	underBothTaps(t, usageOnAContentChunkIsKeptAndCounted)
}

func usageOnAContentChunkIsKeptAndCounted(t *testing.T, w *world) {
	t.Helper()
	a := w.post(t, "/v1/chat/completions", helloStream, "x-fake-tokens", "4", "x-fake-usage-last", "content")
	if !strings.Contains(a.body, `"usage":{`) {
		t.Errorf("the chunk with content and usage is gone: %s", a.body)
	}
	sameAsLedger(t, w.Row(a.exchange), w.provider)
}

func TestAProviderWithoutUsageIsEstimatedAndSaysSo(t *testing.T) {
	w := newWorld(t, rig.Options{})
	for _, body := range []string{hello, helloStream} {
		a := w.post(t, "/v1/chat/completions", body, "x-fake-no-usage", "true")
		row := w.Row(a.exchange)
		if row.Status != "ok" || !row.Estimated || row.Input == 0 || row.Output == 0 {
			t.Errorf("got status %s, estimated %v, %d in, %d out; want ok, true and estimates", row.Status, row.Estimated, row.Input, row.Output)
		}
	}
}

func TestAChannelsPathKeyAndModelNameReachItsProvider(t *testing.T) {
	r := rig.Start(t, rig.Options{})
	deep := r.Provider(fakeAt("/base/v1"))
	root := r.Provider(fakeAt("/"))
	r.Channel(store.NewChannel{Name: "deep", BaseURL: deep.URL, Credential: "sk-deep", Models: rig.Models("asked=theirs", "same"), Provider: "azure"})
	r.Channel(store.NewChannel{Name: "root", BaseURL: "http://" + root.Addr, Credential: "sk-root", Models: rig.Models("rooted"), Provider: "openai"})
	key, _ := r.Key(store.NewKey{Name: "k"})
	r.Settle()
	w := &world{Rig: r, key: key}

	for _, c := range []struct {
		asked, path, header, credential, body string
		p                                     *rig.Provider
	}{
		{"asked", "/base/v1/chat/completions", "api-key", "sk-deep", `{"x":[1,2.50,"\u00e9"], "model" : "theirs" ,"messages":[]}`, deep},
		{"same", "/base/v1/chat/completions", "api-key", "sk-deep", `{"x":[1,2.50,"\u00e9"], "model" : "same" ,"messages":[]}`, deep},
		{"rooted", "/chat/completions", "authorization", "Bearer sk-root", `{"x":[1,2.50,"\u00e9"], "model" : "rooted" ,"messages":[]}`, root},
	} {
		a := w.post(t, "/v1/chat/completions", `{"x":[1,2.50,"\u00e9"], "model" : "`+c.asked+`" ,"messages":[]}`)
		got := c.p.Ledger().Attempts(a.exchange)
		if len(got) != 1 {
			t.Errorf("%s: got %d attempts, want 1 (status %d: %s)", c.asked, len(got), a.status, a.body)
			continue
		}
		g := got[0]
		if g.Path != c.path || g.Credential.Header != c.header || g.Credential.Value != c.credential || g.Body != c.body {
			t.Errorf("%s: the provider got %s, %+v, %s", c.asked, g.Path, g.Credential, g.Body)
		}
	}
}
