// SPDX-License-Identifier: Apache-2.0

// Package sdk holds the sources of the SDKs, so that a new plugin gets a copy of the one that its gateway was built with, and needs nothing from
// elsewhere.
package sdk

import "embed"

// Sources are go/*.go, and rust/Cargo.toml with rust/src.
//
//go:embed go/*.go rust/Cargo.toml rust/src/*.rs
var Sources embed.FS
