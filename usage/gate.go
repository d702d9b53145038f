// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"strings"
	"sync/atomic"

	"github.com/weir-proxy/weir/policy"
)

// Reasons why a [Gate] is closed, as weir_usage_gate_closings_total counts them.
const (
	closedSpace   = "space"   // the volume of the logs is about to be full
	closedBacklog = "backlog" // more waits to be shipped than may
	closedWrite   = "write"   // an Envoy could not write lines
)

// Gate says whether billed requests may be admitted: whether there is room for the lines that they will make. The zero value is open.
// One goroutine sets it; reading it is one atomic load.
type Gate struct {
	denial atomic.Pointer[policy.Denial]
	why    string // owned by who sets it
}

// Denial returns how to refuse a request, or nil when the gate is open. It may be called from any goroutine.
func (g *Gate) Denial() *policy.Denial { return g.denial.Load() }

// set closes the gate for these reasons, or opens it when there are none. It returns the reasons that are new.
func (g *Gate) set(reasons []string) (fresh []string) {
	before := strings.Split(g.why, ",")
	for _, r := range reasons {
		known := false
		for _, b := range before {
			known = known || b == r
		}
		if !known {
			fresh = append(fresh, r)
		}
	}
	g.why = strings.Join(reasons, ",")
	switch {
	case len(reasons) == 0:
		g.denial.Store(nil)
	case g.denial.Load() == nil:
		g.denial.Store(policy.Unavailable())
	}
	return fresh
}
