// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package postgres

import (
	"errors"
	"syscall"
)

// serves reports whether the process may run a server on the data folder: whether it lives.
func serves(pid int, _ string) (bool, error) {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM), nil
}
