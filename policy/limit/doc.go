// SPDX-License-Identifier: Apache-2.0

// Package limit holds keys, tenants and models to rates: requests and tokens in a minute, and exchanges at once, with any number of
// replicas. It is pure: no Postgres, no clock but the one that it is given, and on a request's path no waiting but for a lock.
//
// # One limit
//
// A [Limit] has a bucket for each thing that it limits. A bucket fills steadily, at the limit's rate, up to its burst, which is what falls due in [Rates].Burst; an
// exchange takes from it what it is thought to use, and is refused if that is not there. So there are no windows whose edges could be used twice: in
// any minute no more is admitted than limit + burst. What an exchange is thought to use is corrected by what it did use ([Limiter.Settle]), so that a bucket may
// be in debt. A request that is larger than the burst is let through when the bucket is full, and the debt is paid off before the next.
//
// # Many replicas
//
// Each of R replicas has 1/R of every bucket: of its rate, its burst and its exchanges at once. For a limit that nobody uses up that is all: nothing is said about it,
// and there may be millions. A replica that runs short of one puts a claim on the [Board]: what it wants, and the share that it holds. The others
// see that in their next round and put up claims of their own, lowered to what they want; then the first may take more, up to the whole.
//
//	held by its claim:   any share        for Lease after the round in which it was written
//	its equal part:      1/R              of a bucket without a claim; and once a claim is too old:
//	                                      a larger share ends after Lease, a smaller one grows after 2 × Lease
//	nothing                               a replica that joins, until the others have made room for it: a round or two
//
// A share is lowered before the round is written, and raised once it has been: a round of which nobody knows whether it was written does no harm. What is in
// a bucket above the burst of a lowered share goes to a pot, from which those take who raise theirs, so that demand may move about without loss.
//
// # What holds
//
// With shares s(i) of the replicas and burst b, at any time Σ s(i) ≤ 1. In any window w the replicas admit at most
//
//	rate × w + b + one request for each replica (in tokens: the largest one)
//	             + b/R for each restart within w, since what a bucket held is not on the disk
//	             + what exchanges in flight use beyond what they were thought to
//
// also while some are cut off from the board. Who is cut off for [Lease] goes on with its equal part, for as long as it takes, as all do when the board is
// down. After [Gone] the others take that part too, since it looks dead: from then on the sum may be 1/R too much for each that is not. With [Options].Strict it
// stops then instead.
//
// Exchanges at once are counted exactly, from admission until [Limiter.Release] or [Limiter.Settle], and at most max(limit, R) of them: no replica
// has less than one.
package limit
