// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/weir-proxy/weir/policy"
)

// Change is what has become of limits.
type Change struct {
	All    bool // Limits are all that there are: others are gone
	Limits []Limit
	Gone   []ID
}

// Table is all limits, made ready for look-ups. These go on while it is changed, which one goroutine at a time does; what a change costs grows with what
// changes, not with how many limits there are.
type Table struct {
	byID   policy.Registry[ID, *rule]
	all    atomic.Pointer[[]*rule] // those of all tenants; nil: none
	tenant policy.Registry[policy.TenantID, []*rule]
	key    policy.Registry[policy.KeyID, []*rule]
}

// NewTable makes a table of limits. See [Table.Change].
func NewTable(limits []Limit) (*Table, error) {
	t := new(Table)
	return t, t.Change(Change{All: true, Limits: limits})
}

// Change puts limits in the place of those with the same ids, adds those that are new, and takes out those that are gone. It returns an error, and changes
// nothing, for limits that no store should hold.
func (t *Table) Change(c Change) error {
	e := edit{table: t, rules: make(map[ID]*rule, len(c.Limits)), keys: make(map[policy.KeyID][]*rule), tenants: make(map[policy.TenantID][]*rule)}
	for _, l := range c.Limits {
		if _, twice := e.rules[l.ID]; l.ID <= 0 || twice {
			return fmt.Errorf("limit %d: id is not positive or not unique", l.ID)
		}
		if err := l.Check(); err != nil {
			return fmt.Errorf("limit %d: %w", l.ID, err)
		}
		e.rules[l.ID] = newRule(l)
	}
	gone := c.Gone
	if c.All {
		for id := range t.byID.All() {
			if e.rules[id] == nil {
				gone = append(gone, id)
			}
		}
	}
	for _, id := range gone {
		e.leave(id)
	}
	for id, r := range e.rules {
		e.leave(id)
		e.enter(r)
	}
	e.publish(gone)
	return nil
}

// Len returns how many limits the table has.
func (t *Table) Len() int { return t.byID.Len() }

// Limits returns all limits, in no order.
func (t *Table) Limits() []Limit {
	all := make([]Limit, 0, t.byID.Len())
	for _, r := range t.byID.All() {
		all = append(all, r.limit)
	}
	return all
}

// rule returns the one of an id; nil: there is none.
func (t *Table) rule(id ID) *rule {
	r, _ := t.byID.Get(id)
	return r
}

func (t *Table) ofAll() []*rule {
	if all := t.all.Load(); all != nil {
		return *all
	}
	return nil
}

// edit is a change of a table on its way: the lists that change, in copies of their own.
type edit struct {
	table   *Table
	rules   map[ID]*rule
	keys    map[policy.KeyID][]*rule
	tenants map[policy.TenantID][]*rule
	all     []*rule
	edited  bool // all is another
}

// list has a list of rules changed: that of a key, of a tenant, or of all.
func (e *edit) list(l *Limit, change func([]*rule) []*rule) {
	switch {
	case l.Key != 0:
		e.keys[l.Key] = change(listIn(e.keys, &e.table.key, l.Key))
	case l.Tenant != 0:
		e.tenants[l.Tenant] = change(listIn(e.tenants, &e.table.tenant, l.Tenant))
	default:
		if !e.edited {
			e.all, e.edited = slices.Clone(e.table.ofAll()), true
		}
		e.all = change(e.all)
	}
}

func listIn[K ~int64](edited map[K][]*rule, r *policy.Registry[K, []*rule], k K) []*rule {
	if list, ok := edited[k]; ok {
		return list
	}
	list, _ := r.Get(k)
	return slices.Clone(list)
}

// leave takes the rule of an id out of the list that it is in.
func (e *edit) leave(id ID) {
	old := e.table.rule(id)
	if old == nil {
		return
	}
	e.list(&old.limit, func(list []*rule) []*rule {
		return slices.DeleteFunc(list, func(r *rule) bool { return r.limit.ID == id })
	})
}

func (e *edit) enter(r *rule) {
	e.list(&r.limit, func(list []*rule) []*rule { return append(list, r) })
}

// publish makes the change. Rules stand in the order of their ids.
func (e *edit) publish(gone []ID) {
	e.table.byID.Change(e.rules, gone)
	publishLists(&e.table.key, e.keys)
	publishLists(&e.table.tenant, e.tenants)
	if e.edited {
		inOrder(e.all)
		e.table.all.Store(&e.all)
	}
}

func publishLists[K ~int64](r *policy.Registry[K, []*rule], edited map[K][]*rule) {
	var gone []K
	for k, list := range edited {
		if inOrder(list); len(list) == 0 {
			gone = append(gone, k)
			delete(edited, k)
		}
	}
	r.Change(edited, gone)
}

func inOrder(list []*rule) {
	slices.SortFunc(list, func(a, b *rule) int { return cmp.Compare(a.limit.ID, b.limit.ID) })
}

// hit is a bucket that an exchange takes from.
type hit struct {
	rule    *rule
	subject int64 // the key whose bucket it is; zero: that of all
}

// match appends the buckets of an exchange to hits: those of the key first, so that it is held to its own limit before it takes from others'.
func (t *Table) match(hits []hit, d *policy.Demand) []hit {
	own, _ := t.key.Get(d.Key.ID)
	tenant, _ := t.tenant.Get(d.Tenant.ID)
	for _, r := range own {
		if r.describes(d.Model) {
			hits = append(hits, hit{rule: r})
		}
	}
	for _, r := range tenant {
		if r.describes(d.Model) && r.counts(own, nil) {
			hits = append(hits, r.hit(d))
		}
	}
	for _, r := range t.ofAll() {
		if r.describes(d.Model) && r.counts(own, tenant) {
			hits = append(hits, r.hit(d))
		}
	}
	return hits
}

// Over returns the limits that a key is held to, for one model or another: its own first, then those of its tenant, then those of all.
func (t *Table) Over(key policy.KeyID, tenant policy.TenantID) []Limit {
	own, _ := t.key.Get(key)
	shared, _ := t.tenant.Get(tenant)
	var all []Limit
	for _, r := range own {
		all = append(all, r.limit)
	}
	for _, r := range shared {
		if r.counts(own, nil) {
			all = append(all, r.limit)
		}
	}
	for _, r := range t.ofAll() {
		if r.counts(own, shared) {
			all = append(all, r.limit)
		}
	}
	return all
}

// counts reports whether a limit counts beside those of a key and of its tenant: one that each key has for itself is a default.
func (r *rule) counts(own, tenant []*rule) bool {
	return !r.limit.Each || !hasPattern(own, r.limit.Model, false) && !hasPattern(tenant, r.limit.Model, true)
}

func (r *rule) describes(model string) bool { return r.all || r.glob.Match(model) }

func (r *rule) hit(d *policy.Demand) hit {
	if r.limit.Each {
		return hit{rule: r, subject: int64(d.Key.ID)}
	}
	return hit{rule: r}
}

// hasPattern reports whether one of the rules is for the same models; with each, only those count that are for each key.
func hasPattern(rules []*rule, model string, each bool) bool {
	for _, r := range rules {
		if (r.limit.Each || !each) && (r.limit.Model == model || r.all && (model == "" || model == "*")) {
			return true
		}
	}
	return false
}
