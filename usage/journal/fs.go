// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// ErrLocked says that another process has the journal open.
var ErrLocked = errors.New("the journal is in use by another process")

// fileSystem is what a journal needs of a disk. Tests put one in its place that fails.
type fileSystem interface {
	folders
	// Open opens a file in the way that mode says.
	Open(path string, mode mode) (file, error)
	// Remove deletes a file.
	Remove(path string) error
}

type folders interface {
	// List returns the names of the files in a folder.
	List(dir string) ([]string, error)
	// SyncDir makes the folder's list of files durable.
	SyncDir(dir string) error
	// Lock makes the folder if need be and keeps others out of it until it is closed. The error wraps ErrLocked when somebody is in.
	Lock(dir string) (io.Closer, error)
}

// file is an open file. Sync makes its bytes, and its length, durable.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// mode is how a file is opened.
type mode int

const (
	forReading mode = iota
	forWriting      // made if need be, not cut
	newFile         // must not exist
)

// disk is the real file system.
type disk struct{}

func (disk) Open(path string, m mode) (file, error) {
	flags := map[mode]int{forReading: os.O_RDONLY, forWriting: os.O_RDWR | os.O_CREATE, newFile: os.O_RDWR | os.O_CREATE | os.O_EXCL}[m]
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, os.ErrNotExist) && m == newFile { // quarantine is made when it is needed
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (disk) Remove(path string) error { return os.Remove(path) }

func (disk) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (disk) Lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// diskFile is a file of the real file system. How it syncs depends on the system.
type diskFile struct{ *os.File }

// readAll returns the whole of a file, in buf if that is large enough.
func readAll(fs fileSystem, path string, buf []byte) ([]byte, error) {
	f, err := fs.Open(path, forReading)
	if err != nil {
		return nil, err
	}
	const most = 8 << 20
	for buf = buf[:0]; ; {
		buf = slices.Grow(buf, min(max(len(buf), 512), most))
		n, err := f.ReadAt(buf[len(buf):cap(buf)], int64(len(buf)))
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, f.Close()
		}
		if err != nil {
			return buf, errors.Join(err, f.Close())
		}
	}
}
