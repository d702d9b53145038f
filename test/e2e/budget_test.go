// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/test/rig"
)

const dollar = int64(budget.NanoUSD)

// tenth is a request that costs at most a few tenths of a cent.
const tenth = `{"model":"gpt-4o-mini","max_tokens":150,"messages":[{"role":"user","content":"Hello there"}]}`

// budgeted gives the key of a world a budget.
func (w *world) budgeted(t *testing.T, c store.BudgetChange) {
	t.Helper()
	if _, err := w.Store.SetKey(t.Context(), "k", store.KeyChange{Budget: &c}); err != nil {
		t.Fatal(err)
	}
	w.Settle()
}

// spender is one of many clients of several gateways.
type spender struct {
	key            string
	urls           []string
	served, failed *atomic.Int64
}

// spend asks one gateway after the other until each says that the budget is used up.
func (s spender) spend(t *testing.T, client *http.Client, n int, deadline time.Time) {
	t.Helper()
	over := make([]bool, len(s.urls))
	for left := len(s.urls); left > 0; n++ {
		if time.Now().After(deadline) {
			t.Errorf("the budget is not used up by the deadline: %v", over)
			return
		}
		at := n % len(s.urls)
		if over[at] {
			continue
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.urls[at]+"/v1/chat/completions", strings.NewReader(tenth))
		if err != nil {
			t.Error(err)
			return
		}
		for name, value := range map[string]string{"authorization": "Bearer " + s.key, "content-type": "application/json", "x-fake-tokens": strconv.Itoa(80 + n%70)} {
			r.Header.Set(name, value)
		}
		resp, err := client.Do(r)
		if err != nil {
			s.failed.Add(1)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK:
			s.served.Add(1)
		case strings.Contains(string(body), budget.CodeQuota):
			over[at] = true
			left--
		default: // reserved by others for a moment, or the processor is being started again
			s.failed.Add(1)
			wait := time.NewTimer(100 * time.Millisecond)
			select {
			case <-t.Context().Done():
			case <-wait.C:
			}
		}
	}
}

// TestADollarIsSpentByThreeProcessorsAndNoMore: 200 clients spend a dollar by three gateways on one database, one of whose processors is killed meanwhile.
func TestADollarIsSpentByThreeProcessorsAndNoMore(t *testing.T) {
	w := newWorld(t, rig.Options{})
	by := tariff{input: 2500, cached: 2500, output: 10_000, reasoning: 10_000}
	w.price(t, "gpt-4o-mini", by)
	never := string(budget.Never)
	w.budgeted(t, store.BudgetChange{Amount: new(dollar), Period: &never})
	all := []*rig.Rig{w.Rig}
	s := spender{key: w.key, urls: []string{w.URL}, served: &atomic.Int64{}, failed: &atomic.Int64{}}
	for range 2 {
		r := rig.Start(t, rig.Options{DSN: w.DSN})
		r.Settle()
		all, s.urls = append(all, r), append(s.urls, r.URL)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}, Timeout: 30 * time.Second}
	deadline := time.Now().Add(3 * time.Minute)
	var clients sync.WaitGroup
	for n := range 200 {
		clients.Go(func() { s.spend(t, client, n, deadline) })
	}
	w.Eventually("a part of the dollar is spent", func() error {
		if n := s.served.Load(); n < 200 {
			return fmt.Errorf("%d requests were served", n)
		}
		return nil
	})
	all[1].KillProcessor()
	all[1].StartProcessor()
	clients.Wait()
	served := w.provider.Ledger().Totals().Tokens
	paid := served.Input*by.input + served.Output*by.output
	if paid > dollar || paid < dollar/100*99 {
		t.Errorf("the provider was paid $%s, want between $0.99 and $1", budget.FormatUSD(paid))
	}
	t.Logf("%d requests were served for $%s; %d were refused for a moment", s.served.Load(), budget.FormatUSD(paid), s.failed.Load())
	w.Eventually("rows and budget have what the provider was paid", func() error {
		sums, err := w.Store.SumUsage(t.Context(), store.UsageFilter{}, nil)
		if err != nil || len(sums) != 1 || sums[0].CostNanoUSD != paid {
			return fmt.Errorf("rows: %+v, %w", sums, err)
		}
		st, err := w.Store.BudgetState(t.Context(), store.BudgetRef{Key: "k"}, time.Now())
		if err != nil || st.Spent != paid {
			return fmt.Errorf("budget: %+v, %w", st, err)
		}
		return nil
	})
}

// TestKeyWithABudgetWorksAtOnce: whoever is told of a key by the API can use it, though its budget was leased by nobody yet; also where a request may cost nearly all
// of it.
func TestKeyWithABudgetWorksAtOnce(t *testing.T) {
	w := newWorld(t, rig.Options{Production: true})
	w.price(t, "gpt-4o-mini", tariff{input: 2500, cached: 2500, output: 10_000, reasoning: 10_000})
	c, err := admin.NewClient(w.AdminURL, store.Secret(rig.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateTenant(t.Context(), admin.NewTenant{Name: "acme", Budget: &admin.BudgetTerms{AmountNanoUSD: new(dollar)}}); err != nil {
		t.Fatal(err)
	}
	used := w.key
	t.Cleanup(func() { w.key = used })
	for i := range 30 {
		amount := []int64{dollar, dollar / 250}[i%2] // the request may cost some 0.0033 dollars
		k, err := c.CreateKey(t.Context(), admin.NewKey{
			Tenant: "acme", Name: fmt.Sprintf("bot-%d", i), Budget: &admin.BudgetTerms{AmountNanoUSD: &amount}, Limits: &admin.Rates{Requests: admin.To(int64(60))},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.key = k.Secret
		if a := w.post(t, "/v1/chat/completions", tenth); a.status != http.StatusOK {
			t.Fatalf("key %d: status %d: %s", i, a.status, a.body)
		}
	}
	if n, err := w.Metric("weir_configuration_keys"); err != nil || n != 31 {
		t.Errorf("%v keys, %v", n, err)
	}
}

func TestExhaustedBudgetSaysWhenItRenewsAndATopUpHelpsAtOnce(t *testing.T) {
	var notices sync.Map
	var count atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n struct {
			ID, Type, Key, Tenant string
			Percent               int
		}
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || n.Type != "budget.share" || n.Key != "k" || n.Tenant != store.DefaultTenant {
			t.Errorf("notice %+v, %v", n, err)
		}
		if count.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable) // then it is sent again
			return
		}
		if _, twice := notices.LoadOrStore(n.ID, n.Percent); twice {
			t.Errorf("the notice %s came twice", n.ID)
		}
	}))
	defer hook.Close()
	w := newWorld(t, rig.Options{Production: true, Config: "limits: {budgets: {webhook: " + hook.URL + "/hook}}\n"})
	w.price(t, "gpt-4o-mini", tariff{input: 2500, cached: 2500, output: 100_000, reasoning: 100_000})
	day := string(budget.Day)
	w.budgeted(t, store.BudgetChange{Amount: new(dollar / 20), Period: &day, Shares: &[]int{50, 100}})
	var last answer
	w.Eventually("the budget is used up", func() error {
		if last = w.post(t, "/v1/chat/completions", tenth); last.status == http.StatusTooManyRequests && last.refusal(t).Code == budget.CodeQuota {
			return nil
		}
		return fmt.Errorf("status %d: %s", last.status, last.body)
	})
	f := last.refusal(t)
	seconds, err := strconv.Atoi(last.header.Get("retry-after"))
	if f.Type != budget.CodeQuota || !strings.Contains(f.Message, "key `k` per day") || !strings.Contains(f.Message, "renews at "+strconv.Itoa(time.Now().UTC().Year())) ||
		err != nil || seconds < 1 || seconds > 24*60*60 {
		t.Errorf("%+v, retry-after %q", f, last.header.Get("retry-after"))
	}
	c, err := admin.NewClient(w.AdminURL, store.Secret(rig.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.TopUp(t.Context(), admin.BudgetRef{Key: "k"}, admin.TopUp{AmountNanoUSD: dollar, Reference: "first"}); err != nil {
		t.Fatal(err)
	}
	if a := w.post(t, "/v1/chat/completions", tenth); a.status != http.StatusOK {
		t.Errorf("what was topped up cannot be spent: status %d: %s", a.status, a.body)
	}
	w.Eventually("the webhook was told, after an attempt that failed", func() error {
		n := 0
		notices.Range(func(_, _ any) bool { n++; return true })
		if n < 1 {
			return fmt.Errorf("%d notices", n)
		}
		return nil
	})
}
