// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// ErrFenced says that another process has joined with the same identity since: this one must not count on its leases any more.
var ErrFenced = errors.New("another processor has taken over the leases of this one")

// Bank keeps budgets and leases. Calls for one holder come one after another.
//
// What an exchange costs is written to the leases that its [policy.Charges] name by whoever writes its row, in the same transaction; before its end is told to
// the holder. A row that is replaced, or forgotten, takes its cost along.
type Bank interface {
	// Join begins a life of a holder, and returns what the bank has of earlier ones. Whoever joined before as the same holder is fenced.
	Join(ctx context.Context, holder uuid.UUID) (Joined, error)
	// Sync answers asks, each by [Allot], all of them or none. It may have succeeded although it returns an error; then it is as good to ask again. An
	// error that wraps [ErrFenced] is final.
	Sync(ctx context.Context, r Request) (Reply, error)
}

// Joined is what a holder finds when it joins.
type Joined struct {
	Epoch  int64 // of this life
	Count  int64 // of the last reply, in whichever life
	Leases []Lease
}

// Request is what a holder asks.
type Request struct {
	Holder uuid.UUID
	Epoch  int64 // as Join returned it
	Count  int64 // of the last reply, or of Joined before the first
	Asks   []Ask // of different accounts, in the order of their budgets and periods
	More   bool  // there may be more to ask at once: the bank need not know
}

// Reply is the answer to a request.
type Reply struct {
	Count int64 // grows with each answer, unless the bank was set back
	// SetBack says that the bank does not know of the reply with the count of the request.
	SetBack bool
	Grants  []Grant          // as many as there were asks, in their order
	Wanted  []policy.Account // of which this holder has a lease, and another needs more than there is
}

// Grant is the answer to an ask.
type Grant struct {
	Verdict
	Credit int64
	Spent  int64 // of the credit, by exchanges that have a row
	Lease  int64 // of this lease, by exchanges that have a row
	Gone   bool  // the budget was deleted: nothing is granted any more, and nothing has to be kept
}
