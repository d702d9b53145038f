// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"testing"
	"testing/synctest"
	"time"
)

// wantCounts checks how many intents are open, and how many held.
func wantCounts(t *testing.T, j *Journal, open, held int) {
	t.Helper()
	if o, h := j.Open(), j.Held(); o != open || h != held {
		t.Errorf("%d are open and %d held, want %d and %d", o, h, open, held)
	}
}

func TestHeldIntentsComeBackWhenTheBooksForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := Options{fs: m, SegmentBytes: 500}
		j, _, err := Open("j", o)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 { // several segments
			if err := j.Append(intent(n)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(j.Hold(intent(0).Exchange, intent(1).Exchange, intent(1).Exchange, intent(99).Exchange)); n != 2 {
			t.Errorf("held %d", n)
		}
		for n := 2; n < 20; n++ {
			j.Settle(intent(n).Exchange)
		}
		wantCounts(t, j, 0, 2)
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
		if got := j.Quiet(time.Now(), 10); len(got) != 0 {
			t.Errorf("held intents are open: %v", got)
		}
		if j.Renew(intent(0).Exchange, time.Time{}) {
			t.Error("a held intent was renewed")
		}
		if n := j.Settle(intent(1).Exchange); n != 1 {
			t.Errorf("settled %d", n)
		}
		wantCounts(t, j, 0, 1)
		if n := j.Reopen(); n != 1 {
			t.Errorf("opened %d", n)
		}
		wantCounts(t, j, 1, 0)
		if got := j.Quiet(time.Now().Add(-time.Hour), 10); len(got) != 1 || got[0] != intent(0) {
			t.Errorf("got %v, want what was opened again, however long ago", got)
		}
		j.Hold(intent(0).Exchange)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}

		if j, _, err = Open("j", o); err != nil {
			t.Fatal(err)
		}
		wantCounts(t, j, 1, 0) // what was held is open for the next life
		j.Hold(intent(0).Exchange)
		held := time.Now()
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		if n := j.Release(held); n != 0 {
			t.Errorf("released %d before their time", n)
		}
		if n := j.Release(time.Now()); n != 1 {
			t.Errorf("released %d", n)
		}
		wantCounts(t, j, 0, 0)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
