// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
)

const streamed = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello there"}],"stream":true,"stream_options":{"include_usage":true}}`

// events splits a stream into the data of its events.
func events(t *testing.T, stream string) []string {
	t.Helper()
	var list []string
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		_, data, found := strings.Cut(block, "data: ")
		if !found {
			t.Fatalf("an event without data: %q", block)
		}
		list = append(list, data)
	}
	return list
}

func TestClientThatHangsUpIsBilledForWhatWasWritten(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	body := strings.Replace(streamed, "gpt-4o-mini", "o3-mini", 1)
	resp := send(ctx, t, root+"/v1/chat/completions", body,
		"X-Fake-Tokens", "1000", "X-Fake-Interval-Ms", "5", "X-Client-Request-Id", "gone")
	r := bufio.NewReader(resp.Body)
	for range 2 * 4 { // the role and three words
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	a := settled(t, p, "gone")
	if a.Outcome != fake.ClientClosed || a.Events < 4 || a.Events > 700 {
		t.Fatalf("outcome = %s after %d events", a.Outcome, a.Events)
	}
	if want := a.Events - 1 + 250; a.Output != want || a.Reasoning != 250 || a.Input == 0 {
		t.Errorf("output = %d, want %d; reasoning = %d, input = %d", a.Output, want, a.Reasoning, a.Input)
	}
	if got := p.Ledger().Totals(); got.Output != a.Output || got.ClientClosed != 1 || got.Open != 0 || got.Completed != 0 {
		t.Errorf("totals = %+v", got)
	}
}

func TestCutResetsTheConnectionAfterSoManyEvents(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	tests := map[string]struct {
		body, after    string
		events, output int64
	}{
		"stream after none":    {streamed, "0", 0, 0},
		"stream after some":    {streamed, "4", 4, 3},
		"stream after the end": {streamed, "14", 14, 11}, // role, 11 words, finish, usage are 14; the cut comes before [DONE]
		"stream after all":     {streamed, "15", 15, 11},
		"json at its head":     {hello, "0", 0, 0},
		"json in its middle":   {hello, "7", 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := send(t.Context(), t, root+"/v1/chat/completions", tt.body,
				"X-Fake-Tokens", "11", "X-Fake-Cut-After", tt.after, "X-Client-Request-Id", name)
			b, err := io.ReadAll(resp.Body)
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("reading ended with %v, want a reset", err)
			}
			a := settled(t, p, name)
			if a.Outcome != fake.Cut || a.Status != 200 || a.Events != tt.events || a.Output != tt.output {
				t.Errorf("ledger has %+v", a.Served)
			}
			if got := int64(strings.Count(string(b), "\n\n")); got != tt.events {
				t.Errorf("got %d events, want %d", got, tt.events)
			}
		})
	}
}

func TestCutBeyondTheEndDoesNothing(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	_, body := ask(t, root+"/v1/chat/completions", streamed, "X-Fake-Tokens", "2", "X-Fake-Cut-After", "7", "X-Client-Request-Id", "x")
	if !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("the stream did not end: %s", body)
	}
	if a := settled(t, p, "x"); a.Outcome != fake.Complete || a.Events != 6 {
		t.Errorf("ledger has %+v", a.Served)
	}
}

func TestForcedResetGivesNoAnswer(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{Behavior: fake.Behavior{Reset: true}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, root+"/v1/chat/completions", strings.NewReader(hello))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Client-Request-Id", "x")
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("got an answer: %s", resp.Status)
	}
	if a := settled(t, p, "x"); a.Outcome != fake.Cut || a.Status != 0 {
		t.Errorf("ledger has %+v", a.Served)
	}
}

func TestFramesSplitTheBodyAnywhere(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	for name, body := range map[string]string{"json": hello, "stream": streamed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, want := ask(t, root+"/v1/chat/completions", body)
			for _, frame := range []string{"1", "7", "64", "1048576"} {
				if _, got := ask(t, root+"/v1/chat/completions", body, "X-Fake-Frame", frame); got != want {
					t.Errorf("frames of %s: got %q, want %q", frame, got, want)
				}
			}
		})
	}
}

// TestEachFrameIsAWrite reads the connection below HTTP, where a frame is a chunk.
func TestEachFrameIsAWrite(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(root, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	req := "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Fake-Frame: 100\r\n" +
		"X-Fake-Tokens: 3\r\nContent-Length: " + itoa(len(streamed)) + "\r\n\r\n" + streamed
	if _, err := io.WriteString(conn, req); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	if got := strings.Count(body, "64\r\ndata") + strings.Count(body, "\r\n64\r\n"); got < 10 { // 0x64 = 100
		t.Errorf("found %d chunks of 100 bytes: %q", got, body)
	}
}

func TestBothProtocolsAreServed(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
		tr.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
		t.Cleanup(tr.CloseIdleConnections)
		c := &http.Client{Transport: tr}
		post := func(id, cut string) (string, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, root+"/v1/chat/completions", strings.NewReader(streamed))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Client-Request-Id", id)
			req.Header.Set("X-Fake-Cut-After", cut)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			return string(b), err
		}
		if body, err := post(proto+" whole", "1000"); err != nil || !strings.HasSuffix(body, "[DONE]\n\n") {
			t.Errorf("%s: %v: %s", proto, err, body)
		}
		if body, err := post(proto+" cut", "3"); err == nil {
			t.Errorf("%s: a stream that was cut ended well: %s", proto, body)
		}
		if a := settled(t, p, proto+" whole"); a.Protocol != proto || a.Outcome != fake.Complete {
			t.Errorf("%s: ledger has %+v", proto, a)
		}
		if a := settled(t, p, proto+" cut"); a.Protocol != proto || a.Outcome != fake.Cut || a.Events != 3 {
			t.Errorf("%s: ledger has %+v", proto, a)
		}
	}
}
