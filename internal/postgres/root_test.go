// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

// root reports whether this is root. What these tests look at does not exist for an ordinary user, who runs every other test.
func root(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root becomes another user")
	}
	return os.Geteuid() == 0
}

// closed returns a folder below one that only root can enter.
func closed(t *testing.T) string {
	t.Helper()
	dir := base(t)
	inner := filepath.Join(dir, "closed", "inner")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	return inner
}

func forget(t *testing.T, path string) {
	t.Helper()
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
}

func TestRootFindsDataThatAreElsewhereAgain(t *testing.T) {
	if !root(t) {
		return
	}
	o := Options{Install: find(t), Dir: closed(t), NoSync: true}
	s := mustStart(t, o)
	forget(t, filepath.Dir(s.Dir()))
	mustExec(t, s, `create table note as select 'kept' as text`)
	target, err := os.Readlink(filepath.Join(o.Dir, "data"))
	if err != nil || target != s.Dir() || strings.HasPrefix(target, o.Dir) {
		t.Errorf("link = %q, %v; the data are in %s", target, err, s.Dir())
	}
	if uid, ok := owner(s.Dir()); !ok || uid == 0 {
		t.Errorf("owner of the data = %d, %t", uid, ok)
	}
	mustStop(t, s)
	moved := filepath.Join(filepath.Dir(o.Dir), "moved")
	if err := os.Rename(o.Dir, moved); err != nil {
		t.Fatal(err)
	}
	o.Dir = moved
	s = mustStart(t, o)
	if got := mustAsk(t, s, `select text from note`); got != "kept" {
		t.Errorf("note = %q", got)
	}
}

func TestRootCopiesAnInstallationThatIsOutOfReach(t *testing.T) {
	if !root(t) {
		return
	}
	i, err := Fetch(t.Context(), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	hidden := filepath.Join(closed(t), filepath.Base(i.Root))
	if err := os.CopyFS(hidden, os.DirFS(i.Root)); err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Rel(i.Root, i.Bin)
	if err != nil {
		t.Fatal(err)
	}
	i.Root, i.Bin = hidden, filepath.Join(hidden, bin)
	a, err := chooseAccount(filepath.Join(hidden, "nothing"))
	if err != nil {
		t.Fatal(err)
	}
	place, err := elsewhere(a, hidden)
	if err != nil {
		t.Fatal(err)
	}
	forget(t, place)
	s := mustStart(t, Options{Install: i, Dir: base(t), NoSync: true})
	if got := mustAsk(t, s, `show server_version`); got != i.Version {
		t.Errorf("version = %q, want %q", got, i.Version)
	}
	again, err := bring(a, i)
	if err != nil || !strings.HasPrefix(again.Bin, place) {
		t.Errorf("second time = %+v, %v; want the copy in %s", again, err, place)
	}
	i.Root = ""
	if _, err := bring(a, i); err == nil || !strings.Contains(err.Error(), "where everybody can run it") {
		t.Errorf("without a root: %v", err)
	}
}

func TestRootKeepsTheOwnerOfData(t *testing.T) {
	if !root(t) {
		return
	}
	i, dir := find(t), base(t)
	nobody := &account{name: "nobody", uid: 65534, gid: 65534}
	if err := nobody.own(dir); err != nil {
		t.Fatal(err)
	}
	cmd, said, end := starter(t, nobody, dir, i) // as an ordinary user would have made them
	end()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if said[2] != filepath.Join(dir, "data") {
		t.Errorf("data are in %s", said[2])
	}
	s := mustStart(t, Options{Install: i, Dir: dir, NoSync: true})
	if uid, _ := owner(filepath.Join(dir, "data", "PG_VERSION")); uid != nobody.uid {
		t.Errorf("owner = %d, want nobody", uid)
	}
	mustStop(t, s)
	cmd, _, end = starter(t, nobody, dir, i) // and can use them still
	end()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFolderLaidOutBySomebodyElseIsNotUsed(t *testing.T) {
	if !root(t) {
		return
	}
	dir := base(t)
	for name, lay := range map[string]func(path string) error{
		"owner": func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.Chown(p, 65534, 65534)) },
		"mode":  func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.Chmod(p, 0o777)) },
		"link":  func(p string) error { return os.Symlink("/etc", p) },
		"file":  func(p string) error { return os.WriteFile(p, nil, 0o644) },
	} {
		path := filepath.Join(dir, name)
		if err := lay(path); err != nil {
			t.Fatal(err)
		}
		if err := mine(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := mine(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
