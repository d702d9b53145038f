// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"errors"
	"net/netip"
	"time"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/policy/limit"
)

// What follows says what is wrong with a thing before it is sent anywhere, as far as that can be seen from itself. Errors wrap [ErrInvalid].

// Check says what is wrong with a new key.
func (n NewKey) Check(now time.Time) error { // a copy: prepare completes it
	var networks []netip.Prefix
	if err := n.prepare(now, &networks); err != nil {
		return err
	}
	return n.Budget.check()
}

// CheckTenant says what is wrong with the name of a tenant, its groups of channels and its time zone, of which an empty one is UTC.
func CheckTenant(name string, groups []string, zone string) error {
	err := errors.Join(checkName("tenant", name), checkGroups("tenant", groups))
	if _, bad := budget.ParseZone(zone); bad != nil {
		err = errors.Join(err, invalid("tenant %q: %w", name, bad))
	}
	return err
}

// Check says what is wrong with a change of a budget; nil is none.
func (c *BudgetChange) Check() error { return c.check() }

// CheckRates says what is wrong with a new limit for the models that a pattern describes.
func CheckRates(model string, c RatesChange) error {
	if err := checkModelName("model of a limit", cmp.Or(model, "*")); err != nil {
		return err
	}
	var r limit.Rates
	c.Apply(&r)
	if err := r.Check(); err != nil {
		return invalid("limit: %w", err)
	}
	return nil
}

// CheckPrice says what is wrong with the price of a model.
func CheckPrice(model string, rows []prices.Row) error { return checkPrice(model, rows) }
