// SPDX-License-Identifier: Apache-2.0

//go:build unix

package trial

import (
	"syscall"
	"time"
)

// cpuTime returns what processors have spent on this process.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
