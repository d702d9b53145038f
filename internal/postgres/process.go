// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
)

// process is a child in a process group of its own, so that Ctrl-C in a terminal reaches it only by way of us.
type process struct {
	cmd  *exec.Cmd
	stop atomic.Bool   // it was told to end
	done chan struct{} // closed when it has ended
	err  error         // of Wait; valid once done is closed
}

// run starts a command.
func run(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr.Setpgid = true
	endWithParent(cmd.SysProcAttr)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Linux counts the end of the thread that started the child as the death of the parent: the thread is kept until the
		// child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, <-started
}

func (p *process) signal(sig os.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended meanwhile
}

// kill ends the process and those of its children that are in its group.
func (p *process) kill() {
	select {
	case <-p.done: // its id may be somebody else's by now
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}
