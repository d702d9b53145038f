// SPDX-License-Identifier: Apache-2.0

package wheel

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// maxUnpacked bounds what a wheel may unpack to; the largest today has 200 MB.
const maxUnpacked = 2 << 30

// unzip unpacks a wheel into a new folder. Names that lead out of it, and anything but folders and plain files, are errors.
func unzip(file, into string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close() //nolint:errcheck // only read
	if err := makeDir(into); err != nil {
		return err
	}
	root, err := os.OpenRoot(into) // a second wall: it refuses to leave the folder by whatever way
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only a handle
	left := int64(maxUnpacked)
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%q leads out of the folder", f.Name)
		}
		if left, err = unzipFile(root, f, left); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

// unzipFile unpacks one entry and returns how many bytes are left of the bound.
func unzipFile(root *os.Root, f *zip.File, left int64) (int64, error) {
	name := path.Clean(f.Name)
	switch mode := f.Mode(); {
	case mode.IsDir():
		return left, makeDirs(root, name)
	case !mode.IsRegular():
		return left, fmt.Errorf("neither a folder nor a plain file: %s", mode)
	}
	if err := makeDirs(root, path.Dir(name)); err != nil {
		return left, err
	}
	mode := readable
	if f.Mode()&0o111 != 0 {
		mode = executable
	}
	r, err := f.Open()
	if err != nil {
		return left, err
	}
	defer r.Close() //nolint:errcheck // only read
	w, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return left, err
	}
	n, err := io.Copy(w, io.LimitReader(r, left+1))
	if n > left {
		err = fmt.Errorf("the wheel unpacks to more than %d bytes", int64(maxUnpacked))
	}
	// The umask of whoever fetches must not keep other users out.
	return left - n, errors.Join(err, w.Chmod(mode), w.Close())
}

func makeDir(name string) error {
	return errors.Join(os.Mkdir(name, executable), os.Chmod(name, executable))
}

// makeDirs makes a folder and those above it, each of which every user may enter.
func makeDirs(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	if info, err := root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := makeDirs(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, executable); err != nil {
		return err
	}
	return root.Chmod(name, executable)
}
