// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"
)

// Limits of what a plugin keeps for a tenant.
const (
	maxShared      = 1024
	maxSharedBytes = 1 << 20 // names and values together
	maxMetrics     = 1024    // of a plugin
	maxMetricName  = 512     // bytes
)

// stores are the shared data of a plugin, by tenant. What it sets while it is configured is the tenant 0's: all others see it until they set
// something else under that name.
type stores struct {
	mu      sync.Mutex
	tenants map[int64]*store
}

type store struct {
	values map[string]shared
	bytes  int
}

// shared is a value; its cas is another after each change, and never 0.
type shared struct {
	value []byte
	cas   uint32
}

func (s *stores) get(tenant int64, key string) (shared, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []int64{tenant, 0} {
		if of := s.tenants[t]; of != nil {
			if v, ok := of.values[key]; ok {
				return v, true
			}
		}
	}
	return shared{}, false
}

// set sets a value if cas is 0 or that of the value now, and returns a status.
func (s *stores) set(tenant int64, key string, value []byte, cas uint32) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.tenants[tenant]
	if of == nil {
		of = &store{values: map[string]shared{}}
		if s.tenants == nil {
			s.tenants = map[int64]*store{}
		}
		s.tenants[tenant] = of
	}
	was, have := of.values[key]
	if !have {
		if base := s.tenants[0]; base != nil {
			was.cas = base.values[key].cas
		}
	}
	switch {
	case cas != 0 && cas != was.cas:
		return statusCASMismatch
	case !have && len(of.values) >= maxShared:
		return statusInternalFailure
	}
	grown := len(value) - len(was.value)
	if !have {
		grown += len(key)
	}
	if of.bytes+grown > maxSharedBytes {
		return statusInternalFailure
	}
	of.bytes += grown
	if was.cas++; was.cas == 0 {
		was.cas = 1
	}
	of.values[key] = shared{bytes.Clone(value), was.cas}
	return statusOK
}

// forget drops what tenants have, and keeps what the configuration set.
func (s *stores) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.tenants, func(tenant int64, _ *store) bool { return tenant != 0 })
}

// getShared is proxy_get_shared_data(key, its length, out, its length, cas).
func (c caller) getShared(a args) uint64 {
	v, ok := c.plugin.stores.get(c.about.tenant, c.text(a[0], a[1]))
	if !ok {
		return statusNotFound
	}
	c.put32(a[4], v.cas)
	return c.give(v.value, a[2], a[3])
}

// setShared is proxy_set_shared_data(key, its length, value, its length, cas).
func (c caller) setShared(a args) uint64 {
	return c.plugin.stores.set(c.about.tenant, c.text(a[0], a[1]), c.bytes(a[2], a[3]), uint32(a[4]))
}

// Kind is what a metric of a plugin counts.
type Kind uint8

// Kinds, as the ABI has them.
const (
	Counter Kind = iota
	Gauge
	Histogram
)

// Metric is a number that a plugin keeps for a tenant.
type Metric struct {
	Name  string
	Kind  Kind
	Value int64 // of a histogram: the sum of what was recorded
	Count int64 // of a histogram: how often
}

// metrics are those of a plugin. Their names are the same for all tenants, since the instance that every stream begins with may have defined them already.
type metrics struct {
	mu      sync.Mutex
	ids     map[string]uint32 // from 1
	defined []Metric          // without values
	tenants map[int64]map[uint32]*Metric
}

// Metrics returns the metrics that the plugin keeps for a tenant, by name. They are in the memory of this process, and end with the plugin.
func (p *Plugin) Metrics(tenant int64) []Metric {
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	var list []Metric
	for _, m := range p.metrics.tenants[tenant] {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// AllMetrics returns the metrics that the plugin keeps, by tenant; see [Plugin.Metrics].
func (p *Plugin) AllMetrics() map[int64][]Metric {
	p.metrics.mu.Lock()
	tenants := slices.Collect(maps.Keys(p.metrics.tenants))
	p.metrics.mu.Unlock()
	all := make(map[int64][]Metric, len(tenants))
	for _, t := range tenants {
		all[t] = p.Metrics(t)
	}
	return all
}

// forget drops the values, but not what is defined.
func (m *metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.tenants)
}

// change works on a metric of a tenant; false: there is none of this number.
func (m *metrics) change(tenant int64, id uint32, do func(*Metric) uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == 0 || int(id) > len(m.defined) {
		return statusNotFound
	}
	of := m.tenants[tenant]
	if of == nil {
		of = map[uint32]*Metric{}
		if m.tenants == nil {
			m.tenants = map[int64]map[uint32]*Metric{}
		}
		m.tenants[tenant] = of
	}
	v := of[id]
	if v == nil {
		defined := m.defined[id-1]
		v = &defined
		of[id] = v
	}
	return do(v)
}

// defineMetric is proxy_define_metric(kind, name, its length, out).
func (c caller) defineMetric(a args) uint64 {
	name := c.text(a[1], a[2])
	if a[0] > uint64(Histogram) || name == "" || len(name) > maxMetricName {
		return statusBadArgument
	}
	m := &c.plugin.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	id, have := m.ids[name]
	if !have {
		if len(m.defined) >= maxMetrics {
			return statusInternalFailure
		}
		if m.ids == nil {
			m.ids = map[string]uint32{}
		}
		m.defined = append(m.defined, Metric{Name: name, Kind: Kind(a[0])})
		id = uint32(len(m.defined))
		m.ids[name] = id
	}
	c.put32(a[3], id)
	return statusOK
}

func (c caller) incrementMetric(a args) uint64 {
	return c.plugin.metrics.change(c.about.tenant, uint32(a[0]), func(m *Metric) uint64 {
		by := int64(a[1])
		if m.Kind == Histogram || m.Kind == Counter && by < 0 {
			return statusBadArgument
		}
		m.Value += by
		return statusOK
	})
}

func (c caller) recordMetric(a args) uint64 {
	return c.plugin.metrics.change(c.about.tenant, uint32(a[0]), func(m *Metric) uint64 {
		switch m.Kind {
		case Gauge:
			m.Value = int64(a[1])
		case Histogram:
			m.Value += int64(a[1])
			m.Count++
		default:
			return statusBadArgument
		}
		return statusOK
	})
}

func (c caller) getMetric(a args) uint64 {
	value := int64(0)
	status := c.plugin.metrics.change(c.about.tenant, uint32(a[0]), func(m *Metric) uint64 {
		if m.Kind == Histogram {
			return statusBadArgument
		}
		value = m.Value
		return statusOK
	})
	if status == statusOK {
		c.put64(a[1], uint64(value))
	}
	return status
}
