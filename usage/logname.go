// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// ActiveLog is the file that the Envoy "weir" writes to. An Envoy of another name writes to exchanges.NAME.jsonl: lines of two processes
// in one file would be torn apart. Around an active log, STEM.jsonl, stand those that were rotated away:
//
//	STEM-20261122T163700Z-1.jsonl    by [Spool], which deletes them in time
//	STEM.jsonl.ANYTHING              by somebody else, who must delete them
//	exchanges-ANYTHING.jsonl         likewise
const ActiveLog = "exchanges.jsonl"

var logPattern = regexp.MustCompile(`^(exchanges(?:\.([a-z0-9-]{1,32}))?)(?:\.jsonl|(-[0-9]{8}T[0-9]{6}Z-[0-9]+)\.jsonl|\.jsonl\..+|-.+\.jsonl)$`)

// rotatedTime is the time in the name of a rotated log.
const rotatedTime = "20060102T150405Z"

// logName is what the name of a log says.
type logName struct {
	stem    string // exchanges or exchanges.NODE: what an Envoy's logs have in common
	active  bool   // Envoy opens it by this name
	rotated bool   // by Spool
}

// rotatedTo returns the n-th name for the active log when it is renamed at t.
func (n logName) rotatedTo(t time.Time, i int) string {
	return fmt.Sprintf("%s-%s-%d.jsonl", n.stem, t.UTC().Format(rotatedTime), i)
}

// parseLogName reports whether a file of that name is a log. Compressed ones are not: they have been dealt with, or cannot be.
func parseLogName(name string) (logName, bool) {
	switch filepath.Ext(name) {
	case ".gz", ".zst", ".xz", ".bz2", ".lz4":
		return logName{}, false
	}
	m := logPattern.FindStringSubmatch(name)
	switch {
	case m == nil:
		return logName{}, false
	case m[2] == "jsonl": // exchanges.jsonl.jsonl: no Envoy is called so
		return logName{stem: "exchanges"}, true
	}
	return logName{stem: m[1], active: name == m[1]+".jsonl", rotated: m[3] != ""}, true
}

// isLog reports whether a file of that name is a log.
func isLog(name string) bool {
	_, ok := parseLogName(name)
	return ok
}
