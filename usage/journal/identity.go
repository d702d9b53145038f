// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
)

// identityName is a file with the identity of the journal, as text.
const identityName = "identity"

// Identity returns who the journal in a folder is. It is made at random when there is none yet, and goes where the folder goes: a journal that is lost
// takes its identity along, so that nobody takes a new one for it. The caller must have the journal open.
func Identity(dir string) (uuid.UUID, error) {
	path := filepath.Join(dir, identityName)
	b, err := os.ReadFile(path)
	if err == nil {
		id, err := uuid.ParseBytes(b)
		if err != nil || id == uuid.Nil {
			return uuid.Nil, fmt.Errorf("read identity of journal: %s is damaged; if it is deleted, what this journal has leased stays leased until it is released by hand", path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return uuid.Nil, fmt.Errorf("read identity of journal: %w", err)
	}
	id := uuid.New()
	if err := writeDurably(path, id.String()); err != nil {
		return uuid.Nil, fmt.Errorf("write identity of journal: %w", err)
	}
	return id, nil
}

// writeDurably makes a file of which nobody sees a part, not even after a loss of power.
func writeDurably(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return disk{}.SyncDir(filepath.Dir(path))
}
