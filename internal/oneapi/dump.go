// SPDX-License-Identifier: Apache-2.0

package oneapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// row is a row of a table, by the names of its columns. What is NULL is empty.
type row map[string]string

func (r row) truth(column string) bool {
	switch strings.ToLower(r[column]) {
	case "t", "true", "1":
		return true
	}
	return false
}

// deleted reports whether new-api has only marked the row as deleted.
func (r row) deleted() bool { return r["deleted_at"] != "" }

// list takes a column of names with commas between, or with one on each line.
func (r row) list(column string) []string {
	names := []string{}
	for name := range strings.FieldsFuncSeq(r[column], func(c rune) bool { return c == ',' || c == '\n' || c == '\r' }) {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// readTable reads NAME.csv, as psql --csv and sqlite3 -csv -header write it, or NAME.tsv, as mysql --batch does.
func readTable(dir, name string) ([]row, error) {
	file := filepath.Join(dir, name+".csv")
	b, err := os.ReadFile(file)
	split := fromCSV
	if errors.Is(err, fs.ErrNotExist) {
		file, split = filepath.Join(dir, name+".tsv"), fromTSV
		if b, err = os.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is neither %s.csv nor %s.tsv in %s", name, name, dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	lines, err := split(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s: it is empty; its first line must name the columns", file)
	}
	var rows []row
	for _, cells := range lines[1:] {
		r := row{}
		for i, column := range lines[0] {
			r[column] = cells[i]
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func fromCSV(b []byte) ([][]string, error) {
	return csv.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\ufeff")))).ReadAll()
}

func fromTSV(b []byte) ([][]string, error) {
	unescape := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\0`, "")
	var lines [][]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		if len(lines) > 0 && len(cells) != len(lines[0]) {
			return nil, fmt.Errorf("line %d has %d columns, the first one %d", len(lines)+1, len(cells), len(lines[0]))
		}
		for i, cell := range cells {
			if cells[i] = unescape.Replace(cell); cell == "NULL" {
				cells[i] = ""
			}
		}
		lines = append(lines, cells)
	}
	return lines, nil
}
