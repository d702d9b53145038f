// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/fake"
)

func TestLedgerTellsWhatReachedTheProvider(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{KeepHeaders: true, KeepBody: 10})
	before := time.Now()
	_, body := ask(t, root+"/v1/chat/completions", hello,
		"X-Client-Request-Id", "x", "Authorization", "Bearer sk-a", "X-Odd", "1", "User-Agent", "test", "X-Fake-Tokens", "5")
	a := p.Ledger().Attempts("x")[0]
	if a.Time.Before(before) || a.Time.After(time.Now()) {
		t.Errorf("time = %v", a.Time)
	}
	sum := sha256.Sum256([]byte(hello))
	want := fake.Attempt{
		Received: fake.Received{
			Time: a.Time, Account: "fake", Method: "POST", Path: "/v1/chat/completions", Host: strings.TrimPrefix(root, "http://"), Protocol: "HTTP/1.1",
			Credential:  fake.Credential{Header: "authorization", Value: "Bearer sk-a"},
			HeaderNames: []string{"accept-encoding", "authorization", "content-length", "user-agent", "x-client-request-id", "x-fake-tokens", "x-odd"},
			Headers: http.Header{
				"Accept-Encoding": {"gzip"}, "Authorization": {"Bearer sk-a"}, "Content-Length": {itoa(len(hello))}, "User-Agent": {"test"},
				"X-Client-Request-Id": {"x"}, "X-Fake-Tokens": {"5"}, "X-Odd": {"1"},
			},
			BodyBytes: int64(len(hello)), BodySHA256: hex.EncodeToString(sum[:]), Body: hello[:10], Model: "gpt-4o-mini",
		},
		Served: fake.Served{
			Status: 200, Tokens: fake.Tokens{Input: 3 + 4 + 3, Output: 5}, Events: 1, ResponseBytes: int64(len(body)), Outcome: fake.Complete,
		},
	}
	if diff := cmp.Diff(a, want); diff != "" {
		t.Errorf("attempt (-got +want):\n%s", diff)
	}
}

func TestLedgerIsReadOverHTTP(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	ask(t, root+"/v1/chat/completions", hello, "X-Client-Request-Id", "a")
	ask(t, root+"/v1/chat/completions", hello, "X-Client-Request-Id", "a", "X-Fake-Status", "500")
	ask(t, root+"/v1/models", "")

	read := func(query string) (s fake.Snapshot) {
		t.Helper()
		_, body := ask(t, root+"/ledger"+query, "")
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatalf("ledger%s: %v: %s", query, err, body)
		}
		return s
	}
	all := read("")
	if len(all.Exchanges) != 2 || len(all.Exchanges["a"]) != 2 || len(all.Exchanges[""]) != 1 {
		t.Fatalf("exchanges = %+v", all.Exchanges)
	}
	if got := []fake.Outcome{all.Exchanges["a"][0].Outcome, all.Exchanges["a"][1].Outcome}; got[0] != fake.Complete || got[1] != fake.Failed {
		t.Errorf("outcomes = %v", got)
	}
	if all.Totals.Requests != 3 || all.Totals.Completed != 2 || all.Totals.Errors != 1 || all.Totals.BodyBytes != int64(2*len(hello)) {
		t.Errorf("totals = %+v", all.Totals)
	}
	one := read("?exchange=a")
	if diff := cmp.Diff(one.Exchanges, map[string][]fake.Attempt{"a": all.Exchanges["a"]}); diff != "" {
		t.Errorf("one exchange (-got +want):\n%s", diff)
	}
	if got := read("?exchange=b"); len(got.Exchanges) != 0 || got.Totals != all.Totals {
		t.Errorf("an unknown exchange: %+v", got)
	}
	if got := read("?totals=true"); len(got.Exchanges) != 0 || got.Totals != all.Totals {
		t.Errorf("only totals: %+v", got)
	}
	if resp, _ := ask(t, root+"/ledger/reset", ""); resp.StatusCode != 405 {
		t.Errorf("GET of reset: status = %d", resp.StatusCode)
	}
	if resp, _ := ask(t, root+"/ledger/reset", "{}"); resp.StatusCode != 200 {
		t.Errorf("reset: status = %d", resp.StatusCode)
	}
	if got := read(""); len(got.Exchanges) != 0 || got.Totals != (fake.Totals{}) {
		t.Errorf("after reset: %+v", got)
	}
}

func TestResetForgetsRequestsInFlight(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	resp := send(t.Context(), t, root+"/v1/chat/completions", streamed, "X-Fake-Tokens", "3", "X-Fake-Interval-Ms", "20", "X-Client-Request-Id", "x")
	p.Ledger().Reset()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if got := p.Ledger().Totals(); got != (fake.Totals{}) || p.Ledger().Attempts("x") != nil {
		t.Errorf("totals = %+v, want none", got)
	}
}

func TestTotalsAreExactWhenAttemptsAreNoLongerKept(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{KeepAttempts: 2})
	for i := range 5 {
		ask(t, root+"/v1/chat/completions", hello, "X-Client-Request-Id", itoa(i), "X-Fake-Tokens", "10")
	}
	s := p.Ledger().Snapshot()
	if len(s.Exchanges) != 2 || s.Totals.NotKept != 3 || s.Totals.Requests != 5 || s.Totals.Completed != 5 || s.Totals.Output != 50 {
		t.Errorf("kept %d, totals = %+v", len(s.Exchanges), s.Totals)
	}
}

func TestAttemptIsSettledBeforeItsAnswerIsSeen(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	for i := range 200 {
		id := itoa(i)
		body := hello
		if i%2 == 0 {
			body = streamed
		}
		ask(t, root+"/v1/chat/completions", body, "X-Client-Request-Id", id, "X-Fake-Frame", "4096")
		if a := p.Ledger().Attempts(id); len(a) != 1 || a[0].Outcome != fake.Complete {
			t.Fatalf("exchange %s: ledger has %+v", id, a)
		}
	}
}

// TestLedgerIsExactUnderConcurrency compares the totals with what the clients themselves saw, and with the sum of attempts.
func TestLedgerIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	const workers, rounds = 16, 25
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := fake.Totals{}
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				s := clientSees(t, root, fmt.Sprintf("%d-%d", w, i), i%4)
				mu.Lock()
				seen.Completed += s.Completed
				seen.Errors += s.Errors
				seen.Cut += s.Cut
				seen.Output += s.Output
				seen.Events += s.Events
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s := p.Ledger().Snapshot()
	if s.Totals.Requests != workers*rounds || s.Totals.Open != 0 || s.Totals.ClientClosed != 0 {
		t.Errorf("totals = %+v", s.Totals)
	}
	got := fake.Totals{Completed: s.Totals.Completed, Errors: s.Totals.Errors, Cut: s.Totals.Cut, Events: s.Totals.Events}
	got.Output = s.Totals.Output
	if diff := cmp.Diff(got, seen); diff != "" {
		t.Errorf("ledger against clients (-ledger +clients):\n%s", diff)
	}
	var sum fake.Tokens
	for _, as := range s.Exchanges {
		for _, a := range as {
			sum.Input += a.Input
			sum.CachedInput += a.CachedInput
			sum.Output += a.Output
			sum.Reasoning += a.Reasoning
		}
	}
	if sum != s.Totals.Tokens || len(s.Exchanges) != workers*rounds {
		t.Errorf("%d attempts sum to %+v, totals are %+v", len(s.Exchanges), sum, s.Totals.Tokens)
	}
}

// clientSees makes one request of some kind and counts what came back.
func clientSees(t *testing.T, root, id string, kind int) (s fake.Totals) {
	t.Helper()
	headers := [][]string{{}, {}, {"X-Fake-Status", "503"}, {"X-Fake-Cut-After", "3"}}[kind]
	body := []string{hello, streamed, hello, streamed}[kind]
	resp := send(t.Context(), t, root+"/v1/chat/completions", body, append(headers, "X-Client-Request-Id", id)...)
	b, err := io.ReadAll(resp.Body)
	switch kind {
	case 0, 1:
		s.Completed = 1
	case 2:
		s.Errors = 1
	case 3:
		s.Cut = 1
	}
	if (err != nil) != (kind == 3) {
		t.Errorf("exchange %s: reading ended with %v", id, err)
	}
	var answer struct {
		Usage struct {
			Output int64 `json:"completion_tokens"`
		}
	}
	switch kind {
	case 0:
		s.Events = 1
		if err := json.Unmarshal(b, &answer); err != nil {
			t.Error(err)
		}
		s.Output = answer.Usage.Output
	case 1, 3:
		s.Events = int64(strings.Count(string(b), "\n\n"))
		s.Output = int64(strings.Count(string(b), `"delta":{"content":"`) - strings.Count(string(b), `"delta":{"content":"",`))
	case 2:
		s.Events = 1
	}
	return s
}

func TestAbandonedUploadIsInTheLedger(t *testing.T) {
	t.Parallel()
	p := fake.New(fake.Options{})
	body := io.MultiReader(strings.NewReader(`{"model":`), errReader{})
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/chat/completions", body)
	req.Header.Set("X-Client-Request-Id", "x")
	p.ServeHTTP(httptest.NewRecorder(), req)
	a := p.Ledger().Attempts("x")[0]
	if a.Outcome != fake.ClientClosed || a.Status != 0 || a.BodyBytes != 9 {
		t.Errorf("ledger has %+v", a)
	}
}

// errReader is a body that breaks off.
type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// BenchmarkServe measures the provider without a network. Its cost matters: it shares a machine with what it tests.
func BenchmarkServe(b *testing.B) {
	for name, body := range map[string]string{"json": hello, "stream": streamed} {
		b.Run(name, func(b *testing.B) {
			p := fake.New(fake.Options{})
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/chat/completions", strings.NewReader(body))
				p.ServeHTTP(httptest.NewRecorder(), req)
			}
		})
	}
}
