// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
)

func TestShippingIsNoFailureBeforeTheDatabaseWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife()
		said := make(chan error, 1)
		ask := func() {
			_, err := book{life: l}.Position(t.Context(), uuid.Nil)
			said <- err
		}
		go ask()
		synctest.Wait()
		select {
		case err := <-said:
			t.Fatalf("a start fails with %v while the database is being prepared", err)
		default:
		}
		l.despair()
		if err := <-said; !errors.Is(err, errNotConnected) {
			t.Errorf("without a database: got %v", err)
		}
		if ask(); !errors.Is(<-said, errNotConnected) {
			t.Error("it is waited for twice")
		}
	})
}
