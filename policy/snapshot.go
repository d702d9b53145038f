// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// SnapshotData is the configuration that the engine decides by, in any order.
type SnapshotData struct {
	Tenants  []Tenant
	Keys     []Key
	Channels []Channel

	// Keyring, if not nil, has the keys, and Keys must be empty. It may change while the snapshot is in use: keys are many, and each
	// changes by itself. One whose tenant the snapshot does not have is refused until another snapshot has it.
	Keyring *Keyring
}

// Snapshot is a [SnapshotData] that has been checked and indexed. But for the keyring it is immutable: the engine reads one without a lock, and a
// change of the configuration is another Snapshot.
type Snapshot struct {
	keys    *Keyring
	tenants map[TenantID]Tenant
	models  map[string]*offer
	names   []string // of models, sorted
}

// grant is a key with what it gives access to.
type grant struct {
	key    Key
	tenant Tenant
	access *access
	hash   KeyHash // of the secret that was sent
	pin    string  // the id or the name of the only channel to use; empty: any
}

// reach returns which channels the grant is good for.
func (g *grant) reach() reach {
	return reach{tenant: g.tenant.ID, groups: [2][]string{g.tenant.Groups, g.key.Groups}, pin: g.pin}
}

// reach is which channels an exchange may use. The zero value is for those that are open to everybody.
type reach struct {
	tenant TenantID
	groups [2][]string // a channel must be in one of each; none: in any or none
	pin    string
}

// opens reports whether the channel of a candidate may be used.
func (r *reach) opens(c *candidate) bool {
	if c.tenant != 0 && c.tenant != r.tenant {
		return false
	}
	for _, of := range r.groups {
		if len(of) > 0 && !slices.ContainsFunc(c.groups, func(g string) bool { return slices.Contains(of, g) }) {
			return false
		}
	}
	return r.pin == "" || r.pin == c.name || r.pin == strconv.FormatInt(int64(c.channel), 10)
}

// offer is where a model can be had.
type offer struct {
	channels []candidate // enabled ones, by falling priority, then by id
	disabled []candidate
}

// candidate is a channel that serves the model of an offer.
type candidate struct {
	channel  ChannelID
	name     string
	upstream string   // never empty
	tenant   TenantID // whose it is; zero for everybody's
	groups   []string
	priority int
	weight   int
	partial  Partial // empty for BillEstimate, as in a ticket
}

// NewSnapshot checks the data and indexes it. It keeps no reference to the slices of data. It returns an error for data that no
// store should hold: ids that are not positive or repeat, keys or channels of tenants that are missing, hashes that repeat, models
// without a proper name or served twice by one channel, weights below 1.
func NewSnapshot(data SnapshotData) (*Snapshot, error) {
	tenants := make(map[TenantID]Tenant, len(data.Tenants))
	for _, t := range data.Tenants {
		if _, twice := tenants[t.ID]; t.ID <= 0 || twice {
			return nil, fmt.Errorf("tenant %d: id is not positive or not unique", t.ID)
		}
		t.Groups = slices.Clone(t.Groups)
		tenants[t.ID] = t
	}
	s := &Snapshot{keys: data.Keyring, tenants: tenants, models: make(map[string]*offer)}
	if s.keys == nil {
		if err := s.addKeys(data.Keys); err != nil {
			return nil, err
		}
	} else if len(data.Keys) > 0 {
		return nil, errors.New("keys beside a keyring")
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

// addKeys makes a keyring of keys whose tenants are known.
func (s *Snapshot) addKeys(keys []Key) error {
	b := NewKeyBuilder(len(keys))
	for i := range keys {
		if err := b.Add(&keys[i]); err != nil {
			return err
		}
		if _, ok := s.tenants[keys[i].Tenant]; !ok {
			return fmt.Errorf("key %d: no tenant %d", keys[i].ID, keys[i].Tenant)
		}
	}
	s.keys = &Keyring{}
	return s.keys.Replace(b)
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
	if c.Partial == BillEstimate {
		c.Partial = ""
	}
	to := &o.channels
	if c.Disabled {
		to = &o.disabled
	}
	*to = append(*to, candidate{
		channel: c.ID, name: c.Name, upstream: upstream, tenant: c.Tenant, priority: c.Priority, weight: c.Weight,
		partial: c.Partial, groups: slices.Clone(c.Groups),
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

// served reports whether the model can be had at present.
func (o *offer) served(by *reach) bool { return anyOpen(o.channels, by) }

// known reports whether the model could be had if no channel were disabled.
func (o *offer) known(by *reach) bool { return o.served(by) || anyOpen(o.disabled, by) }

func anyOpen(channels []candidate, by *reach) bool {
	for i := range channels {
		if by.opens(&channels[i]) {
			return true
		}
	}
	return false
}
