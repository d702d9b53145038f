// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
)

// TestCopyIsReadInWhateverPieces: the bytes of a batch do not depend on how they are asked for, and no batch needs a large buffer.
func TestCopyIsReadInWhateverPieces(t *testing.T) {
	rows := mixed(1000)
	order := arrange(rows)
	reader := func() *copyReader { return newCopyReader(uuid.Max, order, len(usageColumns())) }
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
