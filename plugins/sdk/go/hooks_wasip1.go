// SPDX-License-Identifier: Apache-2.0

package weir

import "unsafe"

//go:wasmexport weir_abi_1
func version() {}

// input is where the host writes. It is kept here so that the collector does not take it.
var input []byte

//go:wasmexport weir_alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return address(input)
}

// output is what the host reads.
var output []byte

func answer(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	output = b
	return uint64(address(b))<<32 | uint64(len(b))
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// given by the host: what it wrote to the input.
func received(length uint32) []byte {
	if length == 0 {
		return nil
	}
	return input[:length:length]
}

// Configure is what weir_configure does: f returns an error with a sentence that says what is wrong.
func Configure(_, length uint32, f func(config []byte) error) uint64 {
	if err := f(received(length)); err != nil {
		return answer([]byte(err.Error()))
	}
	return 0
}

// Request is what weir_request does.
func Request(_, length uint32, f func(x *Exchange) *Verdict) uint64 {
	return answer(f(NewExchange(received(length))).b)
}

// EventHook is what weir_event does.
func EventHook(_, length uint32, f func(e *Event) *Verdict) uint64 {
	return answer(f(NewEvent(received(length))).b)
}
