// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// Bounds on what goes into a row. Nothing a client or provider sends may make a row that Postgres refuses, for it would hold up
// every row behind it; nor one whose numbers make a sum overflow.
const (
	maxCount = 1 << 40 // tokens or bytes of one exchange
	maxText  = 512     // bytes

	firstSecond = -62135596800 // of the year 1, since 1970
	lastSecond  = 253402300799 // of the year 9999
)

// bounded returns the record as it can be kept. Nearly always that is r itself; else it is a copy, for r belongs to the caller.
func bounded(r *usage.Record) *usage.Record {
	if storable(r) {
		return r
	}
	kept := *r
	if s := r.Time.Unix(); s < firstSecond || s > lastSecond {
		kept.Time = time.Unix(0, 0)
	}
	kept.Time = kept.Time.UTC().Truncate(time.Microsecond)
	d := &kept.Details
	for _, n := range []*int64{
		&kept.Input, &kept.CachedInput, &kept.Output, &kept.Reasoning, &d.CacheWrite, &d.AudioInput, &d.ImageInput, &d.AudioOutput, &d.ImageOutput,
		&kept.BilledInput, &kept.BilledOutput, &kept.RequestBytes, &kept.ResponseBytes,
	} {
		*n = min(max(*n, 0), maxCount)
	}
	kept.CostNanoUSD = min(max(kept.CostNanoUSD, 0), usage.MaxCost)
	for _, n := range []*int{&kept.HTTPStatus, &kept.Attempts} {
		*n = min(max(*n, 0), math.MaxInt32)
	}
	kept.Model, kept.UpstreamModel = text(r.Model), text(r.UpstreamModel)
	kept.Operation, kept.Status = policy.Operation(text(string(r.Operation))), usage.Status(text(string(r.Status)))
	return &kept
}

// storable reports whether a record can be kept as it is. It may be false of one that can, which is then copied for nothing.
func storable(r *usage.Record) bool {
	d := &r.Details
	counts := r.Input | r.CachedInput | r.Output | r.Reasoning | d.CacheWrite | d.AudioInput | d.ImageInput | d.AudioOutput | d.ImageOutput |
		r.BilledInput | r.BilledOutput | r.RequestBytes | r.ResponseBytes // negative if one is, and otherwise not less than any
	second := r.Time.Unix()
	return counts >= 0 && counts < maxCount && r.CostNanoUSD >= 0 && r.CostNanoUSD <= usage.MaxCost &&
		r.HTTPStatus >= 0 && r.HTTPStatus <= math.MaxInt32 && r.Attempts >= 0 && r.Attempts <= math.MaxInt32 &&
		second >= firstSecond && second <= lastSecond && r.Time.Nanosecond()%1000 == 0 && r.Time.Location() == time.UTC &&
		isText(r.Model) && isText(r.UpstreamModel) && isText(string(r.Operation)) && isText(string(r.Status))
}

// isText reports whether s is as [text] would return it.
func isText(s string) bool {
	return len(s) <= maxText && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// text returns s as Postgres takes it: valid UTF-8 without zero bytes, and not too long for an index.
func text(s string) string {
	if isText(s) {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
