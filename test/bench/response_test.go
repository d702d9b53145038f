// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
	"f\r\ndata: {\"a\":1}\n\n\r\n" + "9;x=y\r\ndata: {}\n\r\n" + "1\r\n\n\r\n" + "e\r\ndata: [DONE]\n\n\r\n" + "0\r\nx-trailer: 1\r\n\r\n"

func TestResponsesAreReadHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	text := "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: envoy\r\n\r\nhello" + stream +
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy" + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
	for name, cut := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "by halves": iotest.HalfReader, "by bytes": iotest.OneByteReader,
	} {
		x := newResponseReader(cut(strings.NewReader(text)))
		for i, want := range []response{{status: 200, bytes: 5}, {status: 200, bytes: 39, events: 3}, {status: 503, bytes: 4}, {status: 200}} {
			got, err := x.next()
			if err != nil {
				t.Fatalf("%s: response %d: %v", name, i, err)
			}
			if got.status != want.status || got.bytes != want.bytes || got.events != want.events {
				t.Errorf("%s: response %d: got %+v, want %+v", name, i, got, want)
			}
			if want.status == 503 && string(got.excuse) != "busy" {
				t.Errorf("%s: got excuse %q, want the body", name, got.excuse)
			}
		}
		if _, err := x.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: behind the last: got %v, want %v", name, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestALargeBodyNeedsNoLargeBuffer(t *testing.T) {
	t.Parallel()
	event := []byte("data: " + strings.Repeat("x", 1000) + "\n\n")
	body := bytes.Repeat(event, 100)
	head := "HTTP/1.1 200 OK\r\ncontent-length: 100800\r\n\r\n"
	got, err := newResponseReader(io.MultiReader(strings.NewReader(head), bytes.NewReader(body))).next()
	if err != nil || got.bytes != 100800 || got.events != 100 {
		t.Errorf("got %d bytes, %d events, %v; want 100800 bytes, 100 events", got.bytes, got.events, err)
	}
}

func TestBadResponsesAreErrors(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"cut in its head":      "HTTP/1.1 200 OK\r\ncontent-le",
		"cut in its body":      "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
		"cut before its end":   strings.TrimSuffix(stream, "0\r\nx-trailer: 1\r\n\r\n"),
		"of no known length":   "HTTP/1.1 200 OK\r\n\r\nhello",
		"of negative length":   "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
		"not HTTP":             "SSH-2.0-OpenSSH_9.6\r\n\r\n",
		"with no status":       "HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n",
		"with a bad chunk":     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
		"with an overlong one": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
		"with an endless head": "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("x", maxHead),
	} {
		if got, err := newResponseReader(strings.NewReader(text)).next(); err == nil {
			t.Errorf("a response %s: got %+v, want an error", name, got)
		}
	}
}
