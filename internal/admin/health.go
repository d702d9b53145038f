// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

func (a *api) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

// ready leaves out what is well and how to mend what is not: anybody may ask.
func (a *api) ready(w http.ResponseWriter, r *http.Request) error {
	out := Readiness{Ready: true, Checks: []Check{}}
	for _, c := range a.Ready(r.Context()) {
		if c.Verdict == OK {
			continue
		}
		out.Checks = append(out.Checks, Check{Name: c.Name, Verdict: c.Verdict, Detail: c.Detail})
		out.Ready = out.Ready && c.Verdict != Fail
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, out)
	return nil
}

// doctor answers 200 whatever it finds: the examination worked.
func (a *api) doctor(w http.ResponseWriter, r *http.Request) error {
	checks := slices.Clone(a.Ready(r.Context()))
	checks = append(checks, a.checkChannels(r.Context()), a.checkKeys(r.Context()))
	writeJSON(w, http.StatusOK, List[Check]{Items: checks})
	return nil
}

// unreadable is the finding when the store does not answer.
func (a *api) unreadable(ctx context.Context, name string, err error) Check {
	if errors.Is(err, store.ErrSecretKey) {
		return Check{Name: name, Verdict: Fail, Detail: err.Error(), Hint: secretKeyHint}
	}
	if a.away(ctx) {
		return Check{Name: name, Verdict: Fail, Detail: "not known without the database", Hint: "see the database check"}
	}
	a.Logger.ErrorContext(ctx, "doctor could not read", "what", name, "err", err)
	return Check{Name: name, Verdict: Fail, Detail: name + " cannot be read from the database", Hint: "the log of weir serve has the cause"}
}

func (a *api) checkChannels(ctx context.Context) Check {
	const name = "channels"
	all, err := a.Store.Channels(ctx)
	if err != nil {
		return a.unreadable(ctx, name, err)
	}
	if len(all) == 0 {
		return Check{Name: name, Verdict: Fail, Detail: "there is no channel: every request is refused", Hint: "add one with weir channel add"}
	}
	models := map[string]bool{}
	enabled := 0
	for _, c := range all {
		if c.Disabled {
			continue
		}
		enabled++
		for _, m := range c.Models {
			models[m.Name] = true
		}
	}
	if enabled == 0 {
		return Check{Name: name, Verdict: Fail, Detail: "every channel is disabled: every request is refused", Hint: "weir channel enable NAME"}
	}
	return Check{Name: name, Verdict: OK, Detail: fmt.Sprintf("%d of %d enabled, serving %d models", enabled, len(all), len(models))}
}

// checkKeys looks for one key that works, and reads no further: an installation may have millions.
func (a *api) checkKeys(ctx context.Context) Check {
	const name = "keys"
	tenants, err := a.Store.Tenants(ctx)
	if err != nil {
		return a.unreadable(ctx, name, err)
	}
	disabled := map[policy.TenantID]bool{}
	for _, t := range tenants {
		disabled[t.ID] = t.Disabled
	}
	now, seen := time.Now(), 0
	for after := policy.KeyID(0); ; {
		keys, err := a.Store.Keys(ctx, store.KeyFilter{AfterID: after, Limit: maxLimit})
		if err != nil {
			return a.unreadable(ctx, name, err)
		}
		for _, k := range keys {
			if usable(k, now) && !disabled[k.Tenant] {
				return Check{Name: name, Verdict: OK, Detail: "there are keys that may be used"}
			}
			after = k.ID
		}
		seen += len(keys)
		if len(keys) == maxLimit {
			continue
		}
		if seen == 0 {
			return Check{Name: name, Verdict: Fail, Detail: "there is no key: every request is refused", Hint: "make one with weir key create"}
		}
		return Check{Name: name, Verdict: Fail, Detail: "every key is disabled, revoked or expired: every request is refused", Hint: "make one with weir key create"}
	}
}

func usable(k store.Key, now time.Time) bool {
	return !k.Disabled && !k.Revoked && (k.Expires.IsZero() || k.Expires.After(now))
}
