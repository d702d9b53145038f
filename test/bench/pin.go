// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// pin lets a process, with all the threads that it has and will have, run on some CPUs alone. It needs taskset, of util-linux.
func pin(ctx context.Context, pid int, cpus []int) error {
	var list []string
	for _, c := range cpus {
		list = append(list, strconv.Itoa(c))
	}
	for range 2 { // a thread that began meanwhile may have the CPUs of before
		out, err := exec.CommandContext(ctx, "taskset", "--all-tasks", "--pid", "--cpu-list", strings.Join(list, ","), strconv.Itoa(pid)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("keep process %d on CPU %s: %w: %s", pid, strings.Join(list, ","), err, out)
		}
	}
	return nil
}
