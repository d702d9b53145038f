// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"
)

// SnapshotData is the configuration that the engine decides by, in any order.
type SnapshotData struct {
	Tenants  []Tenant
	Keys     []Key
	Channels []Channel
}

// Snapshot is a [SnapshotData] that has been checked and indexed. It is immutable: the engine reads one without a lock, and a
// change of the configuration is another Snapshot.
type Snapshot struct {
	// Keys are found by the SHA-256 of what the client sent. The time that a lookup takes depends on that hash only, and who
	// cannot choose a secret by its hash learns nothing of the hashes that are stored from it: so it need not be constant.
	keys   map[KeyHash]*grant
	models map[string]*offer
	names  []string // of models, sorted
}

// grant is a key with what it gives access to.
type grant struct {
	key    Key
	tenant Tenant
	models allowList
}

// offer is where a model can be had.
type offer struct {
	channels []candidate // enabled ones, by falling priority, then by id
	disabled []TenantID  // whom the disabled ones are open to (zero for everybody)
}

// candidate is a channel that serves the model of an offer.
type candidate struct {
	channel  ChannelID
	name     string
	upstream string // never empty
	tenant   TenantID
	priority int
	weight   int
	partial  Partial // empty for BillEstimate, as in a ticket
}

// openTo reports whether a channel that belongs to owner, or to nobody, takes the calls of a tenant.
func openTo(owner, tenant TenantID) bool { return owner == 0 || owner == tenant }

// NewSnapshot checks the data and indexes it. It keeps no reference to the slices of data. It returns an error for data that no
// store should hold: ids that are not positive or repeat, keys or channels of tenants that are missing, hashes that repeat, models
// without a proper name or served twice by one channel, weights below 1.
func NewSnapshot(data SnapshotData) (*Snapshot, error) {
	tenants := make(map[TenantID]Tenant, len(data.Tenants))
	for _, t := range data.Tenants {
		if _, twice := tenants[t.ID]; t.ID <= 0 || twice {
			return nil, fmt.Errorf("tenant %d: id is not positive or not unique", t.ID)
		}
		tenants[t.ID] = t
	}
	s := &Snapshot{keys: make(map[KeyHash]*grant, len(data.Keys)), models: make(map[string]*offer)}
	if err := s.addKeys(data.Keys, tenants); err != nil {
		return nil, err
	}
	if err := s.addChannels(data.Channels, tenants); err != nil {
		return nil, err
	}
	for name, o := range s.models {
		s.names = append(s.names, name)
		slices.SortFunc(o.channels, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.channel, b.channel))
		})
	}
	slices.Sort(s.names)
	return s, nil
}

func (s *Snapshot) addKeys(keys []Key, tenants map[TenantID]Tenant) error {
	seen := make(map[KeyID]struct{}, len(keys))
	for _, k := range keys {
		if _, twice := seen[k.ID]; k.ID <= 0 || twice {
			return fmt.Errorf("key %d: id is not positive or not unique", k.ID)
		}
		seen[k.ID] = struct{}{}
		tenant, ok := tenants[k.Tenant]
		if !ok {
			return fmt.Errorf("key %d: no tenant %d", k.ID, k.Tenant)
		}
		if other, twice := s.keys[k.Hash]; twice {
			return fmt.Errorf("key %d: same hash as key %d", k.ID, other.key.ID)
		}
		if slices.Contains(k.Models, "") {
			return fmt.Errorf("key %d: empty model name", k.ID)
		}
		k.Models = slices.Clone(k.Models)
		s.keys[k.Hash] = &grant{key: k, tenant: tenant, models: newAllowList(k.Models)}
	}
	return nil
}

func (s *Snapshot) addChannels(channels []Channel, tenants map[TenantID]Tenant) error {
	seen := make(map[ChannelID]struct{}, len(channels))
	for _, c := range channels {
		if _, twice := seen[c.ID]; c.ID <= 0 || twice {
			return fmt.Errorf("channel %d: id is not positive or not unique", c.ID)
		}
		seen[c.ID] = struct{}{}
		if _, ok := tenants[c.Tenant]; c.Tenant != 0 && !ok {
			return fmt.Errorf("channel %d: no tenant %d", c.ID, c.Tenant)
		}
		if c.Partial != "" && !slices.Contains(partialCodes, c.Partial) {
			return fmt.Errorf("channel %d: unknown policy %q for what is not counted", c.ID, c.Partial)
		}
		if c.Weight < 1 || c.Weight > math.MaxInt32 {
			return fmt.Errorf("channel %d: weight %d is not between 1 and %d", c.ID, c.Weight, math.MaxInt32)
		}
		served := make(map[string]struct{}, len(c.Models))
		for _, m := range c.Models {
			if _, twice := served[m.Name]; twice {
				return fmt.Errorf("channel %d: model %q twice", c.ID, m.Name)
			}
			served[m.Name] = struct{}{}
			if err := s.addModel(&c, m); err != nil {
				return fmt.Errorf("channel %d: %w", c.ID, err)
			}
		}
	}
	return nil
}

func (s *Snapshot) addModel(c *Channel, m Model) error {
	if !properName(m.Name) {
		return fmt.Errorf("model name %q is empty, longer than %d bytes or not printable", m.Name, maxTicketString)
	}
	upstream := cmp.Or(m.Upstream, m.Name)
	if !properName(upstream) {
		return fmt.Errorf("upstream name %q of model %q is longer than %d bytes or not printable", upstream, m.Name, maxTicketString)
	}
	o := s.models[m.Name]
	if o == nil {
		o = &offer{}
		s.models[m.Name] = o
	}
	if c.Disabled {
		o.disabled = append(o.disabled, c.Tenant)
		return nil
	}
	if c.Partial == BillEstimate {
		c.Partial = ""
	}
	o.channels = append(o.channels, candidate{
		channel: c.ID, name: c.Name, upstream: upstream, tenant: c.Tenant, priority: c.Priority, weight: c.Weight,
		partial: c.Partial,
	})
	return nil
}

// properName reports whether a name of a model fits into a ticket, a header and a column of Postgres.
func properName(name string) bool {
	if name == "" || len(name) > maxTicketString || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// served reports whether a tenant can have the model at present.
func (o *offer) served(tenant TenantID) bool {
	return slices.ContainsFunc(o.channels, func(c candidate) bool { return openTo(c.tenant, tenant) })
}

// known reports whether a tenant could have the model if no channel were disabled.
func (o *offer) known(tenant TenantID) bool {
	return o.served(tenant) || slices.ContainsFunc(o.disabled, func(owner TenantID) bool { return openTo(owner, tenant) })
}
