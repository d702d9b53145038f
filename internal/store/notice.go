// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// Notice tells that a share of the credit of a budget is spent. There is one for each share and period, whichever processor noticed it.
type Notice struct {
	policy.Account
	Share    int // percent
	Spent    int64
	Credit   int64
	Noticed  time.Time
	Attempts int // to send it, this one too
	Tenant   string
	Key      string // empty: the budget is the tenant's
	Length   string // of the period: day, week, month or never
}

// claimTime is how long, in SQL, whoever takes a notice has to send it before another may.
const claimTime = `interval '1 minute'`

// TakeNotices returns notices that are to be sent now. Nobody else is given them for a minute: by then [Store.NoticeSent] or [Store.NoticeFailed] is called, or
// they are given out again. Those of budgets that were deleted are given to nobody.
func (s *Store) TakeNotices(ctx context.Context, limit int) ([]Notice, error) {
	notices, err := many(ctx, s.pool, func(row pgx.CollectableRow) (n Notice, err error) {
		err = row.Scan(&n.Budget, &n.Period, &n.Share, &n.Spent, &n.Credit, &n.Noticed, &n.Attempts, &n.Tenant, &n.Key, &n.Length)
		n.Noticed = n.Noticed.UTC()
		return n, err
	}, `with due as (
			select n.budget_id, n.period, n.share, t.name as tenant, coalesce(k.name, '') as key, b.period as length
			from weir.budget_notice n join weir.budget b on b.id = n.budget_id join weir.tenant t on t.id = b.tenant_id left join weir.key k on k.id = b.key_id
			where n.sent is null and n.due <= now() order by n.due limit $1 for update of n skip locked
		) update weir.budget_notice n set due = now() + `+claimTime+`, attempts = attempts + 1 from due
		where (n.budget_id, n.period, n.share) = (due.budget_id, due.period, due.share)
		returning n.budget_id, n.period, n.share, n.spent, n.credit, n.noticed, n.attempts, due.tenant, due.key, due.length`, limit)
	if err != nil {
		return nil, fmt.Errorf("take notices: %w", err)
	}
	return notices, nil
}

// NoticeSent notes that a notice has arrived.
func (s *Store) NoticeSent(ctx context.Context, n Notice) error {
	_, err := s.pool.Exec(ctx, `update weir.budget_notice set sent = now() where budget_id = $1 and period = $2 and share = $3`, n.Budget, n.Period, n.Share)
	if err != nil {
		return fmt.Errorf("note that a notice was sent: %w", err)
	}
	return nil
}

// NoticeFailed has a notice sent again, not before so long.
func (s *Store) NoticeFailed(ctx context.Context, n Notice, wait time.Duration) error {
	_, err := s.pool.Exec(ctx, `update weir.budget_notice set due = now() + $4::interval where budget_id = $1 and period = $2 and share = $3`,
		n.Budget, n.Period, n.Share, wait)
	if err != nil {
		return fmt.Errorf("put off a notice: %w", err)
	}
	return nil
}
