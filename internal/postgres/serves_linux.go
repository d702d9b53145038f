// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// serves reports whether the process runs a server on the data folder, which such a server has as its working directory. The
// answer is yes when that cannot be told.
func serves(pid int, data string) (bool, error) {
	cwd, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, os.ErrPermission) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at process %d: %w", pid, err)
	}
	folder, err := os.Stat(data)
	if err != nil {
		return false, err
	}
	return os.SameFile(cwd, folder), nil
}
