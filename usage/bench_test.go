// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

func benchmarkLine() []byte {
	ticket := testTicket(true)
	ticket.Exchange = uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91")
	usage := strings.ReplaceAll(`{"prompt_tokens":1117,"completion_tokens":46,"total_tokens":1163,"prompt_tokens_details":{"cached_tokens":1024,`+
		`"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,`+
		`"rejected_prediction_tokens":0}}`, `"`, `\"`)
	return []byte(`{"attempts":1,"cluster":"channel-1","details":"via_upstream","duration":1205,"first_byte":312,"flags":"-",` +
		`"kind":"exchange","log_type":"DownstreamEnd","rx":4207,"start":"1795362624.103225","status":200,"ticket":"` + ticket.String() +
		`","tx":10340,"usage":"` + usage + `"}`)
}

func BenchmarkParseLine(b *testing.B) {
	line := benchmarkLine()
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := ParseLine(line); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseLineByEncodingJSON is what ParseLine is measured against.
func BenchmarkParseLineByEncodingJSON(b *testing.B) {
	line := benchmarkLine()
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		var l struct {
			Kind, Ticket, Usage, Cluster, Flags, Details string
			Status, Attempts                             int
			RX, TX, Duration                             int64
			FirstByte                                    *int64 `json:"first_byte"`
			LogType                                      string `json:"log_type"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLineToRecord(b *testing.B) {
	line := benchmarkLine()
	guess := NewEstimator()
	b.ReportAllocs()
	for b.Loop() {
		l, err := ParseLine(line)
		if err != nil {
			b.Fatal(err)
		}
		t, err := policy.ParseTicket(l.Ticket)
		if err != nil {
			b.Fatal(err)
		}
		if r := NewRecord(&l, t, guess); r.Input != 1117 {
			b.Fatalf("got %+v", r)
		}
	}
}

// free is a book that costs nothing.
type free struct{ rows int }

func (*free) Position(context.Context, uuid.UUID) (int64, error) { return 0, nil }

func (f *free) Post(_ context.Context, b Batch) error {
	f.rows += len(b.Records)
	return nil
}

// shipAll ships a directory once, from its beginning.
func (h *harness) shipAll(ctx context.Context) (rows int) {
	h.Helper()
	book := &free{}
	s := NewShipper(Options{Dir: h.dir, Book: book})
	s.draining = true
	for s.step(ctx, h.now) {
	}
	if err := s.close(); err != nil || !s.Drained() {
		h.Fatal(err, "not drained")
	}
	return book.rows
}

// TestLinesCostNoMemoryEach: a line becomes a record without an allocation of its own.
func TestLinesCostNoMemoryEach(t *testing.T) {
	h := &harness{TB: t, dir: t.TempDir()}
	allocations := func(rows int) float64 {
		h.write(ActiveLog, strings.Repeat(string(benchmarkLine())+"\n", rows))
		return testing.AllocsPerRun(3, func() { h.shipAll(t.Context()) })
	}
	few := allocations(1000)
	if many := allocations(20_000); many > few+100 { // for larger batches
		t.Errorf("1,000 lines take %v allocations, 21,000 take %v", few, many)
	}
}

// BenchmarkShip measures the whole way from a file to a book that costs nothing.
func BenchmarkShip(b *testing.B) {
	const rows = 20_000
	h := &harness{TB: b, dir: b.TempDir()}
	h.write(ActiveLog, strings.Repeat(string(benchmarkLine())+"\n", rows))
	b.ReportAllocs()
	for b.Loop() {
		if got := h.shipAll(b.Context()); got != rows {
			b.Fatalf("%d rows", got)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
}
