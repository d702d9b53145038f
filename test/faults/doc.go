// SPDX-License-Identifier: Apache-2.0

// Package faults holds the books of a whole gateway to what the provider counted, while everything around them breaks.
//
// A run has rounds. In each, clients send all kinds of requests through a real Envoy and a real processor to fake providers, some of
// which cut their answers, and some clients leave at any byte; meanwhile faults are injected at random moments: processes are killed,
// Postgres is stopped, frozen, killed, rolled back to a base backup, its commits are cut off before or after they count, the disk of the logs
// is full, the processor's clock is set, or comes to the end of a day or a month. Then the load ends, everything is healed, and the judge
// waits until the logs are shipped and compares, exchange by exchange:
//
//	one admitted exchange is one row      every exchange that a provider saw has one row; no row is of an exchange that nobody knows
//	a row is exact, or says so            tokens equal to the provider's count, or marked as estimated where nothing else was possible
//	unresolved is what cannot be known    only exchanges that an Envoy died with, or that ended in its last flush interval, or on a full disk
//	nothing changes afterwards            rows of earlier rounds are as they were
//	sums are sums                         the rows add up to weir.usage_hourly and to weir.balance, in every column
//	everything is read                    weir.writer is at the end of every log
//
// All choices come from one seed, which is printed: what is sent, which faults, when and for how long. Two runs of one seed make the same
// choices; what the scheduler makes of them differs.
//
// Everything listens on 127.0.0.1 and is gone with the test; a run that failed keeps its state folder and says where it is.
package faults
