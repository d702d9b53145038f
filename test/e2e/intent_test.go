// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// leasedWorld is a gateway in which an exchange that shows no sign of life is given up after three seconds.
func leasedWorld(t *testing.T, behavior fake.Behavior) *world {
	t.Helper()
	r := rig.Start(t, rig.Options{Production: true, Config: "usage: {lease: 3s}\n"})
	w := &world{Rig: r, provider: r.Provider(fake.Options{Behavior: behavior})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	return w
}

// noIntents waits until every exchange that was admitted has come to an end.
func (w *world) noIntents() {
	w.Eventually("no intent is open", func() error {
		n, err := w.Metric("weir_journal_open_intents")
		if err == nil && n > 0 {
			err = fmt.Errorf("%v are open", n)
		}
		return err
	})
}

// An Envoy that is killed writes no lines of what it was at. These exchanges are not forgotten, whatever else dies.
func TestExchangesOfAKilledEnvoyAreUnresolved(t *testing.T) {
	w := leasedWorld(t, fake.Behavior{Hang: true})
	const clients = 10
	for range clients {
		send(t, w, hello)
	}
	w.Eventually("all are admitted", func() error {
		n, err := w.Metric("weir_journal_appends_total")
		if err == nil && n < clients {
			err = fmt.Errorf("%v", n)
		}
		return err
	})
	w.KillProcessor()
	signal(t, w.EnvoyPID(), syscall.SIGKILL)
	w.StartProcessor()
	for _, row := range w.Rows(clients) {
		if row.Status != "unresolved" || !row.Estimated || row.Input == 0 || row.Output == 0 || row.Model != "gpt-4o-mini" {
			t.Errorf("got row %+v", row)
		}
	}
	w.noIntents()
	w.Rows(clients)
}

// send begins a request, with as much of its body as is given, and returns the connection.
func send(t *testing.T, w *world, body string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s",
		w.key, len(hello), body); err != nil {
		t.Fatal(err)
	}
	return c
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// A client that leaves while the processor decides, or a processor that dies right behind the decision, leaves an intent of an exchange that
// never was.
func TestADecisionThatEnvoyNeverHeardOfMakesNoRow(t *testing.T) {
	for name, kill := range map[string]bool{"the client leaves": false, "the processor is killed": true} {
		t.Run(name, func(t *testing.T) {
			w := leasedWorld(t, fake.Behavior{})
			const clients = 30
			reached := func(statistic string, messages int) {
				w.Eventually(statistic, func() error {
					if n := w.Stat(statistic); n < messages {
						return fmt.Errorf("%d messages", n)
					}
					return nil
				})
			}
			var conns []net.Conn
			for range clients {
				conns = append(conns, send(t, w, hello[:20]))
			}
			reached("http.weir.ext_proc.stream_msgs_received", clients) // the headers are answered: bodies may be sent
			signal(t, w.ProcessorPID(), syscall.SIGSTOP)
			for _, c := range conns {
				if _, err := io.WriteString(c, hello[20:]); err != nil {
					t.Fatal(err)
				}
			}
			reached(msgs, 2*clients)
			if !kill {
				for _, c := range conns {
					_ = c.Close()
				}
			}
			signal(t, w.ProcessorPID(), syscall.SIGCONT)
			if kill {
				w.KillProcessor()
				w.StartProcessor()
			}
			w.Eventually("the log tells of all", func() error {
				b, err := os.ReadFile(filepath.Join(w.LogDir, "exchanges.jsonl"))
				if n := bytes.Count(b, []byte("\n")); err == nil && n < clients {
					err = fmt.Errorf("%d lines", n)
				}
				return err
			})
			appended, err := w.Metric("weir_journal_appends_total")
			open, err2 := w.Metric("weir_journal_open_intents")
			t.Logf("%v decided on and %v open, %v, %v", appended, open, err, err2)
			w.noIntents()
			w.Rows(int(w.provider.Ledger().Totals().Requests))
		})
	}
}
