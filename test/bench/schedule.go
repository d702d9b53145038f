// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"
)

// arrivals says when the requests of an open loop are due, from its beginning: at random, as from many clients who do not know of
// each other (a Poisson process), and the same for every gateway of a round.
func arrivals(rate float64, duration time.Duration, round int) []time.Duration {
	random := rand.New(rand.NewPCG(uint64(round), 0)) //nolint:gosec // chance, not secrecy
	var out []time.Duration
	for at := 0.0; ; {
		at += random.ExpFloat64() / rate
		due := time.Duration(at * float64(time.Second))
		if due >= duration {
			return out
		}
		out = append(out, due)
	}
}
