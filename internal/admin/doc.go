// SPDX-License-Identifier: Apache-2.0

// Package admin is the REST API by which people and programs administer Weir, and the [Client] for it.
//
// The document of the API is openapi.yaml; tests hold it and the handlers together. Everything below /api/v1 wants the admin token.
// /livez, /readyz and /metrics are open, and say nothing about tenants, keys or channels.
//
//	request ─▶ headers ─▶ cross-origin check ─▶ token ─▶ route ─▶ handler ─▶ store
//	                └──────────────┴──────────────┴────────┴──────────┴─▶ application/problem+json
//
// A handler returns an error; one function turns it into a problem. Only errors of the store that are meant for operators, and those made
// here, are ever shown; any other is logged and answered with "internal error".
package admin
