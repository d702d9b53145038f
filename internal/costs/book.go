// SPDX-License-Identifier: Apache-2.0

package costs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/usage"
)

// Source is where versions of the prices are kept.
type Source interface {
	// PriceVersion returns a version. The error wraps [prices.ErrUnknownVersion] if there is none.
	PriceVersion(ctx context.Context, id int64) (prices.Version, error)
	// PriceList returns the text of a list.
	PriceList(ctx context.Context, hash prices.Hash) (string, error)
}

// Options are what a [Book] needs.
type Options struct {
	Source Source
	Refuse bool         // requests for models without a price, of whoever they are
	Logger *slog.Logger // nil discards
}

// maxVersions is how many versions are held. What they have in common, their list, is there once.
const maxVersions = 256

// Book has the prices of the present, and those of the past that rows still rest on. Its methods may be called by many goroutines at once.
type Book struct {
	o       Options
	log     *slog.Logger
	current atomic.Pointer[version]            // nil: nothing has a price yet
	held    atomic.Pointer[map[int64]*version] // replaced as a whole
	lost    atomic.Int64

	mu    sync.Mutex // of those who change what is held
	lists map[prices.Hash]*prices.Table
}

// version is a version of the prices, ready for use.
type version struct {
	id    int64
	table *prices.Table
}

// NewBook returns a book in which nothing has a price until [Book.Set] was called.
func NewBook(o Options) *Book {
	b := &Book{o: o, log: o.Logger, lists: make(map[prices.Hash]*prices.Table)}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.held.Store(&map[int64]*version{})
	return b
}

// Version returns the version that is in force; zero if there is none.
func (b *Book) Version() int64 {
	if v := b.current.Load(); v != nil {
		return v.id
	}
	return 0
}

// Lost returns how often records of a batch were priced by other prices than those that their tickets name, because nobody has these any more: once for each version.
func (b *Book) Lost() int64 { return b.lost.Load() }

// Set puts a version in force. Its list is asked for if it is not the one of this program and not known from before. With an error the version before stays in
// force; one that wraps [ErrMalformed] will not go away by itself.
func (b *Book) Set(ctx context.Context, v prices.Version) error {
	if v.ID == 0 || v.ID == b.Version() {
		return nil
	}
	made, err := b.hold(ctx, v)
	if err != nil {
		return err
	}
	b.current.Store(made)
	return nil
}

// ErrMalformed is wrapped by the error for prices that this program cannot read, as when a later one has written them.
var ErrMalformed = errors.New("prices cannot be read")

// hold makes a version ready for use and keeps it.
func (b *Book) hold(ctx context.Context, v prices.Version) (*version, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, err := b.listLocked(ctx, v.List)
	if err != nil {
		return nil, err
	}
	table, err := v.Apply(list)
	if err != nil {
		return nil, fmt.Errorf("version %d: %w: %w", v.ID, ErrMalformed, err)
	}
	made := &version{v.ID, table}
	held := maps.Clone(*b.held.Load())
	held[v.ID] = made
	if len(held) > maxVersions {
		delete(held, slices.Min(slices.Collect(maps.Keys(held))))
	}
	b.held.Store(&held)
	return made, nil
}

// listLocked returns a list; the caller holds b.mu.
func (b *Book) listLocked(ctx context.Context, hash prices.Hash) (*prices.Table, error) {
	if list := b.lists[hash]; list != nil {
		return list, nil
	}
	if hash == prices.HashList(prices.EmbeddedList()) {
		b.lists[hash] = prices.Embedded()
		return b.lists[hash], nil
	}
	text, err := b.o.Source.PriceList(ctx, hash)
	if err != nil {
		return nil, err
	}
	list, err := prices.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("list %x: %w: %w", hash[:4], ErrMalformed, err)
	}
	b.lists[hash] = list
	return list, nil
}

// Price implements [usage.Pricer]. The prices of a version that nobody has any more are those in force.
func (b *Book) Price(ctx context.Context, records []usage.Record) error {
	var last *version
	var asked int64                // for last
	var instead map[int64]*version // of those that are lost
	for i := range records {
		r := &records[i]
		if !r.Priced() {
			continue
		}
		if asked != r.PriceVersion {
			asked = r.PriceVersion
			var known bool
			if last, known = instead[asked]; !known {
				var err error
				if last, err = b.version(ctx, asked); err != nil {
					return err
				}
			}
			if last == nil || last.id != asked { // nobody is asked for each of a thousand records
				if instead == nil {
					instead = make(map[int64]*version)
				}
				instead[asked] = last
			}
		}
		if last == nil {
			r.Cost = usage.Cost{}
			continue
		}
		r.Cost = last.cost(r)
	}
	return nil
}

// version returns a version, from the source if need be.
func (b *Book) version(ctx context.Context, id int64) (*version, error) {
	if v := (*b.held.Load())[id]; v != nil {
		return v, nil
	}
	v, err := b.o.Source.PriceVersion(ctx, id)
	if err == nil {
		var made *version
		if made, err = b.hold(ctx, v); err == nil {
			return made, nil
		}
	}
	if !errors.Is(err, prices.ErrUnknownVersion) && !errors.Is(err, ErrMalformed) {
		return nil, err
	}
	if b.lost.Add(1) == 1 {
		b.log.Error("exchanges rest on a version of the prices that is lost; those in force are taken", "price_version", id, "err", err)
	}
	return b.current.Load(), nil
}

// cost returns what a record costs.
func (v *version) cost(r *usage.Record) usage.Cost {
	if r.BilledInput == 0 && r.BilledOutput == 0 {
		return usage.Cost{PriceVersion: v.id}
	}
	price := v.table.Find(r.Model, r.UpstreamModel)
	if price == nil {
		return usage.Cost{}
	}
	cost, err := price.Cost(prices.Usage{
		Input: r.BilledInput, CachedInput: r.CachedInput, CacheWrite: r.CacheWrite, AudioInput: r.AudioInput, ImageInput: r.ImageInput,
		Output: r.BilledOutput, Reasoning: r.Reasoning, AudioOutput: r.AudioOutput, ImageOutput: r.ImageOutput,
	}, service(r.Service))
	if err != nil { // a negative number, which no parser lets through
		return usage.Cost{}
	}
	return usage.Cost{CostNanoUSD: min(cost, usage.MaxCost), PriceVersion: v.id}
}
