// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// DevSecret is the key that a development gateway makes for itself. Since everybody knows it, an engine refuses it unless
// [Options] say otherwise, even if it stands in the database.
const DevSecret = "sk-weir-dev"

// Defaults of [Options].
const (
	DefaultMaxBodyBytes    = 32 << 20
	DefaultFirstByte       = 600 * time.Second
	DefaultFirstByteStream = 120 * time.Second
)

// Options are what an [Engine] needs from outside. The zero value is fit for production.
type Options struct {
	Clock        func() time.Time // nil means time.Now
	Random       rand.Source      // of exchange ids and weighted choices; nil means the runtime's, which is never the same twice
	MaxBodyBytes int64            // larger request bodies are refused; zero means DefaultMaxBodyBytes
	Dev          bool             // accept DevSecret
	Health       Health           // nil means that every channel is well

	// Gate returns how to refuse a billed request, or nil to let it through; it is asked twice per request and must be quick. What
	// the gateway answers itself, such as the list of models, is not billed. Nil lets everything through.
	Gate func() *Denial

	// Judge returns who judges the exchanges of a key, beyond what the engine knows by itself; nil if nobody does. It is asked once for each billed
	// request whose head was accepted, and must be quick. Nil: nobody judges any.
	Judge func(*Tenant, *Key) Judge

	// Estimate sizes each billed request whose model is authorised, or refuses it, as when nothing is known of its price. It must be quick. Nil: nothing
	// is estimated.
	Estimate func(*Question) (Estimate, *Denial)

	// Exact sizes a request more exactly, at some cost, when an accountant asks for it ([Demand.Exact]). It may return no more than Estimate did. Nil: there is
	// nothing more exact.
	Exact func(*Question) Estimate

	// Accountants are asked in this order, after plugins and when channels are known.
	Accountants []Accountant

	// How long one attempt may take to answer with the first byte. A stream begins early; an answer in one piece begins when
	// the model has finished. Zero means the default.
	FirstByte       time.Duration
	FirstByteStream time.Duration
}

// Engine decides on requests. All of its methods may be called by many goroutines at once.
type Engine struct {
	snapshot        atomic.Pointer[Snapshot]
	clock           func() time.Time
	random          random
	maxBody         int64
	dev             bool
	devHash         KeyHash
	health          Health
	gate            func() *Denial
	judge           func(*Tenant, *Key) Judge
	estimate        func(*Question) (Estimate, *Denial)
	exact           func(*Question) Estimate
	accountants     []Accountant
	firstByte       time.Duration
	firstByteStream time.Duration
}

// New returns an engine that refuses everything until it is given a snapshot.
func New(o Options) *Engine {
	e := &Engine{
		clock:           o.Clock,
		random:          random{source: o.Random},
		maxBody:         cmp.Or(o.MaxBodyBytes, DefaultMaxBodyBytes),
		dev:             o.Dev,
		devHash:         HashKey(DevSecret),
		health:          o.Health,
		gate:            o.Gate,
		judge:           o.Judge,
		estimate:        o.Estimate,
		exact:           o.Exact,
		accountants:     o.Accountants,
		firstByte:       cmp.Or(o.FirstByte, DefaultFirstByte),
		firstByteStream: cmp.Or(o.FirstByteStream, DefaultFirstByteStream),
	}
	if e.clock == nil {
		e.clock = time.Now //nolint:forbidigo // the one place where the clock's default is named
	}
	if e.gate == nil {
		e.gate = func() *Denial { return nil }
	}
	if e.judge == nil {
		e.judge = func(*Tenant, *Key) Judge { return nil }
	}
	return e
}

// SetSnapshot makes the engine decide by s from now on. Exchanges that have begun end by the snapshot that they began with.
func (e *Engine) SetSnapshot(s *Snapshot) { e.snapshot.Store(s) }

// Ready reports whether the engine has a snapshot.
func (e *Engine) Ready() bool { return e.snapshot.Load() != nil }

// MaxBodyBytes returns the size of the largest request body that the engine admits.
func (e *Engine) MaxBodyBytes() int64 { return e.maxBody }

// newID makes a UUID of version 7 (RFC 9562, section 5.7): the time in milliseconds, then 74 random bits.
func (e *Engine) newID(now time.Time) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[0:], uint64(now.UnixMilli())<<16|e.random.uint64()&0x0FFF|0x7000)
	binary.BigEndian.PutUint64(id[8:], e.random.uint64()&(1<<62-1)|1<<63)
	return id
}
