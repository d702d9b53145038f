// SPDX-License-Identifier: Apache-2.0

package usage

// held says whether some process has a file open for writing.
type held int

const (
	heldUnknown held = iota
	heldNo
	heldYes
)
