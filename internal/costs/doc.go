// SPDX-License-Identifier: Apache-2.0

// Package costs says what a request may cost before it is sent, and what an exchange did cost when it has ended: it applies internal/prices to what internal/tokens
// counts and to what providers report.
//
// # Which price
//
// That of the model as the client asked for it, whichever channel takes it: who sells one thing asks one price. Only if that name has no price does the name count
// by which the channel knows the model, so that an alias costs what stands behind it. Last come an operator's patterns, in the same order.
//
// It is the price that was in force when the exchange was admitted, whichever processor reads of its end: the ticket carries the version. A processor reads a version
// that it does not hold from the database before it writes a row; requests never wait for that.
//
// # What is charged
//
// The billed tokens of a record (policy.Partial): what the provider counted, or as much of an estimate as the channel says. An exchange that ended in an error has
// no tokens and costs nothing. The service, standard, flex or priority, is the one that was asked for.
//
// # What is unknown
//
// An exchange whose model has no price has no cost, which is not zero: its row says so. Whoever has a budget may not ask for such a model; others may, unless the
// operator says that nobody may. A price for the pattern "*" is for every model without another.
package costs
