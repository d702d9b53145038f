// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// childDir in the environment makes this test's program a process that works on the journal there until it is killed.
const childDir = "WEIR_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir, Durability(os.Getenv(childDir+"_DURABILITY"))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// What a child tells of an intent: a byte, and the number in 8.
const (
	begun    = 'b' // it is going to be appended
	appended = 'a' // Append has returned
	leaving  = 'l' // it is going to be settled
	left     = 's' // Settle has returned
)

// child appends and settles intents, and says so, each time by one write.
func child(dir string, d Durability) error {
	j, _, err := Open(dir, Options{Durability: d, SegmentBytes: 64 << 10})
	if err != nil {
		return err
	}
	say := func(what byte, n int) {
		b := binary.BigEndian.AppendUint64([]byte{what}, uint64(n))
		_, _ = os.Stdout.Write(b) // when the parent is gone, so is the test
	}
	first := rand.IntN(1<<40) << 8
	for w := range 4 {
		go func() {
			for n := first + w; ; n += 4 {
				say(begun, n)
				if j.Append(intent(n)) == nil {
					say(appended, n)
				}
				if n%3 == 0 {
					say(leaving, n)
					j.Settle(intent(n).Exchange)
					say(left, n)
				}
			}
		}()
	}
	select {}
}

// told is what is known of the intents of children.
type told struct{ may, must map[int]bool }

func (k *told) listen(r io.Reader, started func()) {
	var b [9]byte
	once := sync.OnceFunc(started)
	for in := bufio.NewReader(r); ; {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return
		}
		once()
		n := int(binary.BigEndian.Uint64(b[1:]))
		switch b[0] {
		case begun:
			k.may[n] = true
		case appended:
			k.must[n] = true
		case leaving:
			delete(k.must, n)
		case left:
			delete(k.may, n)
		}
	}
}

func TestNoAcknowledgedIntentIsLostBySIGKILL(t *testing.T) {
	for _, d := range []Durability{Async, Fsync} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			known := told{map[int]bool{}, map[int]bool{}}
			for range 10 {
				known.round(t, dir, d)
			}
			t.Logf("%d intents were to be found", len(known.must))
		})
	}
}

// round runs a child for a moment, kills it, and looks at what it left.
func (k *told) round(t *testing.T, dir string, d Durability) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childDir+"_DURABILITY="+string(d))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.listen(out, func() {
		time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	})
	_ = cmd.Wait() // it was killed
	j, r, err := Open(dir, Options{})
	if err != nil || len(r.Damage) > 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	got := all(j)
	mustClose(t, j)
	for n, in := range got {
		if in != intent(n) || !k.may[n] {
			t.Errorf("intent %d is open, and was settled or never was: %+v", n, in)
		}
	}
	for n := range k.must {
		if _, is := got[n]; !is {
			t.Errorf("intent %d is lost", n)
		}
	}
	clear(k.may)
	clear(k.must)
	for n := range got {
		k.may[n], k.must[n] = true, true
	}
}
