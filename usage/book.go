// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"

	"github.com/google/uuid"
)

// ErrFenced says that the book's position of a log is not where the batch begins: another processor ships a copy of that log, or the
// database was rolled back, or an earlier Post succeeded although it returned an error. The shipper reads the position again.
var ErrFenced = errors.New("log position moved by another writer")

// Book is where records go. Calls come from one goroutine.
type Book interface {
	// Position returns up to where a log is in the book, in bytes; 0 for a log that the book does not know.
	Position(ctx context.Context, writer uuid.UUID) (int64, error)
	// Post writes the records and moves the log's position from b.From to b.To in one transaction; when the position is not b.From, it
	// writes nothing and returns an error that wraps [ErrFenced]. A batch without records moves the position all the same. After any
	// other error the shipper takes nothing for granted: it asks for the position. Post must not keep b.Records.
	Post(ctx context.Context, b Batch) error
}
