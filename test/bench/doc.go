// SPDX-License-Identifier: Apache-2.0

// Bench measures what Weir costs against an Envoy that does nothing but forward, on one machine and in one go.
//
//	go run ./test/bench -quick
//
// Three gateways stand in front of one fake provider: "bare" is Envoy with a listener and a cluster; "continue" is the same Envoy
// with a processor that says "continue" to everything, which is what the round trips alone cost; "weir" is Weir as weir dev runs
// it, with a processor in a process of its own and a Postgres of its own. Each load goes to each of them in turn, round after
// round, since machines are noisy and ratios within a round are not.
//
// After each load on Weir the rows in the database must equal the provider's own count. The program exits with status 1 when they
// do not, or when a request failed. docs/benchmarks.md has the results, and says what they do not show.
package main
