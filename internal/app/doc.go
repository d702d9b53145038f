// SPDX-License-Identifier: Apache-2.0

// Package app puts Weir's parts together into processes.
//
//	Serve   the processor: decides for Envoy, configures it, ships usage, answers the admin API
//	Envoy   one Envoy that is configured by a processor
//	Dev     both of them, a Postgres and a provider, on one machine, for trying out
//
// All of them run until their context ends, and have undone what they did when they return.
package app
