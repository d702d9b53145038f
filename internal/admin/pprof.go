// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profileKinds are the profiles that can be asked for. The command line of the process and the table of its symbols are not among them: the first
// may name files that are nobody's business, and profiles of Go bring their own symbols.
var profileKinds = []string{"allocs", "block", "cpu", "goroutine", "heap", "mutex", "threadcreate", "trace"}

// Limits of a profile that takes time.
const (
	usualProfile   = 10 * time.Second
	longestProfile = 2 * time.Minute
)

// profile answers with a profile of this process as go tool pprof reads it, or, for trace, go tool trace. Profiles hold names of functions and
// counts, and nothing that went through them. cpu and trace take the seconds that they are asked for; the process is a few percent slower
// meanwhile.
func (a *api) profile(w http.ResponseWriter, r *http.Request) error {
	kind := r.PathValue("kind")
	if !slices.Contains(profileKinds, kind) {
		return problem(http.StatusNotFound, "not found", "there is no profile of that kind").hint("there are %s", strings.Join(profileKinds, ", "))
	}
	seconds := usualProfile
	if text := r.URL.Query().Get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > int(longestProfile/time.Second) {
			return invalid("seconds must be a whole number from 1 to %d", int(longestProfile/time.Second))
		}
		seconds = time.Duration(n) * time.Second
	}
	timed := kind == "cpu" || kind == "trace"
	query := "" // the handlers of the library read it: debug and gc are left out, since they change what is answered and how long it takes
	if timed {
		query = "seconds=" + strconv.Itoa(int(seconds/time.Second))
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery, r.Form = query, nil
	switch kind {
	case "cpu":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Handler(kind).ServeHTTP(w, r)
	}
	return nil
}
