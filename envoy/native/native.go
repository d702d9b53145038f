// SPDX-License-Identifier: Apache-2.0

// Package native holds the tap as a dynamic module of Envoy: a small shared library, which Envoy loads and calls for each response.
//
// It is written in C, since users have no C compiler and need none: the libraries are embedded as they were built, by the pinned compiler that a
// package of PyPI ships. They use nothing of the machine but malloc, free, clock_gettime and getrandom of the C library that Envoy runs with. A test builds
// them anew and compares; "make native" takes over what it builds.
package native

import _ "embed"

// Envoy is the release of Envoy whose modules these are. The interface of modules may be another in the next.
const Envoy = "1.40"

var (
	//go:embed built/linux_amd64.so
	linuxAMD64 []byte
	//go:embed built/linux_arm64.so
	linuxARM64 []byte
)

// Module returns the module for a platform, named as Go names it, or nil where there is none.
func Module(goos, goarch string) []byte {
	switch goos + "/" + goarch {
	case "linux/amd64":
		return linuxAMD64
	case "linux/arm64":
		return linuxARM64
	}
	return nil
}
