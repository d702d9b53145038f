// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
	weirusage "github.com/weir-proxy/weir/usage"
)

// accounting is what a row costs when there is nothing else to do: from Envoy's log into Postgres, in batches as large as they get.
type accounting struct {
	Rows      int           `json:"rows"`
	Seconds   float64       `json:"seconds"`
	Processor time.Duration `json:"processor_cpu_ns"`
	Postgres  time.Duration `json:"postgres_cpu_ns"`
}

// replay gives the processor a second log: the lines of Envoy's own, under other exchange ids.
func (b *lab) replay(ctx context.Context, g *gateway, logs string, rows int) (accounting, error) {
	text, rows, err := otherExchanges(filepath.Join(logs, weirusage.ActiveLog), rows)
	if err != nil {
		return accounting{}, fmt.Errorf("make a log to replay: %w", err)
	}
	if rows == 0 {
		return accounting{}, errors.New("replay: Envoy's log is empty")
	}
	fresh, log := filepath.Join(logs, "replay.new"), filepath.Join(logs, "exchanges-replay.jsonl")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return accounting{}, err
	}
	before, err := b.observe(g)
	if err != nil {
		return accounting{}, err
	}
	began := time.Now()
	if err := os.Rename(fresh, log); err != nil {
		return accounting{}, err
	}
	if err := g.books.settle(ctx, g.books.want.Requests+int64(rows)); err != nil {
		return accounting{}, fmt.Errorf("replay: %w", err)
	}
	took := time.Since(began)
	after, err := b.observe(g)
	if err != nil {
		return accounting{}, err
	}
	n, err := g.books.posted(ctx)
	if err == nil && n != g.books.want.Requests+int64(rows) {
		err = fmt.Errorf("replay: %d rows more than there were lines", n-g.books.want.Requests-int64(rows))
	}
	return accounting{
		Rows: rows, Seconds: took.Seconds(),
		Processor: after.processor.since(before.processor), Postgres: after.postgres.since(before.postgres),
	}, err
}

// otherExchanges reads a log and gives up to most of its exchanges new ids, over and over if there are fewer. It returns how many
// lines there are.
func otherExchanges(log string, most int) (text []byte, lines int, err error) {
	b, err := os.ReadFile(log)
	if err != nil {
		return nil, 0, err
	}
	var out bytes.Buffer
	for lines < most {
		before := lines
		for s := bufio.NewScanner(bytes.NewReader(b)); lines < most && s.Scan(); {
			line, err := otherExchange(s.Bytes())
			if err != nil {
				return nil, 0, err
			}
			if line != nil {
				out.Write(line)
				out.WriteByte('\n')
				lines++
			}
		}
		if lines == before {
			break
		}
	}
	return out.Bytes(), lines, nil
}

// otherExchange returns a line with another exchange's id, or nil if it is not the last line of an exchange.
func otherExchange(line []byte) ([]byte, error) {
	var l struct {
		Kind    string `json:"kind"`
		Ticket  string `json:"ticket"`
		LogType string `json:"log_type"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	if l.Kind != "exchange" || l.LogType != "DownstreamEnd" {
		return nil, nil
	}
	t, err := policy.ParseTicket(l.Ticket)
	if err != nil {
		return nil, err
	}
	if t.Exchange, err = uuid.NewV7(); err != nil {
		return nil, err
	}
	return bytes.Replace(line, []byte(l.Ticket), []byte(t.String()), 1), nil
}
