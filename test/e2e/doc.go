// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the whole of Weir: real clients, a real Envoy, the real program, a real Postgres, and providers whose own ledger is the
// judge of what was served.
package e2e
