// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Options say what a [Host] works with.
type Options struct {
	CacheDir string           // of compiled code, kept between processes; empty: none is kept
	Logger   *slog.Logger     // for what plugins log and for their failures; nil: nothing is logged
	Clock    func() time.Time // nil: the system's
	Counters Counters         // behind the helper count; nil: [NewCounters], in the memory of this process
}

// Host compiles and runs plugins. It is safe for concurrent use.
type Host struct {
	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	logger   *slog.Logger
	clock    func() time.Time
	counters Counters

	compiling chan struct{} // holds one: compiling takes all of a core and hundreds of MB
}

// New returns a host without plugins. The caller closes it.
func New(ctx context.Context, o Options) (*Host, error) {
	h := &Host{logger: o.Logger, clock: o.Clock, counters: o.Counters, compiling: make(chan struct{}, 1)}
	if h.logger == nil {
		h.logger = slog.New(slog.DiscardHandler)
	}
	if h.clock == nil {
		h.clock = time.Now
	}
	if h.counters == nil {
		h.counters = NewCounters()
	}
	h.cache = wazero.NewCompilationCache()
	if o.CacheDir != "" {
		c, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open the cache of compiled plugins: %w", err)
		}
		h.cache = c
	}
	// No CloseOnContextDone: the meters end what takes too long, at a tenth of the cost.
	h.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).WithCompilationCache(h.cache).WithDebugInfoEnabled(false))
	if err := h.offer(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	return h, nil
}

// Close frees everything, plugins included. None may be in use.
func (h *Host) Close(ctx context.Context) error {
	return errors.Join(h.runtime.Close(ctx), h.cache.Close(ctx))
}

// Limits bound what a plugin may use. A zero means the default that stands beside it.
type Limits struct {
	ModuleBytes int           // 16 MiB
	MemoryBytes int64         // 32 MiB, in steps of 64 KiB, at least one
	StackWords  int64         // of 8 bytes; 262,144
	Fuel        int64         // of a call; 20,000,000
	FuelPerByte int64         // of input, besides; 500
	FuelToStart int64         // for the start function, _initialize and weir_configure together; 2,000,000,000
	Time        time.Duration // of a call, waiting for an instance included; 250 ms: fuel ends what does too much, and this only what the machine is too slow for
	TimeToStart time.Duration // 10 s
	AnswerBytes uint32        // 1 MiB
	LogBytes    int           // of a call; 8 KiB
	LogLines    int           // of a call; 64
	Concurrency int           // calls at a time; all processors but one
	Idle        int           // instances that wait for calls, of all tenants together; 64
}

func (l Limits) withDefaults() Limits {
	set(&l.ModuleBytes, 16<<20)
	set(&l.MemoryBytes, 32<<20)
	set(&l.StackWords, 1<<18)
	set(&l.Fuel, 20_000_000)
	set(&l.FuelPerByte, 500)
	set(&l.FuelToStart, 2_000_000_000)
	set(&l.Time, 250*time.Millisecond)
	set(&l.TimeToStart, 10*time.Second)
	set(&l.AnswerBytes, 1<<20)
	set(&l.LogBytes, 8<<10)
	set(&l.LogLines, 64)
	set(&l.Idle, 64)
	set(&l.Concurrency, max(1, runtime.GOMAXPROCS(0)-1))
	return l
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Capability is the right to use helpers: plugins/ABI.md, section 7.
type Capability string

// Capabilities that an operator may grant.
const (
	Log      Capability = "log"
	Clock    Capability = "clock"
	Regexp   Capability = "regexp"
	PII      Capability = "pii"
	JSON     Capability = "json"
	Counting Capability = "counters"
	Tokens   Capability = "tokens"
)

// Capabilities returns all that there are.
func Capabilities() []Capability {
	return []Capability{Log, Clock, Regexp, PII, JSON, Counting, Tokens}
}
