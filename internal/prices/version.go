// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"crypto/sha256"
	"errors"
)

// Hash tells lists apart: the SHA-256 of a list's text.
type Hash [sha256.Size]byte

// HashList returns the hash of the text of a list.
func HashList(list string) Hash { return sha256.Sum256([]byte(list)) }

// Version is what was asked for tokens at some time: a list, and prices of an operator's own that go before it.
type Version struct {
	ID   int64 // grows; zero: no list is known yet
	List Hash
	Own  []Row // as [FromRows] takes them
}

// ErrUnknownVersion is wrapped by the error of whoever keeps versions, for one that was never there or is lost.
var ErrUnknownVersion = errors.New("no such version of the prices")

// Apply returns the table of a version, made of that of its list.
func (v *Version) Apply(list *Table) (*Table, error) {
	own, err := FromRows(v.Own)
	if err != nil {
		return nil, err
	}
	return list.With(Own, own)
}

// Own is the Version of prices that are not of a list.
const Own = "own"
