// SPDX-License-Identifier: Apache-2.0

package weir

import (
	"errors"
	"math"
	"time"
	"unsafe"
)

//go:wasmimport weir log
func hostLog(level int32, at unsafe.Pointer, length uint32)

//go:wasmimport weir now
func hostNow() int64

//go:wasmimport weir find
func hostFind(pattern unsafe.Pointer, patternLength uint32, text unsafe.Pointer, length uint32, out unsafe.Pointer, most uint32) int32

//go:wasmimport weir scan
func hostScan(kinds uint32, text unsafe.Pointer, length uint32, out unsafe.Pointer, most uint32) int32

//go:wasmimport weir json
func hostJSON(text unsafe.Pointer, length uint32, path unsafe.Pointer, pathLength uint32) int64

//go:wasmimport weir count
func hostCount(name unsafe.Pointer, length uint32, delta, window int64) int64

//go:wasmimport weir tokens
func hostTokens() int64

func str(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

// Log logs a line: level 0 debug, 1 info, 2 warn, 3 error. It needs the capability log.
func Log(level int, line string) {
	p, n := str(line)
	hostLog(int32(level), p, n)
}

// Now returns the time, which is the same for the whole call. It needs the capability clock.
func Now() time.Time { return time.Unix(0, hostNow()) }

// InputTokens returns an estimate of the tokens of the request's input; 0 if nothing is known, and for events. It is counted when this is called, which takes longer than most
// plugins do: some 15 µs for each KB. It needs the capability tokens.
func InputTokens() int64 { return hostTokens() }

// ErrPattern is that a regular expression is wrong or too large.
var ErrPattern = errors.New("the regular expression is wrong or too large")

// Find returns the first matches of a regular expression (RE2 syntax): start and end of each. It runs in the host, ten times as fast as in a plugin. It needs
// the capability regexp.
func Find(pattern, text string, most int) ([][2]uint32, error) {
	out := make([][2]uint32, most)
	p, pn := str(pattern)
	t, tn := str(text)
	n := hostFind(p, pn, t, tn, unsafe.Pointer(unsafe.SliceData(out)), uint32(most))
	if n < 0 {
		return nil, ErrPattern
	}
	return out[:n], nil
}

// Found is a piece of personal data or a secret.
type Found struct{ Start, End, Kind uint32 }

// Scan returns the first pieces of personal data or secrets of some kinds (plugins/ABI.md has their numbers). It needs the capability pii.
func Scan(kinds uint32, text string, most int) []Found {
	out := make([]Found, most)
	t, n := str(text)
	return out[:hostScan(kinds, t, n, unsafe.Pointer(unsafe.SliceData(out)), uint32(most))]
}

// JSON returns a value in a JSON text, as it stands there, by a path such as messages.0.content; nil if there is none. It needs the capability json.
func JSON(text []byte, path string) []byte {
	p, n := str(path)
	r := hostJSON(unsafe.Pointer(unsafe.SliceData(text)), uint32(len(text)), p, n)
	if r < 0 {
		return nil
	}
	return text[r>>32:][:uint32(r)]
}

// Count adds to a counter of this tenant and returns its new value. It begins at 0 again at each multiple of the window (0: never). There is no room for another
// counter if ok is false. It needs the capability counters.
func Count(name string, delta int64, window time.Duration) (value int64, ok bool) {
	p, n := str(name)
	v := hostCount(p, n, delta, window.Milliseconds())
	return v, v != math.MinInt64
}
