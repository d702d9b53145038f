// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"time"
)

// restFactor is how many times as long as [Options.Poll] a [Shipper] rests when nothing is to be done and it will be told of changes.
const restFactor = 10

// pace says when a [Shipper] looks at its directory: each Poll, as long as something waits to be done. Otherwise, if the kernel tells of changes, it looks when
// there are some, and now and then all the same. If such a look finds something of which it is not told, the kernel is not relied on any more.
type pace struct {
	poll   time.Duration
	timer  *time.Timer
	wakeup *wakeup // nil: nobody tells
	rested bool    // until the look before, nothing was told of
	unsure bool    // but that look found something
}

// newPace returns the pace for the directory.
func (s *Shipper) newPace() *pace {
	p := &pace{poll: s.o.Poll, timer: time.NewTimer(0)}
	var err error
	if p.wakeup, err = s.watch(s.o.Dir); err != nil {
		s.log.Debug("usage logs are looked at again and again, for nobody tells of changes", "every", s.o.Poll, "err", err)
	}
	return p
}

// wait returns when the next look is due, or ctx ends. Found says whether the last one found anything new, rest for how long nothing is to be done unless
// something changes: not above zero if something waits to be done.
func (p *pace) wait(ctx context.Context, found bool, rest time.Duration) error {
	var changed <-chan struct{}
	if p.wakeup != nil {
		changed = p.wakeup.changed
	}
	var err error
	if p.unsure {
		select {
		case <-changed: // it was told, though after the look
		default:
			err = p.close()
			changed = nil
		}
	}
	if p.unsure = p.rested && found; p.unsure || rest <= 0 {
		changed = nil
	}
	if changed == nil {
		rest = p.poll
	}
	p.timer.Reset(min(rest, restFactor*p.poll))
	p.rested = false
	select {
	case <-ctx.Done():
	case <-changed:
	case <-p.timer.C:
		p.rested = changed != nil
	}
	return err
}

// close has nobody tell any more.
func (p *pace) close() error {
	w := p.wakeup
	p.wakeup = nil
	return w.close()
}

// rest returns for how long there is nothing to do, unless something changes in the directory: until a position is to be read again.
func (s *Shipper) rest(now time.Time) time.Duration {
	rest := restFactor * s.o.Poll
	if s.blind || now.Before(s.checking.at) {
		return 0
	}
	for _, f := range s.files {
		switch {
		case f.gone() || f.pending() || f.retry.failures > 0:
			return 0
		case f.idle:
		case f.lines.read() < f.info.Size():
			return 0
		default:
			rest = min(rest, f.audit.at.Add(s.o.CheckInterval).Sub(now))
		}
	}
	return rest
}
