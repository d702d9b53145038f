// SPDX-License-Identifier: Apache-2.0

package store

import "context"

// Actor is who changes something, for the audit.
type Actor struct {
	Name    string // as the admin API knows it
	Address string // where the request came from; empty: from this process
}

type actorKey struct{}

// WithActor returns a context whose changes are somebody's. Without one they are this process's.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// setActor is what a transaction says of itself. The settings end with it.
const setActor = `set_config('weir.actor', $1, true), set_config('weir.address', $2, true)`

func actorOf(ctx context.Context) string {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return text(a.Name)
	}
	return "weir"
}

func addressOf(ctx context.Context) string {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return text(a.Address)
}
