// SPDX-License-Identifier: Apache-2.0

// Package host runs plugins: WebAssembly modules that speak weir/1 (plugins/ABI.md).
//
//	Host          one for a process: the runtime, the cache of compiled code, the helpers
//	  Plugin      one version of a module with one configuration: what is pushed, swapped and closed
//	    instance  one memory, used by one call at a time and by one tenant only
//
// [Host.Load] reads a module, puts meters in it, compiles it, starts and configures one instance, and takes an image of its memory and globals. From then on every call begins
// with that image: memory is mapped privately from it, and what a call wrote is dropped afterwards. An instance that cannot be put back that way is thrown away.
//
// [Plugin.Request] and [Plugin.Event] always return a [Result] with a verdict that can be acted on: what a failure means is the caller's [Mode]. A plugin that
// fails often is left alone for a while. Nothing that a plugin does ends the process, or holds it up for longer than a slice of fuel.
//
// A plugin may be used by any number of goroutines. The caller closes it when nothing refers to it any more; calls that are under way end first.
package host
