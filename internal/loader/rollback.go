// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// Probation is how long a new version is rolled back by itself if it fails often. Later it is only left alone, for a while each time.
const Probation = 10 * time.Minute

const (
	askAgain  = 5 * time.Second // between two attempts at the same roll-back
	clockSkew = time.Minute     // between us and the database, which decides
	maxAsk    = 10 * time.Second
)

// rollBack takes versions back that are left alone so soon after they were put in force, until ctx ends. All processors notice, and one of them does it.
func (l *Loader) rollBack(ctx context.Context) error {
	asked := map[store.AttachmentID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-l.quarantined:
			now := time.Now()
			for _, a := range l.onProbation(n, now) {
				if now.Sub(asked[a.ID]) < askAgain {
					continue
				}
				asked[a.ID] = now
				l.rollBackOne(ctx, &a, n.why)
			}
			n.handle.told.Store(false)
		}
	}
}

// onProbation returns the attachments that a notice is about and that have a way back.
func (l *Loader) onProbation(n notice, now time.Time) []store.Attachment {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []store.Attachment
	for _, p := range l.inForce {
		if p.handle == n.handle && (p.Tenant == 0 || p.Tenant == policy.TenantID(n.tenant)) &&
			p.Previous != (store.Digest{}) && now.Sub(p.Swapped) < Probation+clockSkew {
			out = append(out, p.Attachment)
		}
	}
	return out
}

func (l *Loader) rollBackOne(ctx context.Context, a *store.Attachment, why string) {
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	_, done, err := l.Modules.RollBack(ctx, store.RollBack{Attachment: a.ID, From: a.Digest, Within: Probation, Why: why})
	switch {
	case err != nil:
		l.Logger.Warn("a version of a plugin that fails was not rolled back", "plugin", a.Plugin, "attachment", int64(a.ID), "err", err)
	case done:
		l.metrics.rollBacks.Inc()
		l.Logger.Error("a version of a plugin failed often and was rolled back", "plugin", a.Plugin, "attachment", int64(a.ID),
			"from", a.Digest.String(), "to", a.Previous.String(), "why", why)
	}
}
