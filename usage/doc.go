// SPDX-License-Identifier: Apache-2.0

// Package usage turns what Envoy writes to its access log into usage records, and ships those to the books.
//
//	Envoy ──▶ exchanges.jsonl ──▶ Shipper ──▶ Book (Postgres)
//	          one Line each       Line + policy.Ticket ──▶ Record, in Batches
//
// The log is the spool: a line alone is enough to write the row of an exchange, and the book keeps the offset up to which each log has been
// posted in the same transaction as the rows. So a row is written once, whatever dies when; see [Shipper].
//
// The log of an Envoy on another machine, which sends its lines, is written by an [Appender].
//
// [Spool] rotates the logs, deletes those that the book has had for long enough, and closes a [Gate] to new requests before there is no room
// for their lines.
package usage
