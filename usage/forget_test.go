// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"testing"
	"time"
)

func TestUnresolvedRowThatTheBookForgotIsWrittenAgain(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		rollBack := r.book.save()
		r.admit(1)
		r.admit(2)
		r.wait(6 * time.Minute)
		r.want(0, 1, 2)
		r.wait(20 * time.Minute)
		rollBack() // no log shows it: nothing was posted since
		r.want(0)
		r.wait(time.Minute)
		r.want(0, 1, 2)
		if got := r.journal.Held(); got != 2 {
			t.Errorf("%d intents are held, want 2", got)
		}
		r.wait(DefaultKeep + time.Minute)
		if got := r.journal.Held(); got != 0 {
			t.Errorf("%d intents are held when their time is over", got)
		}
		r.want(0, 1, 2)
	})
}

func TestUnresolvedRowThatTheBookForgotIsWrittenAgainByTheNextLife(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		rollBack := r.book.save()
		r.admit(1)
		r.wait(6 * time.Minute)
		r.want(0, 1)
		r.kill()
		rollBack()
		r.wait(6 * time.Minute)
		r.want(0, 1)
	})
}

func TestBookThatForgotIsNoticedBeforeMoreIsWritten(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		rollBack := r.book.save()
		r.admit(1)
		r.wait(time.Second)
		r.admit(2)
		r.wait(5*time.Minute - 500*time.Millisecond)
		r.want(1, 1)
		rollBack()
		r.wait(2 * time.Second) // less than between two checks
		r.want(0, 1, 2)
	})
}

func TestLineThatComesWhileTheRowIsHeldSettlesIt(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		rollBack := r.book.save()
		r.admit(1)
		r.wait(6 * time.Minute)
		r.write(lines(1, 2))
		r.wait(time.Second)
		if got := r.journal.Held(); got != 0 {
			t.Errorf("%d intents are held", got)
		}
		rollBack()
		r.wait(time.Minute)
		r.want(0)
		if got := r.book.exchanges()[admission(1).Exchange]; got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}
