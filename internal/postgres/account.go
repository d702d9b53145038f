// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server runs as; nil means the user of this process.
type account struct {
	name     string
	uid, gid uint32
}

// chooseAccount returns whom to run the server as. Root cannot: it becomes the owner of the data if there are some, else postgres
// or nobody, one of which every system has. (initdb refuses a user without a name.)
func chooseAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // the user of this process needs no account
	}
	var candidates []*user.User
	if uid, ok := owner(data); ok && uid != 0 {
		if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
			candidates = append(candidates, u)
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			candidates = append(candidates, u)
		}
	}
	for _, u := range candidates {
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return &account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres does not run as root, and there is no user postgres or nobody to run it as: start weir as an ordinary user")
}

func owner(path string) (uid uint32, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Uid, true
}

// command returns a command that runs as the account, with an environment of nothing but what Postgres needs. HOME keeps libpq
// settings of a person out.
func (a *account) command(home, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:gosec // programs of an Install
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "LC_ALL=C", "TZ=UTC", "PATH=/usr/local/bin:/usr/bin:/bin"}
	for _, name := range []string{"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"} {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return cmd
}

// reaches reports whether the account can enter a folder. It asks the kernel, which knows of ACLs and mounts.
func (a *account) reaches(dir string) (bool, error) {
	if a == nil {
		return true, nil
	}
	err := a.command("/", "/bin/sh", "-c", `cd "$1"`, "sh", dir).Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return false, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, fmt.Errorf("become user %s: %w (a container without the right to change users?): start weir as an ordinary user", a.name, err)
	}
	return err == nil, err
}

// own gives a folder and all that is in it to the account.
func (a *account) own(dir string) error {
	if a == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
}
