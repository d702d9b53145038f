// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
)

func TestOutageIsJudged(t *testing.T) {
	good := func() *survival {
		s := &survival{sent: 10, reached: 10, rows: 10, served: served, booked: served}
		s.memory.before, s.memory.away, s.memory.most = 50<<20, 60<<20, 120<<20
		return s
	}
	for name, c := range map[string]struct {
		change func(s *survival)
		want   string
	}{
		"all is well":                     {func(*survival) {}, ""},
		"a request failed":                {func(s *survival) { s.failed = 1 }, "1 requests failed"},
		"not the rate that was asked for": {func(s *survival) { s.late = 1 }, "too slow"},
		"a request went nowhere":          {func(s *survival) { s.reached, s.rows = 9, 9 }, "9 requests reached a provider"},
		"a row is missing":                {func(s *survival) { s.rows = 9 }, "there are 9 rows"},
		"a row too many":                  {func(s *survival) { s.rows = 11 }, "there are 11 rows"},
		"a row is estimated":              {func(s *survival) { s.inexact = 1 }, "1 of them inexact"},
		"a token is missing":              {func(s *survival) { s.booked = fake.Tokens{} }, "the rows add up to"},
		"memory grew in the outage":       {func(s *survival) { s.memory.away = 100 << 20 }, "in the outage, from"},
		"memory grew after the outage":    {func(s *survival) { s.memory.most = 500 << 20 }, "is the bound"},
		"the sums are wrong":              {func(s *survival) { s.sums = violation("no sum") }, "no sum"},
	} {
		s := good()
		c.change(s)
		complain(t, name, s.judge(), c.want)
	}
}

func TestResidentBytesOfThisProcess(t *testing.T) {
	n, err := residentBytes(os.Getpid())
	if err != nil || n < 1<<20 || n > 1<<40 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := residentBytes(-1); err == nil {
		t.Error("no error for no process")
	}
}
