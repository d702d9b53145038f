// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/extproc"
)

// TestBeatEndsARest: whoever rests is woken by the first beat and no other, and rests only if there was none since it was asked.
func TestBeatEndsARest(t *testing.T) {
	p := newPulse()
	p.beat()
	if p.rest() {
		t.Error("it rests although a beat was not felt yet")
	}
	if !p.felt() || p.felt() {
		t.Error("a beat is to be felt once")
	}
	p.beat()
	if p.rest() {
		t.Error("it rests although there was a beat")
	}
	p.felt()
	if !p.rest() {
		t.Fatal("it does not rest")
	}
	for range 3 {
		p.beat()
	}
	<-p.wake
	if len(p.wake) > 0 || !p.felt() {
		t.Error("the first beat is to wake, and no other")
	}
	if n := testing.AllocsPerRun(100, p.beat); n > 0 {
		t.Errorf("a beat takes %v allocations", n)
	}
}

// TestSheddingRestsWhileNobodyComes: the share is not worked out ten times a second for nobody, and yet Envoy is told in time.
func TestSheddingRestsWhileNobodyComes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &processor{log: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
		p.cfg.Processor.Socket = filepath.Join(dir, "weir.sock")
		p.edge.shedder, p.edge.pulse = extproc.NewShedder(time.Millisecond), newPulse()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.shed(ctx)
		resting := func() bool {
			synctest.Wait()
			return p.edge.pulse.state.Load() == pulseRest
		}
		for range 3 {
			time.Sleep((shedRest + 2) * shedInterval) //nolint:forbidigo // the time of a synctest bubble
			if !resting() {
				t.Fatal("it does not rest when nobody has come for long")
			}
			time.Sleep(time.Hour) //nolint:forbidigo // as above
			p.edge.pulse.beat()
			time.Sleep(10 * shedInterval) //nolint:forbidigo // as above
			if resting() {
				t.Fatal("it rests when somebody has just come")
			}
		}
		time.Sleep((shedRest + 2) * shedInterval) //nolint:forbidigo // as above
		if !resting() {
			t.Fatal("it does not rest")
		}
		share := func() float64 {
			b, err := os.ReadFile(envoy.SharePath(p.cfg.Processor.Socket))
			if err != nil {
				t.Fatal(err)
			}
			f, err := strconv.ParseFloat(string(b), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if got := share(); got != 0 {
			t.Errorf("Envoy is to refuse %v while nobody comes", got)
		}
		for range 20 * 100 { // two seconds in which everybody waits
			p.edge.pulse.beat()
			now := time.Now()
			p.edge.shedder.Refuse(strconv.FormatInt(now.Add(-time.Second).UnixMicro(), 10), now)
			time.Sleep(time.Millisecond) //nolint:forbidigo // as above
		}
		synctest.Wait()
		if share() == 0 {
			t.Error("Envoy was told nothing after a rest")
		}
	})
}
