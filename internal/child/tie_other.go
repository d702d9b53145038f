// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package child

import "syscall"

func tie(*syscall.SysProcAttr, syscall.Signal) {}
