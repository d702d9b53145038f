// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"strings"
)

// Reason is why a call of a plugin failed. It has few values, so it may be a label of a metric.
type Reason string

// Reasons.
const (
	OutOfFuel   Reason = "fuel"        // it did more than its fuel allows
	OutOfStack  Reason = "stack"       // its calls went too deep
	OutOfTime   Reason = "time"        // the clock ran out before the fuel
	Trap        Reason = "trap"        // WebAssembly ended it: unreachable, a division by zero, memory out of bounds
	BadPointer  Reason = "pointer"     // it named memory that it has not
	BadAnswer   Reason = "answer"      // what it answered breaks a rule of weir/1
	Exited      Reason = "exit"        // it called proc_exit
	Refused     Reason = "refused"     // it did not take its configuration
	HostFault   Reason = "host"        // a helper of ours panicked
	Busy        Reason = "busy"        // no instance got free in time
	Quarantined Reason = "quarantined" // it failed often and is left alone for a while
	Canceled    Reason = "canceled"    // the caller went away
)

// Failure says which call of which plugin failed, why, and what to try.
type Failure struct {
	Plugin string
	Call   string // the export that was called
	Reason Reason
	Detail string // for the operator and the author; never for a client
}

// Error implements error.
func (f *Failure) Error() string {
	s := fmt.Sprintf("plugin %s: %s: %s", f.Plugin, f.Call, f.Detail)
	if hint := f.Hint(); hint != "" {
		s += "; " + hint
	}
	return s
}

// Hint says what to try; it may be empty.
func (f *Failure) Hint() string {
	switch f.Reason {
	case OutOfFuel:
		return "look for a loop that does not end, or raise its limit of fuel"
	case OutOfStack:
		return "look for a recursion that does not end"
	case OutOfTime:
		return "lower its fuel, or raise its limit of time if the machine is slow"
	case Busy:
		return "raise its concurrency, or make it cheaper"
	}
	return ""
}

// ours reports whether the plugin is to blame.
func (r Reason) ours() bool { return r == HostFault || r == Busy || r == Quarantined || r == Canceled }

// stop is what ends a guest: host functions panic with it, and wazero wraps it in the error of the call.
type stop struct {
	reason Reason
	detail string
}

func (s *stop) Error() string { return s.detail }

// failure makes a failure of the error of a call.
func failure(plugin, call string, err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	f := &Failure{Plugin: plugin, Call: call, Reason: Trap}
	if s, ok := errors.AsType[*stop](err); ok {
		f.Reason, f.Detail = s.reason, s.detail
		return f
	}
	f.Detail = err.Error()
	if strings.Contains(f.Detail, "(recovered by wazero)") {
		f.Reason = HostFault // and no stop: a bug in a helper
		return f
	}
	f.Detail = shortTrace(f.Detail)
	return f
}

// shortTrace keeps what a trap is called and the functions that it happened in.
func shortTrace(s string) string {
	what, trace, _ := strings.Cut(s, "\nwasm stack trace:\n")
	what = strings.TrimPrefix(what, "wasm error: ")
	var frames []string
	for line := range strings.Lines(trace) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "(")
		if name = strings.Trim(name, ".() \n"); name != "" && len(frames) < 5 {
			frames = append(frames, name)
		}
	}
	if len(frames) > 0 {
		what += " in " + strings.Join(frames, " < ")
	}
	return what
}
