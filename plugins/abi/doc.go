// SPDX-License-Identifier: Apache-2.0

// Package abi is the host's side of weir/1, the interface between the gateway and a plugin: it writes what a plugin is given ([Exchange], [Event]) and reads what it
// answers ([Verdict]). plugins/ABI.md is its specification.
//
// What comes from a plugin is hostile until [ReadVerdict] has taken it: lengths, positions, names and numbers are checked there, and [Verdict.Check] holds the rest against
// what the plugin was given.
package abi
