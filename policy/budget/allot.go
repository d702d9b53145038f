// SPDX-License-Identifier: Apache-2.0

package budget

import "github.com/weir-proxy/weir/policy"

// Ask is what a holder asks of one account, in nano-dollars. It says what the holder wants to have in the end, not a change; so it may be asked twice.
type Ask struct {
	policy.Account

	// Floor is what the holder counts on having been granted. It may be less than the bank knows of, if it gives something back: then it has stopped
	// counting on the rest before it asks. If the bank knows of less, it has forgotten.
	Floor int64
	Keep  int64 // used and reserved: what cannot be given back; may be above Floor if exchanges cost more than was reserved
	Need  int64 // what must be free beyond Keep, for a request that was refused; zero: nothing was
	Want  int64 // what should be free beyond Keep
}

// State is an account as the bank has it when it is asked.
type State struct {
	Credit  int64 // what may be spent in this period: the amount and what was topped up
	Spent   int64 // by exchanges that have a row
	Charged int64 // to all leases: of each the larger of what was granted and what was spent
	Holders int   // whose leases are larger than what was spent, or who asked within the last minute; this one among them
}

// Lease is what a holder has of an account, as the bank has it.
type Lease struct {
	policy.Account
	Granted int64
	Spent   int64 // what the exchanges cost that were reserved from it and have a row
}

// Verdict is what becomes of a lease.
type Verdict struct {
	Granted   int64 // from now on
	Short     bool  // there was less than the holder needs
	Forgotten bool  // the bank knew of less than the holder counts on
}

// Allot decides on an ask. It never makes the sum over all leases exceed the credit, nor a lease that is larger than it was if they exceed it already.
//
// A holder gets what it wants, but at once no more than a part of what is free, and a smaller one the more holders there are: so chunks shrink towards the end
// of a budget, and its last cents can be spent by whoever can use them. It gets what it needs as long as there is so much.
func Allot(s State, l Lease, a Ask) Verdict {
	charge := max(l.Granted, l.Spent)
	free := max(minus(s.Credit, s.Charged), 0)
	limit := plus(charge, free)
	if l.Granted < a.Floor {
		return Verdict{Granted: max(min(a.Floor, limit), l.Granted), Forgotten: true}
	}
	keep := max(a.Keep, l.Spent)
	if a.Need > 0 && plus(keep, a.Need) > limit {
		return Verdict{Granted: a.Floor, Short: true} // what it has left is of no use to it
	}
	ideal := plus(keep, max(a.Want, a.Need))
	if ideal <= l.Granted {
		return Verdict{Granted: max(ideal, a.Floor)}
	}
	part := free / int64(2*max(s.Holders, 1))
	granted := max(plus(keep, a.Need), min(ideal, plus(charge, part)))
	return Verdict{Granted: max(min(granted, limit), l.Granted)}
}
