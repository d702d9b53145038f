// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// The binary format of COPY: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4. It is written here and not by pgx,
// which boxes every value and asks Postgres for the types of the columns each time.
const (
	copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // signature, flags, no extension
	copyEnd    = "\xff\xff"
)

// postgresEpoch is what timestamps count microseconds from, in microseconds since 1970.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// usageColumns are in the order in which appendUsage writes their values.
func usageColumns() []string {
	return []string{
		"ts", "tenant_id", "key_id", "channel_id", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens",
		"billed_input_tokens", "billed_output_tokens",
		"request_bytes", "response_bytes", "seq", "http_status", "attempts", "first_byte_ms", "duration_ms", "stream", "estimated",
		"exchange_id", "writer", "model", "upstream_model", "operation", "status", "tags",
		"cost_nanousd", "price_version", "token_details",
	}
}

// copyUsage writes rows, which are bounded, into weir.usage.
func copyUsage(ctx context.Context, tx pgx.Tx, writer uuid.UUID, groups []group) error {
	columns, rows := usageColumns(), 0
	for i := range groups {
		rows += len(groups[i].rows)
	}
	from := newCopyReader(writer, groups, len(columns))
	defer from.stop()
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, from, `copy weir.usage (`+strings.Join(columns, ", ")+`) from stdin (format binary)`)
	if err == nil && tag.RowsAffected() != int64(rows) {
		err = fmt.Errorf("postgres took %d", tag.RowsAffected()) // a trigger of somebody's
	}
	return err
}

// copyChunk is how much is encoded at once: a large batch would be many megabytes as a whole.
const copyChunk = 32 << 10

// copyReader encodes rows as they are read. It is read by a goroutine of pgx, which is not waited for when a connection breaks.
type copyReader struct {
	mu     sync.Mutex
	writer uuid.UUID
	fields uint16          // of a row
	rows   []*usage.Record // of a group, not encoded yet
	groups []group         // behind them
	buf    []byte
	read   int // of buf
	ended  bool
}

func newCopyReader(writer uuid.UUID, groups []group, fields int) *copyReader {
	return &copyReader{
		writer: writer, groups: groups, fields: uint16(fields), buf: append(make([]byte, 0, 2*copyChunk), copyHeader...), //nolint:gosec // they are few
	}
}

// stop returns when no row is being read, and from then on none is: they belong to the caller.
func (c *copyReader) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows, c.groups, c.ended = nil, nil, true
}

// Read implements io.Reader.
func (c *copyReader) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf)-c.read < min(len(p), copyChunk) && !c.ended { // what is left goes to the front, so that the buffer does not grow
		c.buf, c.read = c.buf[:copy(c.buf, c.buf[c.read:])], 0
	}
	for len(c.buf)-c.read < min(len(p), copyChunk) && !c.ended {
		switch {
		case len(c.rows) > 0:
			c.buf = binary.BigEndian.AppendUint16(c.buf, c.fields)
			c.buf = appendUsage(c.buf, c.writer, c.rows[0])
			c.rows = c.rows[1:]
		case len(c.groups) > 0:
			c.rows, c.groups = c.groups[0].rows, c.groups[1:]
		default:
			c.buf, c.ended = append(c.buf, copyEnd...), true
		}
	}
	n := copy(p, c.buf[c.read:])
	if c.read += n; n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func appendUsage(b []byte, writer uuid.UUID, r *usage.Record) []byte {
	b = appendInt64(b, r.Time.UnixMicro()-postgresEpoch)
	b = appendInt64(appendInt64(b, int64(r.Tenant)), int64(r.Key))
	if r.Channel == 0 {
		b = appendNull(b)
	} else {
		b = appendInt64(b, int64(r.Channel))
	}
	b = appendInt64(appendInt64(b, r.Input), r.CachedInput)
	b = appendInt64(appendInt64(b, r.Output), r.Reasoning)
	b = appendInt64(appendInt64(b, r.BilledInput), r.BilledOutput)
	b = appendInt64(appendInt64(b, r.RequestBytes), r.ResponseBytes)
	b = appendInt64(b, r.Seq)
	b = appendInt32(appendInt32(b, int32(r.HTTPStatus)), int32(r.Attempts)) //nolint:gosec // bounded
	if r.FirstByte < 0 {
		b = appendNull(b)
	} else {
		b = appendInt32(b, milliseconds(r.FirstByte))
	}
	b = appendInt32(b, milliseconds(r.Duration))
	b = appendBool(appendBool(b, r.Stream), r.Estimated)
	b = appendBytes(appendBytes(b, r.Exchange[:]), writer[:]) // a UUID is its bytes
	b = appendText(appendText(b, r.Model), r.UpstreamModel)
	b = appendText(appendText(b, string(r.Operation)), string(r.Status))
	b = appendTags(b, r.Tags)
	if r.Priced() {
		b = appendInt64(appendInt64(b, r.CostNanoUSD), r.PriceVersion)
	} else {
		b = appendNull(appendNull(b))
	}
	return appendDetails(b, &r.Details)
}

// appendDetails writes an object of jsonb, null where there is nothing to say.
func appendDetails(b []byte, d *usage.Details) []byte {
	if *d == (usage.Details{}) {
		return appendNull(b)
	}
	return appendJSON(b, d)
}

// appendJSON writes a value of jsonb, whose binary form is its text behind the number of the format.
func appendJSON(b []byte, v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers cannot fail
	}
	return appendText(b, "\x01"+string(encoded))
}

// appendTags writes an object of jsonb, null if there are no tags. The last of one name counts.
func appendTags(b []byte, tags []policy.Tag) []byte {
	if len(tags) == 0 {
		return appendNull(b)
	}
	object := make(map[string]string, len(tags))
	for _, t := range tags {
		object[text(t.Name)] = text(t.Value)
	}
	return appendJSON(b, object)
}

// Each value goes after its length in bytes; null has the length -1.

func appendInt64(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(n)) //nolint:gosec // two's complement on the wire too
}

func appendInt32(b []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(n)) //nolint:gosec // two's complement on the wire too
}

func appendBool(b []byte, yes bool) []byte {
	if yes {
		return append(b, 0, 0, 0, 1, 1)
	}
	return append(b, 0, 0, 0, 1, 0)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) //nolint:gosec // bounded
}

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...) //nolint:gosec // bounded
}

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func milliseconds(d time.Duration) int32 {
	return int32(min(max(d.Milliseconds(), 0), math.MaxInt32)) //nolint:gosec // bounded
}
