// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/usage"
)

// TestCopyIsReadInWhateverPieces: the bytes of a batch do not depend on how they are asked for, and no batch needs a large buffer.
func TestCopyIsReadInWhateverPieces(t *testing.T) {
	rows := mixed(1000)
	groups := arrange(each(rows))
	reader := func() *copyReader { return newCopyReader(uuid.Max, groups, len(usageColumns())) }
	whole := reader()
	want, err := io.ReadAll(whole)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 1000*100 || !bytes.HasPrefix(want, []byte(copyHeader)) || !bytes.HasSuffix(want, []byte(copyEnd)) {
		t.Fatalf("%d bytes are no copy of the rows", len(want))
	}
	if len(whole.buf) > copyChunk+1<<10 {
		t.Errorf("the buffer grew to %d bytes", len(whole.buf))
	}
	for name, r := range map[string]io.Reader{
		"bytes": iotest.OneByteReader(reader()), "halves": iotest.HalfReader(reader()), "data and error": iotest.DataErrReader(reader()),
	} {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want the %d that there are", name, len(got), err, len(want))
		}
	}
	if err := iotest.TestReader(reader(), want); err != nil {
		t.Error(err)
	}
}

// TestStoppedCopyReadsNoRow: when a connection breaks pgx may still be reading, and the rows are not ours any more.
func TestStoppedCopyReadsNoRow(t *testing.T) {
	rows := mixed(10_000)
	c := newCopyReader(uuid.Max, arrange(each(rows)), len(usageColumns()))
	ended := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	c.stop()
	for i := range rows { // the race detector would see it
		rows[i].Model = "another"
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// encode does with rows all that is done here, and returns how many bytes go to Postgres.
func encode(records []usage.Record) int64 {
	rows := make([]*usage.Record, len(records))
	for i := range records {
		rows[i] = bounded(&records[i])
	}
	groups := arrange(rows)
	addUp(groups, nil)
	n, _ := io.Copy(io.Discard, newCopyReader(uuid.Max, groups, len(usageColumns())))
	return n
}

// TestRowsCostNoMemoryEach: what a batch allocates depends on how many sums it has, not on how many rows.
func TestRowsCostNoMemoryEach(t *testing.T) {
	allocations := func(rows int) float64 {
		records := mixed(rows)
		for i := range records {
			records[i].Time = records[i].Time.UTC().Truncate(time.Microsecond)
		}
		return testing.AllocsPerRun(5, func() { encode(records) })
	}
	if few, many := allocations(2000), allocations(20_000); many > few+2 {
		t.Errorf("2,000 rows take %v allocations, 20,000 take %v", few, many)
	}
}

// BenchmarkEncode is what BenchmarkPost has without Postgres and the network.
func BenchmarkEncode(b *testing.B) {
	for _, keys := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			records := make([]usage.Record, 50_000)
			load{keys: keys}.filler()(records)
			b.ReportAllocs()
			for b.Loop() {
				encode(records)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/row")
		})
	}
}
