// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inspected returns the pieces of a log, as text.
func inspected(t *testing.T, log string) (out []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), ActiveLog)
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	err := InspectLog(path, func(p Piece) error {
		s := fmt.Sprintf("%d-%d", p.From, p.To)
		if p.Line != nil {
			s += " " + string(p.Line.Kind)
		}
		if p.Record != nil {
			s += fmt.Sprintf(" %s %d tokens", p.Record.Status, p.Record.Output)
		}
		if p.Err != nil {
			s += " " + p.Err.Error()
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInspectionTellsEveryPieceOfALog(t *testing.T) {
	a, b := lines(1, 2), lines(22, 23)
	attempt := attemptLine(1)
	n, m, k := len(a), len(b), len(attempt)
	for name, c := range map[string]struct {
		log  string
		want []string
	}{
		"nothing":  {"", nil},
		"whole":    {a + attempt, []string{fmt.Sprintf("0-%d exchange ok 1 tokens", n-1), fmt.Sprintf("%d-%d attempt", n, n+k-1)}},
		"periodic": {strings.ReplaceAll(a, logTypeEnd, "X"), []string{fmt.Sprintf("0-%d exchange", n-13)}},
		"torn and glued": {a[:40] + b, []string{
			"0-40 torn", fmt.Sprintf("40-%d exchange ok 22 tokens", 40+m-1),
		}},
		"without its newline": {a + b[:m-1], []string{fmt.Sprintf("0-%d exchange ok 1 tokens", n-1), fmt.Sprintf("%d-%d exchange ok 22 tokens", n, n+m-1)}},
		"unfinished":          {a + b[:30], []string{fmt.Sprintf("0-%d exchange ok 1 tokens", n-1), fmt.Sprintf("%d-%d malformed line: it has no end yet", n, n+30)}},
		"bad ticket":          {`{"kind":"exchange","ticket":"!"}` + "\n", []string{"0-32 exchange malformed ticket: illegal base64 data at input byte 0"}},
		"refused":             {`{"kind":"exchange","ticket":"-"}` + "\n", []string{"0-32 exchange"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := inspected(t, c.log)
			for i, one := range got { // why a torn line cannot be read is of no interest here
				if before, _, torn := strings.Cut(one, "malformed line: "); torn && !strings.HasSuffix(one, "no end yet") {
					got[i] = before + "torn"
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestInspectionStopsWhenItIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), ActiveLog)
	if err := os.WriteFile(path, []byte(lines(0, 5)), 0o600); err != nil {
		t.Fatal(err)
	}
	n, enough := 0, errors.New("enough")
	err := InspectLog(path, func(Piece) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 2 {
		t.Errorf("got %v after %d pieces", err, n)
	}
	if err := InspectLog(path+".missing", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
