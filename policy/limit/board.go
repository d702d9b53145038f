// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// How long things hold. Both sides count by their own clocks, of which only the speed matters: a replica counts a tenth less than the board where it would have to stop,
// and a tenth more where it may go on.
const (
	// Lease is how long a claim counts after it was written.
	Lease = 5 * time.Second
	// Gone is after how long a replica that is not heard of is taken for dead, and its part given to the others.
	Gone = 30 * time.Second
	// Interval is how often a replica should go to the board while there are claims, or limits at all.
	Interval = 500 * time.Millisecond
)

// mine is how long something holds for who has it, so that it is over when others believe so.
func mine(d time.Duration) time.Duration { return d - d/10 }

// lent is how long what was given to others is theirs: they may have based a claim on it until it was a [Lease] old, and that counts for a Lease.
const lent = 2*Lease + 2*Lease/10

// Board is where replicas tell each other what they hold. Ages are by its own clock.
type Board interface {
	// Meet shows what is on the board to decide, writes what that returns, and stamps it with the board's time, all of it in one step: no other replica sees the board
	// or writes to it in between. After an error it may have been written or not. Decide is called at most once.
	Meet(ctx context.Context, replica uuid.UUID, decide func(*State) *Notice) error
}

// State is what is on the board, but for what has been cut off.
type State struct {
	// Awake is how long replicas have come to the board without a pause longer than [Lease]. Who was not heard of while nobody was is not dead for that.
	Awake   time.Duration
	Members []Member
	Claims  []Claim
	Pots    []Pot
}

// Member is a replica.
type Member struct {
	Replica uuid.UUID
	Part    float64       // of every bucket that it has no claim on
	Age     time.Duration // since it was heard of
}

// Claim is what a replica holds of a bucket, and wants of it.
type Claim struct {
	Replica uuid.UUID
	Bucket
	Share, Want float64    // of the limit
	Level       [4]float64 // what is in the bucket: of requests, input, output and all tokens
	Age         time.Duration
}

// Pot holds what there was no room for where it fell due, in the order of Level.
type Pot struct {
	Bucket
	Tokens [4]float64
	Age    time.Duration
}

// Notice is what a replica writes. It takes the place of all that it has written before, but for pots.
type Notice struct {
	Part   float64
	Claims []Claim     // of its own
	Pots   []Pot       // what becomes of these
	Gone   []uuid.UUID // replicas that are taken for dead, and go with their claims
}
