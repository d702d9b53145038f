// SPDX-License-Identifier: Apache-2.0

package costs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// source is a [Source] in memory.
type source struct {
	versions map[int64]prices.Version
	lists    map[prices.Hash]string
	down     error
	asked    int
}

func (s *source) PriceVersion(_ context.Context, id int64) (prices.Version, error) {
	s.asked++
	if s.down != nil {
		return prices.Version{}, s.down
	}
	v, ok := s.versions[id]
	if !ok {
		return v, fmt.Errorf("%w %d", prices.ErrUnknownVersion, id)
	}
	return v, nil
}

func (s *source) PriceList(_ context.Context, hash prices.Hash) (string, error) {
	if s.down != nil {
		return "", s.down
	}
	return s.lists[hash], nil
}

// dollars are nano-dollars for a million tokens.
const dollars = 1_000_000_000

func row(model string, input, output int64) prices.Row {
	return prices.Row{Model: model, Quote: prices.Quote{Input: new(input), Output: new(output)}}
}

func at(id int64, own ...prices.Row) prices.Version {
	return prices.Version{ID: id, List: prices.HashList(prices.EmbeddedList()), Own: own}
}

// book returns a book with versions, the last of which is in force, and where it reads the others.
func book(t *testing.T, o Options, versions ...prices.Version) (*Book, *source) {
	t.Helper()
	s := &source{versions: make(map[int64]prices.Version), lists: make(map[prices.Hash]string)}
	o.Source = s
	b := NewBook(o)
	for _, v := range versions {
		s.versions[v.ID] = v
	}
	if n := len(versions); n > 0 {
		if err := b.Set(t.Context(), versions[n-1]); err != nil {
			t.Fatal(err)
		}
	}
	return b, s
}

func record(model string, price int64, tokens usage.Tokens) usage.Record {
	return usage.Record{
		Model: model, UpstreamModel: model, Tokens: tokens, Billed: usage.Billed{BilledInput: tokens.Input, BilledOutput: tokens.Output},
		Cost: usage.Cost{PriceVersion: price},
	}
}

func TestRowsCostWhatThePricesOfTheirAdmissionSay(t *testing.T) {
	detailed := row("detailed", 10*dollars, 100*dollars)
	detailed.CachedInput, detailed.CacheWrite, detailed.Reasoning = new(int64(1*dollars)), new(int64(20*dollars)), new(int64(50*dollars))
	detailed.AudioInput, detailed.AudioOutput, detailed.ImageInput = new(int64(30*dollars)), new(int64(200*dollars)), new(int64(40*dollars))
	flex := prices.Row{Model: "detailed", Quote: prices.Quote{Service: "flex", Input: new(int64(dollars)), Output: new(int64(dollars))}}
	b, _ := book(t, Options{},
		at(5, row("m", 2*dollars, 4*dollars)),
		at(6, row("m", 3*dollars, 6*dollars), detailed, flex, row("vllm/*", 0, 0)))

	partial := record("m", 6, usage.Tokens{Input: 1000, Output: 500})
	partial.Estimated, partial.BilledOutput = true, 0
	unbilled := record("nobody-knows", 6, usage.Tokens{Input: 10, Output: 10})
	unbilled.Billed = usage.Billed{}
	alias := record("alias", 6, usage.Tokens{Input: 1000})
	alias.UpstreamModel = "m"
	asFlex := record("detailed", 6, usage.Tokens{Input: 100, Output: 100})
	asFlex.Service = policy.Flex
	for _, tt := range []struct {
		name   string
		record usage.Record
		want   usage.Cost
	}{
		{"in force", record("m", 6, usage.Tokens{Input: 1000, Output: 500}), usage.Cost{CostNanoUSD: 1000*3000 + 500*6000, PriceVersion: 6}},
		{"before", record("m", 5, usage.Tokens{Input: 1000, Output: 500}), usage.Cost{CostNanoUSD: 1000*2000 + 500*4000, PriceVersion: 5}},
		{"parts", record("detailed", 6, usage.Tokens{
			Input: 100, CachedInput: 10, Output: 50, Reasoning: 20,
			Details: usage.Details{CacheWrite: 20, AudioInput: 30, ImageInput: 5, AudioOutput: 10},
		}), usage.Cost{CostNanoUSD: 10*1000 + 20*20_000 + 30*30_000 + 5*40_000 + 35*10_000 + 20*50_000 + 10*200_000 + 20*100_000, PriceVersion: 6}},
		{"flex", asFlex, usage.Cost{CostNanoUSD: 200 * 1000, PriceVersion: 6}},
		{"billed in part", partial, usage.Cost{CostNanoUSD: 1000 * 3000, PriceVersion: 6}},
		{"an error is free", unbilled, usage.Cost{PriceVersion: 6}},
		{"an alias", alias, usage.Cost{CostNanoUSD: 1000 * 3000, PriceVersion: 6}},
		{"free, because somebody says so", record("vllm/x", 6, usage.Tokens{Input: 1000, Output: 500}), usage.Cost{PriceVersion: 6}},
		{"unknown", record("nobody-knows", 6, usage.Tokens{Input: 1, Output: 1}), usage.Cost{}},
		{"admitted without a price", record("m", 0, usage.Tokens{Input: 1000, Output: 500}), usage.Cost{}},
		{"beyond belief", record("m", 6, usage.Tokens{Input: 1 << 40, Output: 1 << 40}), usage.Cost{CostNanoUSD: usage.MaxCost, PriceVersion: 6}},
	} {
		for range 2 { // it may be asked again
			records := []usage.Record{tt.record}
			if err := b.Price(t.Context(), records); err != nil {
				t.Fatal(err)
			}
			if records[0].Cost != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.name, records[0].Cost, tt.want)
			}
		}
	}
}

func TestAVersionIsReadOnceAndRowsWaitForIt(t *testing.T) {
	b, s := book(t, Options{}, at(5, row("m", dollars, dollars)), at(6, row("m", 2*dollars, dollars)))
	records := []usage.Record{record("m", 5, usage.Tokens{Input: 1}), record("m", 6, usage.Tokens{Input: 1}), record("m", 5, usage.Tokens{Input: 1})}
	s.down = errors.New("connection refused")
	if err := b.Price(t.Context(), records); !errors.Is(err, s.down) {
		t.Fatalf("error = %v, want that of the source", err)
	}
	s.down, s.asked = nil, 0
	for range 2 {
		if err := b.Price(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	var got []usage.Cost
	for _, r := range records {
		got = append(got, r.Cost)
	}
	if diff := cmp.Diff(got, []usage.Cost{{CostNanoUSD: 1000, PriceVersion: 5}, {CostNanoUSD: 2000, PriceVersion: 6}, {CostNanoUSD: 1000, PriceVersion: 5}}); diff != "" || s.asked != 1 {
		t.Errorf("the source was asked %d times; costs (-got +want):\n%s", s.asked, diff)
	}
}

// TestALostVersionDoesNotHoldUpTheBooks: the database may have been set back.
func TestALostVersionDoesNotHoldUpTheBooks(t *testing.T) {
	b, _ := book(t, Options{}, at(6, row("m", 2*dollars, dollars)))
	records := []usage.Record{record("m", 9, usage.Tokens{Input: 1})}
	if err := b.Price(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if want := (usage.Cost{CostNanoUSD: 2000, PriceVersion: 6}); records[0].Cost != want || b.Lost() != 1 {
		t.Errorf("cost = %+v, lost %d; want the prices in force", records[0].Cost, b.Lost())
	}
	// The source is asked once for each version of a batch, not for each row.
	b, s := book(t, Options{}, at(6, row("m", 2*dollars, dollars)))
	many := make([]usage.Record, 0, 1000)
	for i := range 1000 {
		many = append(many, record("m", int64(9+i%3/2), usage.Tokens{Input: 1}))
	}
	if err := b.Price(t.Context(), many); err != nil || s.asked != 2 || b.Lost() != 2 {
		t.Errorf("%v; the source was asked %d times for two versions, lost %d", err, s.asked, b.Lost())
	}
	for i := range many {
		if many[i].PriceVersion != 6 {
			t.Fatalf("row %d: %+v", i, many[i].Cost)
		}
	}
	b, _ = book(t, Options{})
	records = []usage.Record{record("m", 9, usage.Tokens{Input: 1})}
	if err := b.Price(t.Context(), records); err != nil || records[0].Priced() {
		t.Errorf("without any prices: %+v, %v", records[0].Cost, err)
	}
}

// TestAListOfAnotherReleaseIsRead: replicas may be of different releases, and all go by one list.
func TestAListOfAnotherReleaseIsRead(t *testing.T) {
	b, s := book(t, Options{}, at(1))
	const other = "# version: other-1\n# date: 2027-01-01\n# source: a test\n" +
		"m\t\t0\t1000\t100\t5000000000\t\t\t7000000000\t\t\t\t\t\n"
	v := prices.Version{ID: 2, List: prices.HashList(other)}
	s.lists[v.List] = other
	s.down = errors.New("connection refused")
	if err := b.Set(t.Context(), v); !errors.Is(err, s.down) || b.Version() != 1 {
		t.Fatalf("error = %v, version %d in force", err, b.Version())
	}
	s.down = nil
	if err := b.Set(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	e, _ := b.Estimate(question("m", `{"model":"m","messages":[]}`))
	if e.Price != 2 || e.Output != 100 {
		t.Errorf("estimate = %+v", e)
	}
	bad := prices.Version{ID: 3, List: prices.HashList("gibberish")}
	s.lists[bad.List] = "gibberish"
	if err := b.Set(t.Context(), bad); !errors.Is(err, ErrMalformed) || b.Version() != 2 {
		t.Errorf("error = %v, version %d in force", err, b.Version())
	}
	if err := b.Set(t.Context(), at(4, row("m", -1, 1))); !errors.Is(err, ErrMalformed) || b.Version() != 2 {
		t.Errorf("error = %v, version %d in force", err, b.Version())
	}
}

func TestVersionsOfThePastAreBounded(t *testing.T) {
	b, _ := book(t, Options{})
	for i := range 2 * maxVersions {
		if err := b.Set(t.Context(), at(int64(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(*b.held.Load()); n != maxVersions || b.Version() != 2*maxVersions {
		t.Errorf("%d versions are held, %d is in force", n, b.Version())
	}
}

func question(model, body string, choices ...policy.Choice) *policy.Question {
	return &policy.Question{Operation: policy.OpChat, Model: model, Body: []byte(body), Choices: choices}
}

func TestEstimatesBoundWhatAProviderCanBill(t *testing.T) {
	limited := row("limited", dollars, 2*dollars)
	limited.MaxInput, limited.MaxOutput = 1000, 50
	b, _ := book(t, Options{}, at(3, limited, row("open", dollars, 2*dollars), row("dear", 10*dollars, 20*dollars)))
	body := func(model, more string) string {
		return `{"model":"` + model + `","messages":[{"role":"user","content":"hello"}]` + more + `}`
	}
	input := func(q *policy.Question) int64 { e, _ := b.Estimate(q); return e.Most }
	bare := input(question("limited", body("limited", "")))
	if e, _ := b.Estimate(question("limited", `{}`)); e.Input > e.Most {
		t.Errorf("probably %d tokens, and at most %d", e.Input, e.Most)
	}
	for _, tt := range []struct {
		name        string
		q           *policy.Question
		most, out   int64
		cost, price int64
	}{
		{"the model's own limit", question("limited", body("limited", "")), bare, 50, bare*1000 + 50*2000, 3},
		{"max_tokens", question("limited", body("limited", `,"max_tokens":7`)), bare, 7, bare*1000 + 7*2000, 3},
		{"more than the list knows of", question("limited", body("limited", `,"max_completion_tokens":70`)), bare, 70, bare*1000 + 70*2000, 3},
		{"n", question("limited", body("limited", `,"max_tokens":7,"n":3`)), bare, 21, bare*1000 + 21*2000, 3},
		{"no limit anywhere", question("open", body("open", "")), bare, AssumedOutput, bare*1000 + AssumedOutput*2000, 3},
		{"the dearest channel", question("alias", body("alias", `,"max_tokens":7`),
			policy.Choice{Channel: 1, Upstream: "limited"}, policy.Choice{Channel: 2, Upstream: "dear"}), bare, 7, bare*10_000 + 7*20_000, 3},
		{"a channel without a price", question("alias", body("alias", `,"max_tokens":7`),
			policy.Choice{Channel: 1, Upstream: "limited"}, policy.Choice{Channel: 2, Upstream: "nobody-knows"}), bare, 7, 0, 0},
		{"the model asked goes first", question("limited", body("limited", `,"max_tokens":7`), policy.Choice{Channel: 2, Upstream: "dear"}), bare, 7, bare*1000 + 7*2000, 3},
	} {
		got, denial := b.Estimate(tt.q)
		want := policy.Estimate{Input: int64(len(tt.q.Body)) / 4, Most: tt.most, Output: tt.out, Cost: tt.cost, Price: tt.price}
		if strings.Contains(string(tt.q.Body), "max_") {
			want.Asked = tt.out
		}
		if diff := cmp.Diff(got, want); diff != "" || denial != nil {
			t.Errorf("%s: %v (-got +want):\n%s", tt.name, denial, diff)
		}
	}
	file := question("limited", `{"model":"limited","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`)
	file.Operation = policy.OpResponses
	if e, _ := b.Estimate(file); e.Most != 1000 {
		t.Errorf("a file of any size: at most %d tokens, want the context window", e.Most)
	}
	none := question("limited", `{"model":"limited","input":"hello"}`)
	none.Operation = policy.OpEmbeddings
	if e, _ := b.Estimate(none); e.Output != 0 || e.Cost != e.Most*1000 {
		t.Errorf("embeddings: %+v", e)
	}
}

func TestExactIsNoMoreThanTheBound(t *testing.T) {
	b, _ := book(t, Options{}, at(3))
	q := question("gpt-4o", `{"model":"gpt-4o","messages":[{"role":"user","content":"`+strings.Repeat("The river runs. ", 500)+`"}],"max_tokens":1}`)
	bound, denial := b.Estimate(q)
	if denial != nil {
		t.Fatal(denial)
	}
	exact := b.Exact(q)
	if exact.Most >= bound.Most/3 || exact.Cost >= bound.Cost/3 || exact.Input > exact.Most || exact.Price != bound.Price {
		t.Errorf("exactly %+v, at most %+v", exact, bound)
	}
}

func TestModelsWithoutAPriceAreRefusedIfTheOperatorSaysSo(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		b, _ := book(t, Options{Refuse: refuse}, at(3))
		e, denial := b.Estimate(question("nobody-knows", `{"model":"nobody-knows","messages":[],"max_tokens":5}`))
		if refused := denial != nil && denial.Code == policy.CodePriceUnknown; refused != refuse || e.Price != 0 || e.Cost != 0 {
			t.Errorf("refuse=%v: %+v, %v", refuse, e, denial)
		}
		if _, denial := b.Estimate(question("gpt-4o", `{"model":"gpt-4o","messages":[]}`)); denial != nil {
			t.Error(denial)
		}
	}
}

func TestEstimatesAllocateNothing(t *testing.T) {
	b, _ := book(t, Options{}, at(3))
	q := question("gpt-4o", `{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}`, policy.Choice{Channel: 1, Upstream: "gpt-4o"})
	if n := testing.AllocsPerRun(100, func() { b.Estimate(q) }); n > 0 { //nolint:errcheck // only its cost counts
		t.Errorf("%v allocations", n)
	}
	records := []usage.Record{record("gpt-4o", 3, usage.Tokens{Input: 100, Output: 10})}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _ = b.Price(ctx, records) }); n > 0 {
		t.Errorf("%v allocations for a price", n)
	}
}

// Whatever a request asks for, at whatever rates, it is held to cost an amount that is none too small and that sums have room for.
func TestEstimatesOfAbsurdRequestsDoNotWrap(t *testing.T) {
	dear := row("dear", prices.MaxRate, prices.MaxRate)
	dear.MaxInput, dear.MaxOutput = math.MaxInt64, math.MaxInt64
	b, _ := book(t, Options{}, at(3, dear, row("cheap", 1, 1)))
	numbers := []string{"0", "1", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e308", "1e-5", "99999999999999999999999"}
	for _, model := range []string{"dear", "cheap"} {
		for _, most := range numbers {
			for _, n := range numbers {
				body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hello"}],"max_tokens":%s,"n":%s}`, model, most, n)
				e, denial := b.Estimate(question(model, body))
				if denial != nil {
					continue
				}
				if e.Input < 0 || e.Most < e.Input || e.Output < 0 || e.Cost < 0 || e.Price != 3 {
					t.Errorf("%s: %+v", body, e)
				}
				if model == "dear" && most == "9223372036854775807" && e.Cost < policy.MaxReserved {
					t.Errorf("%s: it costs %d at most", body, e.Cost)
				}
				if exact := b.Exact(question(model, body)); exact.Cost < 0 || exact.Cost > e.Cost {
					t.Errorf("%s: exactly %+v, roughly %+v", body, exact, e)
				}
			}
		}
	}
}

func BenchmarkEstimate(b *testing.B) {
	k := NewBook(Options{})
	if err := k.Set(b.Context(), at(3)); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1000, 72_000} {
		q := question("gpt-4o", `{"model":"gpt-4o","messages":[{"role":"user","content":"`+strings.Repeat("The river runs. ", size/16)+`"}],"max_tokens":1}`,
			policy.Choice{Channel: 1, Upstream: "gpt-4o"})
		b.Run(fmt.Sprintf("bound-%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Estimate(q) //nolint:errcheck // only its cost counts
			}
		})
		b.Run(fmt.Sprintf("exact-%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Exact(q)
			}
		})
	}
}

// admit decides on one request as the engine does, with or without an estimate.
func admit(b *testing.B, k *Book, body []byte) {
	b.Helper()
	o := policy.Options{}
	if k != nil {
		o.Estimate, o.Exact = k.Estimate, k.Exact
	}
	e := policy.New(o)
	s, err := policy.NewSnapshot(policy.SnapshotData{
		Tenants: []policy.Tenant{{ID: 1, Name: "t"}}, Keys: []policy.Key{{ID: 1, Tenant: 1, Hash: policy.HashKey("sk-1")}},
		Channels: []policy.Channel{{ID: 1, Name: "c", Weight: 1, Models: []policy.Model{{Name: "gpt-4o"}}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	e.SetSnapshot(s)
	h := &policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer sk-1"}
	b.ReportAllocs()
	for b.Loop() {
		x, _, denial := e.Begin(h)
		if denial == nil {
			_, denial = x.Admit(body)
		}
		if denial != nil {
			b.Fatal(denial)
		}
	}
}

// BenchmarkAdmission is what the estimate adds to a decision.
func BenchmarkAdmission(b *testing.B) {
	k := NewBook(Options{})
	if err := k.Set(b.Context(), at(3)); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1000, 72_000} {
		body := []byte(`{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat(`The weir keeps the level, \"more or less\", and measures it.\n`, size/62) + `"}]}`)
		b.Run(fmt.Sprintf("plain-%dB", size), func(b *testing.B) { admit(b, nil, body) })
		b.Run(fmt.Sprintf("estimated-%dB", size), func(b *testing.B) { admit(b, k, body) })
	}
}
