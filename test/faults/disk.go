// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// disk is a small volume of its own for the logs.
type disk struct{ dir string }

// diskSize is more than the logs of a few hundred rounds need, and little enough to be filled in no time.
const diskSize = "256m"

// mountDisk mounts a disk at dir, which only root may do, and only on Linux.
func mountDisk(dir string) (*disk, error) {
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "nosuid,nodev,mode=755,size="+diskSize, "weir-faults", dir).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("mount a small disk at %s: %w: %s", dir, err, out)
	}
	return &disk{dir: dir}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill takes the last byte.
func (d *disk) fill() error {
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for size := len(zeros); size > 0; {
		if _, err = f.Write(zeros[:size]); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(fmt.Errorf("fill the disk: %w", err), f.Close())
	}
	return f.Close()
}

// clear gives back what fill took.
func (d *disk) clear() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// unmount ends the disk. What is on it is lost, unless it is to be kept: then it is in the folder afterwards.
func (d *disk) unmount(keep bool) error {
	aside := d.dir + ".kept"
	var err error
	if keep {
		err = replace(aside, d.dir)
	}
	if out, e := exec.Command("umount", "-l", d.dir).CombinedOutput(); e != nil {
		return errors.Join(err, fmt.Errorf("unmount %s: %w: %s", d.dir, e, out))
	}
	if keep && err == nil {
		err = errors.Join(os.Remove(d.dir), os.Rename(aside, d.dir))
	}
	return err
}
