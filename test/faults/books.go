// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/usage"
)

// readRows returns all rows of weir.usage.
func readRows(ctx context.Context, conn *pgx.Conn) ([]row, error) {
	rows, err := conn.Query(ctx, `select exchange_id, ts, key_id, coalesce(channel_id, 0), model, status, http_status, attempts, stream,
		estimated, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, request_bytes, response_bytes from weir.usage`)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(c pgx.CollectableRow) (r row, err error) {
		err = c.Scan(&r.exchange, &r.ts, &r.key, &r.channel, &r.model, &r.status, &r.httpStatus, &r.attempts, &r.stream,
			&r.estimated, &r.tokens.Input, &r.tokens.CachedInput, &r.tokens.Output, &r.tokens.Reasoning, &r.request, &r.response)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return all, nil
}

// The sums as the rows give them, in the columns of weir.usage_hourly and weir.balance, and those that are kept.
const (
	hourly = `select date_trunc('hour', ts, 'UTC') as hour, tenant_id, key_id, model, coalesce(channel_id, 0) as channel_id,
			count(*) as requests, count(*) filter (where estimated) as estimated, count(*) filter (where cost_nanousd is null) as unpriced,
			sum(input_tokens)::bigint as input, sum(cached_input_tokens)::bigint as cached, sum(output_tokens)::bigint as output,
			sum(reasoning_tokens)::bigint as reasoning, coalesce(sum(cost_nanousd), 0)::bigint as cost,
			sum(request_bytes)::bigint as request_bytes, sum(response_bytes)::bigint as response_bytes
		from weir.usage group by 1, 2, 3, 4, 5`
	keptHourly = `select hour, tenant_id, key_id, model, channel_id, requests, estimated, unpriced, input_tokens, cached_input_tokens,
			output_tokens, reasoning_tokens, cost_nanousd, request_bytes, response_bytes from weir.usage_hourly where requests <> 0`
	balances = `select tenant_id, key_id, count(*) as requests, sum(input_tokens + output_tokens)::bigint as tokens,
			coalesce(sum(cost_nanousd), 0)::bigint as cost from weir.usage group by 1, 2`
	keptBalances = `select tenant_id, key_id, requests, tokens, cost_nanousd from weir.balance where requests <> 0`
)

// checkSums compares the sums that are kept with the rows.
func checkSums(ctx context.Context, conn *pgx.Conn) error {
	for _, c := range []struct{ table, rows, kept string }{
		{"weir.usage_hourly", hourly, keptHourly},
		{"weir.balance", balances, keptBalances},
	} {
		var differ []string
		rows, err := conn.Query(ctx, `select side || ' ' || d::text from (
				select 'the rows add up to' as side, d from (`+c.rows+` except `+c.kept+`) d
				union all select 'kept is' as side, d from (`+c.kept+` except `+c.rows+`) d) x order by 1 limit 4`)
		if err == nil {
			differ, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("add up rows: %w", err)
		}
		if len(differ) > 0 {
			return violation("%s is not the sum of the rows: %s", c.table, strings.Join(differ, "; "))
		}
	}
	return nil
}

// checkRead compares the positions that are kept with the logs in dir.
func checkRead(ctx context.Context, conn *pgx.Conn, dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "exchanges*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		writer, from, to, err := logEnd(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && writer == uuid.Nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		var seq int64
		err = conn.QueryRow(ctx, `select seq from weir.writer where id = $1`, writer).Scan(&seq)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read position: %w", err)
		}
		if seq < from || seq > to {
			return violation("%s ends at %d, and is read up to %d", filepath.Base(path), from, seq)
		}
	}
	return nil
}

// logEnd returns the identity of a log, nil when it has no line, where its last line ends, and where the file does: in between may be a
// line that an Envoy had no time to finish.
func logEnd(path string) (writer uuid.UUID, lines, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return uuid.Nil, 0, 0, err
	}
	defer f.Close()       //nolint:errcheck // only read
	const chunk = 1 << 20 // longer than any line
	first := make([]byte, chunk)
	n, err := f.ReadAt(first, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return uuid.Nil, 0, 0, err
	}
	line, _, ok := bytes.Cut(first[:n], []byte("\n"))
	if !ok {
		return uuid.Nil, 0, 0, nil
	}
	info, err := f.Stat()
	if err != nil {
		return uuid.Nil, 0, 0, err
	}
	from := max(0, info.Size()-chunk)
	last := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(last, from); err != nil {
		return uuid.Nil, 0, 0, err
	}
	return usage.WriterOf(line), from + int64(bytes.LastIndexByte(last, '\n')) + 1, info.Size(), nil
}
