// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// systemState is where the data go when the folder that was asked for cannot be entered by the user that the server runs as.
const systemState = "/var/lib/weir"

// temporary begins the names of folders that stand in for it where there is no such place.
const temporary = "weir-"

// place returns the folder for the data, which may be missing as yet. That is dir/data; or, when the account cannot reach it, a folder
// elsewhere to which dir/data is a symbolic link, so that a later start finds it and a person sees where the data are.
func place(a *account, dir string) (data string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the account enters it
		return "", err
	}
	link := filepath.Join(dir, "data")
	if target, err := os.Readlink(link); err == nil {
		base := filepath.Dir(target)
		if err := os.MkdirAll(base, 0o755); err != nil { //nolint:gosec // the account enters it
			return "", err
		}
		if a != nil && strings.HasPrefix(filepath.Base(base), temporary) {
			err = mine(base) // it may have been swept away, and laid out again by somebody else
		}
		return target, err
	}
	ok, err := a.reaches(dir)
	if err != nil || ok {
		return link, err
	}
	if _, err := os.Stat(link); err == nil {
		return "", fmt.Errorf("user %s cannot enter %s, which has data already: move the folder, or allow others to enter the folders above it", a.name, link)
	}
	base, err := elsewhere(a, dir)
	if err != nil {
		return "", err
	}
	data = filepath.Join(base, "data")
	return data, os.Symlink(data, link)
}

// elsewhere returns a folder that the account can enter and that stands for dir: the same one at each call.
func elsewhere(a *account, dir string) (string, error) {
	sum := sha256.Sum256([]byte(dir))
	name := hex.EncodeToString(sum[:8])
	candidates := []string{filepath.Join(systemState, name), filepath.Join(os.TempDir(), temporary+name), filepath.Join("/tmp", temporary+name)}
	var errs []error
	for _, c := range candidates {
		err := os.MkdirAll(c, 0o755) //nolint:gosec // the account enters it
		if err == nil {
			err = mine(c)
		}
		if err == nil {
			var ok bool
			if ok, err = a.reaches(c); err == nil && !ok {
				err = fmt.Errorf("user %s cannot enter %s", a.name, c)
			}
		}
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("find a folder for user %s: %w", a.name, errors.Join(errs...))
}

// mine guards against a folder that somebody else has laid out under a name that can be guessed.
func mine(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(s.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a folder that only this user can write to", dir)
	}
	return nil
}

// bring returns the installation where the account can run it: as it is, or a copy of it.
func bring(a *account, i Install) (Install, error) {
	ok, err := a.reaches(i.Bin)
	if err != nil || ok {
		return i, err
	}
	if i.Root == "" {
		return i, fmt.Errorf("user %s cannot enter %s: install Postgres where everybody can run it", a.name, i.Bin)
	}
	base, err := elsewhere(a, i.Root)
	if err != nil {
		return i, err
	}
	bin, err := filepath.Rel(i.Root, i.Bin)
	if err != nil {
		return i, err
	}
	original, copied := i.Root, filepath.Join(base, filepath.Base(i.Root))
	i.Root, i.Bin = copied, filepath.Join(copied, bin)
	if _, err := os.Stat(copied); err == nil {
		return i, nil
	}
	tmp, err := os.MkdirTemp(base, ".copy-*")
	if err != nil {
		return i, err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // empty when all went well
	whole := filepath.Join(tmp, "files")
	if err := errors.Join(os.CopyFS(whole, os.DirFS(original)), os.Chmod(whole, 0o755)); err != nil { //nolint:gosec // the account enters it
		return i, err
	}
	if err := os.Rename(whole, copied); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return i, err // unless another process was faster
	}
	return i, nil
}
