// SPDX-License-Identifier: Apache-2.0

// Package envoy makes Envoy's configuration from channels, serves it, and runs Envoy.
//
// [Resources] is a pure function from a [Gateway] and its [Channel]s to xDS resources; its output is golden-tested and checked
// by the real Envoy. [Server] serves those resources by ADS. [Bootstrap] is the little that Envoy must know before: where the
// processor is. [WriteTap] says whether an Envoy can have the native tap. [LogServer] takes the lines of Envoys that cannot write them to a disk of the processor. [Find] and [Run] bring Envoy itself.
//
// # What Envoy is told
//
//	listener ─ connection manager
//	    early header mutation   what a client may not say (x-weir-*, x-envoy-*, hop-by-hop) is gone before anything looks
//	    ext_proc                headers and the buffered body go to the processor, which decides and closes the stream
//	    tap                     native, or tap.lua: keeps the last usage object of a response, adds x-weir-exchange-id
//	    router                  priority_group: the first attempt goes to the first channel that the processor named, each
//	                            retry to the next; without the processor's word every request ends in an empty cluster
//	cluster per channel         DNS, TLS, pool; per attempt, what other channels' filters wrote is removed, its own credential from SDS is put
//	                            in, and upstream.lua sets path and model name
//	access log                  one JSON line per admitted exchange: the spool that package usage reads; written to a file, or sent
//
// # Envoy versions
//
// priority_group came with Envoy 1.40, which is therefore the oldest that [Find] accepts. The Envoys of a mesh may be older: [Lacks] says what [Resources] is to do
// without.
package envoy
