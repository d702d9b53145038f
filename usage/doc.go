// SPDX-License-Identifier: Apache-2.0

// Package usage turns what Envoy writes to its access log into usage records, and ships those to the books.
package usage
