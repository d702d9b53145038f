// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package journal

// Sync is os.File.Sync, which on macOS goes as far as the disk.
func (f diskFile) Sync() error { return f.File.Sync() }
