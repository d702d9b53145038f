// SPDX-License-Identifier: Apache-2.0

// Package meter rewrites a WebAssembly module so that it counts what it does and stops when it may do no more.
//
// A WebAssembly engine that compiles to machine code runs a guest until it returns: nothing in Go can interrupt it, and the garbage collector waits for
// it. [Instrument] therefore puts the counting into the guest. It reads the module with a decoder of its own, refuses whatever it does not know, and
// writes every part anew, so that the engine sees only what was understood here.
//
// # Fuel
//
// An exported global of the module holds fuel. Each basic block (a run of instructions that is entered only at its top and left only at its end) takes the
// cost of its instructions from it when it is entered. An instruction costs about 1; opcodes.go has the list. What works on a length (memory.copy and its like,
// memory.grow) costs more the longer that is. So the fuel that a call takes depends on the module, its memory and its arguments, and on nothing else: not
// on the machine, its load, or in how many slices the fuel was given.
//
// Where the cost of a path could add up (at the entry of functions, at each round of a loop, when a call returns) the module looks whether
// the fuel has gone below zero, and then calls the import [ImportModule].[ImportRefuel] with the balance (what it was given less what it used). What that
// returns is the new balance; a host that has no more to give does not return (it panics). It looks after each memory.grow too: what a host gives may depend on how much memory there is to touch.
//
// # Stack
//
// The engine's own limit on the stack of a guest is hundreds of megabytes. A second global holds how many 8-byte words of stack are left, by an upper estimate
// of each function's frame. At less than none the module calls the import with [StackExhausted].
//
// # Bulk instructions
//
// memory.copy and memory.fill of more than 64 KiB are done in pieces, with a look at the fuel between them; they still trap before they write when they reach out of the memory.
//
// # State
//
// Every mutable global is exported, so that a host can put it back; [Module.Obstacle] says whether a module changes what a host cannot put back (its tables). The start
// function becomes an export ([ExportStart]), to be called by the host when it is ready.
package meter
