// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy/budget"
)

const (
	noticeLook    = 2 * time.Second
	noticeTimeout = 10 * time.Second // for the receiver to answer
	noticeMost    = time.Hour        // between two attempts
	noticeBatch   = 20
)

// notice is what is sent to the webhook when a share of a budget is spent.
type notice struct {
	Type    string    `json:"type"` // budget.share
	ID      string    `json:"id"`   // the same for each attempt, so that a receiver can leave out what it has
	Tenant  string    `json:"tenant"`
	Key     string    `json:"key,omitempty"` // absent: the budget is the tenant's
	Period  string    `json:"period"`        // day, week, month or never
	Began   time.Time `json:"began,omitzero"`
	Percent int       `json:"percent"`
	Spent   int64     `json:"spent_nanousd"`
	Credit  int64     `json:"credit_nanousd"`
	Noticed time.Time `json:"noticed"`
}

// notify tells of the shares of budgets that are spent, in the log and by the webhook, until ctx ends. Each is told once, by one processor; to a webhook that does
// not answer, or of which it is not known whether it did, again.
func (p *processor) notify(ctx context.Context) error {
	tick := time.NewTicker(noticeLook)
	defer tick.Stop()
	client := &http.Client{Timeout: noticeTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due, err := p.store.TakeNotices(ctx, noticeBatch)
		if err != nil {
			continue // an outage of the database is told of elsewhere
		}
		for _, n := range due {
			p.tell(ctx, client, n)
		}
	}
}

func (p *processor) tell(ctx context.Context, client *http.Client, n store.Notice) {
	log := p.log.With("tenant", n.Tenant, "key", n.Key, "percent", n.Share, "spent_usd", budget.FormatUSD(n.Spent), "credit_usd", budget.FormatUSD(n.Credit))
	if n.Attempts == 1 {
		log.Warn("a share of a budget is spent")
	}
	var err error
	if p.cfg.Limits.Budgets.Webhook != "" {
		err = post(ctx, client, p.cfg.Limits.Budgets.Webhook.Reveal(), p.cfg.Limits.Budgets.WebhookToken.Reveal(), noticeOf(n))
	}
	if err == nil {
		err = p.store.NoticeSent(ctx, n)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	wait := min(time.Second<<min(n.Attempts, 12), noticeMost)
	log.Warn("a notice did not reach the webhook", "attempts", n.Attempts, "retry_in", wait, "err", err)
	if err := p.store.NoticeFailed(ctx, n, wait); err != nil {
		log.Warn("a notice could not be put off", "err", err)
	}
}

func noticeOf(n store.Notice) notice {
	out := notice{
		Type: "budget.share", ID: fmt.Sprintf("%d-%d-%d", n.Budget, n.Period, n.Share), Tenant: n.Tenant, Key: n.Key, Period: n.Length,
		Percent: n.Share, Spent: n.Spent, Credit: n.Credit, Noticed: n.Noticed,
	}
	if n.Period != 0 {
		out.Began = time.Unix(n.Period, 0).UTC()
	}
	return out
}

// post sends a notice. Any answer but 2xx is an error. The error does not hold the address, which may be a secret.
func post(ctx context.Context, client *http.Client, address, token string, n notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("limits.budgets.webhook is not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post notice: %w", bare(err))
	}
	defer res.Body.Close()                                     //nolint:errcheck // its answer is of no interest
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096)) // so that the connection can be used again
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("post notice: the webhook answered %s", strconv.Itoa(res.StatusCode))
	}
	return nil
}

// bare takes the address out of an error.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
