// SPDX-License-Identifier: Apache-2.0

// Package layering holds the repository to its own rules by tests: what may import what, what every file begins with, how large things
// may grow, and that the documents name commands and files that exist. It has no code besides.
//
//	cmd/weir ─▶ internal/app, internal/cli
//	               │
//	               ▼
//	            envoy   extproc   usage   internal/store, internal/admin, …
//	               └───────┴────────┴──────────┘
//	                            ▼
//	                         policy ─▶ internal/jsonscan
//
// Dependencies point to policy, which knows nothing of Envoy, Postgres or WebAssembly. A rule that makes the code worse is changed in the
// same commit, with its reason.
package layering
