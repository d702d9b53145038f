// SPDX-License-Identifier: Apache-2.0

// Package chain asks the plugins of an exchange, one after the other: those of everybody, then those of the tenant, then those of the key, each in the
// order of its place.
//
// Each plugin sees what the one before has left. So the outcome depends on the order alone, and needs no rule for edits that collide. What one
// denies, no later one sees. A chain is fixed when its exchange begins: [Table.Judge] takes it from a table that is replaced as a whole.
package chain
