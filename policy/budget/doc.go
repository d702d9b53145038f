// SPDX-License-Identifier: Apache-2.0

// Package budget keeps what keys and tenants spend within their budgets, with any number of processors and without asking anybody while a
// request waits.
//
// # Escrow
//
// A processor, here a holder, leases a part of a budget before it needs it: from then on nobody else can spend that part. It admits a request only if
// the most that the request can cost fits into what it has leased; that much is reserved until the exchange has ended, then the cost takes its place.
// What is leased and not used goes back.
//
//	credit ──────────────────────────────────────────────────────────────────────────────────────
//	  free        │ lease of holder A: used │ reserved │ free │ lease of holder B: used │ reserved │ free
//
// So what is spent never exceeds the credit by more than the sum, over the exchanges in flight, of what they cost beyond their reservation: nothing, if
// reservations are upper bounds. That holds for any number of holders, whoever of them dies, and while the bank (the database) is away: a
// holder then goes on with what it has leased.
//
// # Parts
//
//	[Book]    a holder: what is leased, reserved and used. In memory; [Book.Reserve] is on the path of each request. It asks nobody, and waits
//	          only where what was leased is not enough and the bank has not said that there is no more: a bounded time, by a bounded number of requests
//	[Allot]   what the bank answers to a holder that asks for more, or gives back; the same for every bank
//	[Bank]    what keeps budgets and leases, and who writes what exchanges cost to the leases that they were reserved from
//	[Index]   which budgets apply to a key
//
// A Book starts no goroutine and reads no clock but the one it is given: whoever runs it calls [Book.Next], hands the asks to the bank and the
// answer to [Book.Granted]. A simulation does that with the same code in a time of its own.
//
// # Crashes
//
// A lease is not given back by a clock. It belongs to the identity of a journal, which outlives the process. The next life of the processor finds in
// the bank what it had leased, and in its journal which exchanges are still open; it counts everything as used until all logs are posted to
// their end, and then knows from the bank what was. If a journal is lost with its disk, its leases stay out until somebody releases them by hand.
//
// # A bank that is set back
//
// A database that is restored, or a standby that takes over and lags, forgets leases. A holder notices within a second or so, since the bank also forgot how
// often it was asked, and states what it holds; the bank restores that as far as it is still free. What others were granted of it in between can be spent
// twice, no more than that.
package budget
