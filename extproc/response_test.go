// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-proxy/weir/policy"
)

func TestDenialSaysWhenToRetryInWholeSeconds(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{
		0: "", time.Nanosecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Hour: "3600",
	} {
		r := denialResponse("id", &policy.Denial{Status: 429, RetryAfter: after}, DetailsDenied)
		got := ""
		for _, h := range r.GetImmediateResponse().GetHeaders().GetSetHeaders() {
			if h.GetHeader().GetKey() == "retry-after" {
				got = string(h.GetHeader().GetRawValue())
			}
		}
		if got != want {
			t.Errorf("retry-after = %q for %v, want %q", got, after, want)
		}
	}
}

func TestServerRefusesUntilItHasASnapshot(t *testing.T) {
	t.Parallel()
	engine := policy.New(policy.Options{})
	client := serve(t, Options{Engine: engine})
	headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o"}`))
	answer := exchange(t, client, headers)[0].GetImmediateResponse()
	if answer.GetStatus().GetCode() != 503 || !strings.Contains(string(answer.GetBody()), policy.CodeUnavailable) {
		t.Errorf("answer %v, want 503 %s", answer, policy.CodeUnavailable)
	}
	engine.SetSnapshot(testSnapshot(t))
	if answers := exchange(t, client, headers, body); groups(answers[1].GetDynamicMetadata()) == 0 {
		t.Errorf("answer %v, want an admission", answers[1])
	}
}

// Streams share the engine and the answers that are made ahead: the race detector watches.
func TestServerServesManyStreamsAtOnce(t *testing.T) {
	t.Parallel()
	engine := testEngine(t)
	client := serve(t, Options{Engine: engine})
	snapshot := testSnapshot(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 20 {
				stream, err := client.Process(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o","stream":true}`))
				if err := stream.Send(headers); err != nil {
					t.Error(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Error(err)
				}
				if err := stream.Send(body); err != nil {
					t.Error(err)
				}
				answer, err := stream.Recv()
				if err != nil || groups(answer.GetDynamicMetadata()) != 2 {
					t.Errorf("answer %v, %v, want two channels", answer, err)
				}
				if i == 0 {
					engine.SetSnapshot(snapshot)
				}
			}
		})
	}
	wg.Wait()
}
