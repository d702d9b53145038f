// SPDX-License-Identifier: Apache-2.0

// Package sdk holds the sources of the SDKs, so that a new plugin gets a copy of the one that its gateway was built with, and needs nothing from
// elsewhere.
package sdk

import "embed"

// Sources are go/*.go, rust/Cargo.toml with rust/src, and assemblyscript/weir.ts.
//
//go:embed go/*.go rust/Cargo.toml rust/src/*.rs assemblyscript/*.ts
var Sources embed.FS
