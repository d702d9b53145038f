// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Magic numbers of file systems whose every change passes this kernel, so that it can tell of each: https://man7.org/linux/man-pages/man2/statfs.2.html. Not
// among them are those that another machine may write to, as NFS, and those that a virtual machine is lent by its host.
const (
	magicBtrfs   = 0x9123683e
	magicExt     = 0xef53
	magicF2FS    = 0xf2f52010
	magicOverlay = 0x794c7630
	magicTmpfs   = 0x01021994
	magicXFS     = 0x58465342
)

// stirs are the changes of a log or of the directory that matter.
const stirs = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO

// wakeup tells of changes in a directory, as the kernel does: https://man7.org/linux/man-pages/man7/inotify.7.html.
type wakeup struct {
	changed <-chan struct{} // receives after changes, once for many; until then they wait in the kernel
	file    *os.File
	stop    chan struct{}
	done    chan struct{}
}

// openWakeup begins to watch a directory. Without an error it still promises nothing: whoever relies on it must look by himself now and then.
func openWakeup(dir string) (*wakeup, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("watch directory: %w", err)
	}
	switch uint32(fs.Type) { //nolint:gosec // a magic number
	case magicBtrfs, magicExt, magicF2FS, magicOverlay, magicTmpfs, magicXFS:
	default:
		return nil, fmt.Errorf("watch directory: its file system is %#x", fs.Type)
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch directory: %w", os.NewSyscallError("inotify_init1", err))
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, stirs|syscall.IN_ONLYDIR); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("watch directory: %w", os.NewSyscallError("inotify_add_watch", err))
	}
	changed := make(chan struct{})
	w := &wakeup{changed: changed, file: os.NewFile(uintptr(fd), "inotify"), stop: make(chan struct{}), done: make(chan struct{})}
	go w.run(changed)
	return w, nil
}

// run waits for the kernel, and then for whoever listens.
func (w *wakeup) run(changed chan<- struct{}) {
	defer close(w.done)
	buf := make([]byte, 16*(unsafe.Sizeof(syscall.InotifyEvent{})+syscall.NAME_MAX+1))
	for {
		if _, err := w.file.Read(buf); err != nil {
			return // closed; or nothing more is told, which whoever listens finds out
		}
		select {
		case changed <- struct{}{}:
		case <-w.stop:
			return
		}
	}
}

// close ends the watch. A nil one has ended.
func (w *wakeup) close() error {
	if w == nil {
		return nil
	}
	close(w.stop)
	err := w.file.Close()
	<-w.done
	return err
}
