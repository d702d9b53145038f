// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"os"
	"syscall"
)

// heldForWriting asks the kernel whether any process has the file open for writing: a read lease is given only if none has
// (https://man7.org/linux/man-pages/man2/F_SETLEASE.2const.html). It is given back at once. The file must belong to the user of this
// process, and its file system must know leases; else the answer is heldUnknown.
func heldForWriting(path string) held {
	f, err := os.Open(path)
	if err != nil {
		return heldUnknown
	}
	defer f.Close() //nolint:errcheck // what was read is read
	conn, err := f.SyscallConn()
	if err != nil {
		return heldUnknown
	}
	answer := heldUnknown
	err = conn.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETLEASE, syscall.F_RDLCK)
		switch {
		case errno == 0:
			answer = heldNo
			_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETLEASE, syscall.F_UNLCK) // closing gives it back too
		case errors.Is(errno, syscall.EAGAIN):
			answer = heldYes
		}
	})
	if err != nil {
		return heldUnknown
	}
	return answer
}
