// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

func usageRowOf(u store.UsageRow) UsageRow {
	out := UsageRow{
		ExchangeID:        u.Exchange,
		TS:                u.Time,
		TenantID:          int64(u.TenantID),
		Tenant:            u.Tenant,
		KeyID:             int64(u.KeyID),
		Key:               u.Key,
		Channel:           u.Channel,
		Model:             u.Model,
		UpstreamModel:     u.UpstreamModel,
		Operation:         u.Operation,
		Status:            u.Status,
		HTTPStatus:        u.HTTPStatus,
		Attempts:          u.Attempts,
		Stream:            u.Stream,
		Estimated:         u.Estimated,
		InputTokens:       u.Input,
		CachedInputTokens: u.CachedInput,
		OutputTokens:      u.Output,
		ReasoningTokens:   u.Reasoning,
		BilledInput:       u.BilledInput,
		BilledOutput:      u.BilledOutput,
		TokenDetails:      u.Details,
		CostNanoUSD:       u.CostNanoUSD,
		PriceVersion:      u.PriceVersion,
		RequestBytes:      u.RequestBytes,
		ResponseBytes:     u.ResponseBytes,
		FirstByteMS:       u.FirstByteMS,
		DurationMS:        u.DurationMS,
		Tags:              u.Tags,
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	if u.ChannelID != 0 {
		id := int64(u.ChannelID)
		out.ChannelID = &id
	}
	return out
}

func usageSumOf(u store.UsageSum) UsageSum {
	out := UsageSum{
		Group:             u.Group,
		Requests:          u.Requests,
		Estimated:         u.Estimated,
		InputTokens:       u.Input,
		CachedInputTokens: u.CachedInput,
		OutputTokens:      u.Output,
		ReasoningTokens:   u.Reasoning,
		BilledInput:       u.BilledInput,
		BilledOutput:      u.BilledOutput,
		Unpriced:          u.Unpriced,
	}
	if out.Group == nil {
		out.Group = map[string]string{}
	}
	if u.Unpriced < u.Requests {
		out.CostNanoUSD = &u.CostNanoUSD
	}
	return out
}

func (a *api) listUsage(w http.ResponseWriter, r *http.Request) error {
	q := &query{values: r.URL.Query()}
	limit := q.limit()
	before := q.uuid("cursor")
	f, err := a.usageFilter(r.Context(), q)
	if err != nil {
		return err
	}
	f.Limit, f.Before = limit, before
	rows, err := a.Store.Usage(r.Context(), f)
	if err != nil {
		return err
	}
	l := listOf(rows, usageRowOf)
	if len(rows) == limit {
		l.Next = rows[limit-1].Exchange.String()
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (a *api) sumUsage(w http.ResponseWriter, r *http.Request) error {
	q := &query{values: r.URL.Query()}
	var by []string
	if s := q.text("by"); s != "" {
		by = strings.Split(s, ",")
	}
	zone := q.text("time_zone")
	f, err := a.usageFilter(r.Context(), q)
	if err != nil {
		return err
	}
	f.Zone = zone
	sums, err := a.Store.SumUsage(r.Context(), f, by)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(sums, usageSumOf))
	return nil
}

// statuses are those that a row of usage may have.
func statuses() []string {
	return []string{string(usage.StatusOK), string(usage.StatusClientClosed), string(usage.StatusUpstreamError), string(usage.StatusTimeout), string(usage.StatusUnresolved)}
}

// usageFilter takes the parameters that listing and summing share, and with them the rest of q.
func (a *api) usageFilter(ctx context.Context, q *query) (store.UsageFilter, error) {
	f := store.UsageFilter{
		Since:    q.time("since"),
		Until:    q.time("until"),
		Model:    q.text("model"),
		Status:   q.text("status"),
		Exchange: q.uuid("exchange"),
	}
	tenant, key, channel := q.text("tenant"), q.text("key"), q.text("channel")
	if f.Status != "" && !slices.Contains(statuses(), f.Status) {
		q.fail("status", "must be one of "+strings.Join(statuses(), ", "))
	}
	if err := q.done(); err != nil {
		return f, err
	}
	var err error
	if f.Tenant, err = resolve(ctx, tenant, a.Store.Tenant, func(t store.Tenant) policy.TenantID { return t.ID }); err != nil {
		return f, err
	}
	if f.Key, err = resolve(ctx, key, a.Store.Key, func(k store.Key) policy.KeyID { return k.ID }); err != nil {
		return f, err
	}
	f.Channel, err = resolve(ctx, channel, a.Store.Channel, func(c store.Channel) policy.ChannelID { return c.ID })
	return f, err
}

// resolve returns the id that ref means. An id is not looked up: usage outlives what it refers to.
func resolve[T any, ID ~int64](ctx context.Context, ref string, find func(context.Context, string) (T, error), id func(T) ID) (ID, error) {
	if ref == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(ref, 10, 64); err == nil && n > 0 {
		return ID(n), nil
	}
	found, err := find(ctx, ref)
	return id(found), err
}

func (q *query) uuid(name string) uuid.UUID {
	s := q.text(name)
	if s == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil {
		q.fail(name, "must be a UUID")
	}
	return id
}
