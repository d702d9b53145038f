// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"time"

	"github.com/weir-proxy/weir/internal/store"
)

// What follows says what is wrong with a thing before it is sent: what the server would refuse for what stands in it.

// Check says what is wrong with a new key at a time.
func (n *NewKey) Check(now time.Time) error {
	want, err := n.wanted()
	if err != nil {
		return err
	}
	return want.Check(now)
}

// CheckTenant says what is wrong with the name of a tenant, its groups of channels and its time zone.
func CheckTenant(name string, groups []string, zone string) error {
	return store.CheckTenant(name, groups, zone)
}

// Check says what is wrong with the terms of a budget.
func (t *BudgetTerms) Check() error { return t.change().Check() }

// Check says what is wrong with a new limit.
func (s *SetLimit) Check() error {
	c, err := s.change()
	if err != nil || c == nil {
		return err
	}
	return store.CheckRates(s.Model, *c)
}

// Check says what is wrong with the price of a model.
func (n *NewPrice) Check(model string) error { return store.CheckPrice(model, n.rows()) }
