// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/test/rig"
)

// By HTTP/1.1 a refused request has a body that Envoy has not read. The client gets the whole answer all the same, also one that writes all of its request before
// it reads, and is told that the connection ends with it. Envoy closes that only after a second, or when the client does.
func TestARefusalIsWholeThoughTheBodyWasNotRead(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	if err := envoy.WriteShare(envoy.SharePath(filepath.Join(w.Dir, "weir.sock")), 1); err != nil {
		t.Fatal(err)
	}
	w.Eventually("requests are refused", func() error {
		if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusServiceUnavailable {
			return errors.New("one was served")
		}
		return nil
	})
	for _, size := range []int{0, 1 << 10, 64 << 10, 1 << 20, 16 << 20} {
		for _, reads := range []string{"meanwhile", "afterwards"} {
			t.Run(fmt.Sprintf("%d bytes, it reads %s", size, reads), func(t *testing.T) {
				for range 3 {
					w.refusedWhole(t, size, reads == "meanwhile")
				}
			})
		}
	}
}

// refusedWhole sends a request with a body of so many bytes, and expects the whole of a refusal.
func (w *world) refusedWhole(t *testing.T, size int, meanwhile bool) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	written := make(chan error, 1)
	go func() {
		_, err := fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", w.key, size)
		if err == nil {
			_, err = io.WriteString(conn, strings.Repeat(" ", size))
		}
		written <- err
	}()
	var wrote error
	if !meanwhile {
		wrote = <-written
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("read the head of the answer: %v; the request was written: %v", err, wrote)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // as above
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(b), `"code":"overloaded"`) || resp.Close != (size > 0) {
		t.Errorf("got %d %s, connection ends: %v, %v; the request was written: %v", resp.StatusCode, b, resp.Close, err, wrote)
	}
}
