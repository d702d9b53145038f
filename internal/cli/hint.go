// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"net"
	"syscall"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
)

// hinted is an error that knows what to do about it.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// adviser is an error of a program, such as "weir serve", that says what to do about it.
type adviser interface {
	error
	Hint() string
}

// hintOf returns what to do about an error: what whoever met it knows, else what its cause alone says.
func hintOf(err error) string {
	if e, ok := errors.AsType[*hinted](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[adviser](err); ok {
		return e.Hint()
	}
	if e, ok := errors.AsType[*admin.Problem](err); ok {
		if e.Hint == admin.HintDocument {
			return "" // whoever is at a command line reads its help
		}
		return e.Hint
	}
	if e, ok := errors.AsType[*admin.Unreachable](err); ok {
		return e.Hint
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return "deploy/weir.yaml describes every key"
	}
	return machineHint(err)
}

// machineHint returns what to do about what the machine refuses, whoever asked it.
func machineHint(err error) string {
	socket, ofNet := errors.AsType[*net.OpError](err)
	file, ofFile := errors.AsType[*fs.PathError](err)
	denied := errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there, and ss -ltnp names it: stop it, or choose another address"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address: ip address lists those it has"
	case ofNet && socket.Op == "listen" && denied:
		return "a port below 1024 needs the capability CAP_NET_BIND_SERVICE: grant it, or choose another port"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "the disk is full, and df -h says which: make room there"
	case errors.Is(err, syscall.EROFS):
		return "the file system can only be read: choose a folder on another, or mount it so that it can be written to"
	case ofFile && denied:
		return "the user that runs this must have the right to use " + file.Path
	}
	return ""
}
