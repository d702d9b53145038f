// SPDX-License-Identifier: Apache-2.0

// Package version says which Weir this is.
package version

import "runtime/debug"

// linked is set by the release build: -ldflags "-X github.com/weir-proxy/weir/internal/version.linked=v1.2.3".
var linked string

// String returns the released version, or what the Go toolchain knows of the source, or "dev".
func String() string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
