// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

func TestAdmissionsAreNotedBeforeEnvoyIsTold(t *testing.T) {
	t.Parallel()
	type noted struct {
		*policy.Admission
		bytes int
	}
	notes := make(chan noted, 1)
	client := serve(t, Options{Engine: testEngine(t), Admitted: func(a *policy.Admission, bytes int) error {
		notes <- noted{a, bytes}
		return nil
	}})
	request := []byte(`{"model":"gpt-4o","stream":true}`)
	headers, body := chat(t, "sk-good", request)
	answer := exchange(t, client, headers, body)[1]
	got := <-notes
	ticket := answer.GetDynamicMetadata().GetFields()[Namespace].GetStructValue().GetFields()["ticket"].GetStringValue()
	if got.bytes != len(request) || got.Ticket != ticket || ticket == "" {
		t.Errorf("noted %d bytes and the ticket %q; Envoy was told %q", got.bytes, got.Ticket, ticket)
	}
	for _, refused := range []string{`{"model":"no-such-model"}`, `{`} {
		headers, body = chat(t, "sk-good", []byte(refused))
		exchange(t, client, headers, body)
	}
	if len(notes) > 0 {
		t.Error("a refused request was noted")
	}
}

func TestRequestThatCannotBeNotedIsRefused(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	client := serve(t, Options{
		Engine:   testEngine(t),
		Admitted: func(*policy.Admission, int) error { return errors.New("the disk is full") },
		Logger:   slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o"}`))
	answer := exchange(t, client, headers, body)[1].GetImmediateResponse()
	if answer.GetStatus().GetCode() != 503 || !strings.Contains(string(answer.GetBody()), policy.CodeUnavailable) {
		t.Errorf("answer %v, want 503 %s", answer, policy.CodeUnavailable)
	}
	if strings.Contains(answer.String(), "disk") || !strings.Contains(said.String(), "the disk is full") {
		t.Errorf("the cause is for the log alone, which says:\n%s", said.String())
	}
}

// BenchmarkExchangeWithJournal is BenchmarkExchange of a small request with its intent written to a disk. The difference between the two is
// what the journal costs on the way of a request.
func BenchmarkExchangeWithJournal(b *testing.B) {
	j, _, err := journal.Open(b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	in := usage.NewIntents(usage.IntentOptions{Journal: j})
	for name, admitted := range map[string]func(*policy.Admission, int) error{
		"without": nil,
		"with": func(a *policy.Admission, bytes int) error {
			err := in.Admitted(a, bytes)
			j.Settle(a.Exchange) // at some time, and for less, together with others
			return err
		},
	} {
		server := New(Options{Engine: benchEngine(b), Admitted: admitted})
		b.Run(name, func(b *testing.B) {
			headers, body := chat(b, "sk-good", chatBody(1000, ""))
			b.ReportAllocs()
			for b.Loop() {
				x := session{server: server}
				server.timed(b.Context(), &x, headers)
				if answer, _ := server.timed(b.Context(), &x, body); answer.GetImmediateResponse() != nil {
					b.Fatal(answer)
				}
			}
		})
	}
}
