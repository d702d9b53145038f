// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"time"

	"github.com/weir-proxy/weir/policy"
)

// maxWaiting bounds how many requests wait for the bank at once; more are refused as if none did.
const maxWaiting = 1024

// wait tries again when the bank has answered, as long as that may help.
func (b *Book) wait(d *policy.Demand, over []applied, short *shortage) *shortage {
	defer b.counters.waiting.Add(-1)
	if b.counters.waiting.Add(1) > maxWaiting {
		return short
	}
	timer := time.NewTimer(b.o.Patience)
	defer timer.Stop()
	for short != nil && !b.failing.Load() && !b.fenced.Load() {
		answered := short.account.hope(short.amount, b.o.Clock())
		if answered == nil {
			break
		}
		b.o.Wake()
		select {
		case <-answered:
			short = b.reserve(d, over)
		case <-timer.C:
			return short
		}
	}
	return short
}
