// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// procfs is a mounted /proc, or a copy of one in tests.
type procfs string

// proc is this machine's.
const proc = procfs("/proc")

// tick is the unit of times in /proc/<pid>/stat: USER_HZ, which is 100 on every architecture that Linux exposes it on.
const tick = 10 * time.Millisecond

// usedCPU is what a process had used at one moment, by two clocks of the kernel.
type usedCPU struct {
	threads map[string]time.Duration // by thread id, exact; threads that have ended are missing. Nil where the kernel does not say
	total   time.Duration            // of all threads that there ever were, in whole ticks
	reaped  time.Duration            // of children that have ended and were waited for, in whole ticks
}

// since returns what was used between two moments. Thread clocks are exact but forget threads that end; the total forgets none but
// counts in ticks. The exact sum is taken unless it lacks more than the ticks can have rounded.
func (u usedCPU) since(before usedCPU) time.Duration {
	coarse := u.total - before.total
	if u.threads == nil {
		return coarse
	}
	var exact time.Duration
	for id, now := range u.threads {
		exact += now - min(before.threads[id], now)
	}
	if coarse > exact+2*tick+exact/50 {
		return coarse
	}
	return exact
}

// cpu reads what one process has used.
func (p procfs) cpu(pid int) (usedCPU, error) {
	stat, err := p.stat(pid)
	if err != nil {
		return usedCPU{}, err
	}
	return usedCPU{threads: p.threads(pid), total: stat.self, reaped: stat.reaped}, nil
}

// threads reads the clocks of a process's threads in nanoseconds. Nil if the kernel was built without CONFIG_SCHED_INFO.
func (p procfs) threads(pid int) map[string]time.Duration {
	dir := filepath.Join(string(p), strconv.Itoa(pid), "task")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	out := make(map[string]time.Duration, len(entries))
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "schedstat"))
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
				return nil // the thread is there, the file is not
			}
			continue
		}
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return nil
		}
		out[e.Name()] = time.Duration(ns)
	}
	return out
}

// processStat is the part of /proc/<pid>/stat that is used here.
type processStat struct {
	parent       int
	self, reaped time.Duration // of itself; of children that were waited for
}

func (p procfs) stat(pid int) (processStat, error) {
	b, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "stat"))
	if err != nil {
		return processStat{}, fmt.Errorf("read CPU of process %d: %w", pid, err)
	}
	s, err := parseStat(b)
	if err != nil {
		return processStat{}, fmt.Errorf("read CPU of process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat reads a line of https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html. The second field is a name in parentheses
// that may hold anything, so the fields are counted from its end.
func parseStat(b []byte) (processStat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return processStat{}, fmt.Errorf("no name in %q", b)
	}
	fields := strings.Fields(string(b[end+1:]))
	const parent, utime, stime, cutime, cstime = 1, 11, 12, 13, 14 // fields 4 and 14 to 17 of the manual
	if len(fields) <= cstime {
		return processStat{}, fmt.Errorf("%d fields in %q", len(fields), b)
	}
	var n [cstime + 1]int64
	for _, i := range []int{parent, utime, stime, cutime, cstime} {
		v, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return processStat{}, fmt.Errorf("field %d: %w", i+3, err)
		}
		n[i] = v
	}
	return processStat{
		parent: int(n[parent]), self: time.Duration(n[utime]+n[stime]) * tick, reaped: time.Duration(n[cutime]+n[cstime]) * tick,
	}, nil
}

// familyCPU is what a process and its children have used, those that have come and gone included.
type familyCPU map[int]usedCPU

// family reads the CPU of a process and its children; not of theirs, since Postgres has none.
func (p procfs) family(pid int) (familyCPU, error) {
	first, err := p.cpu(pid)
	if err != nil {
		return nil, err
	}
	out := familyCPU{pid: first}
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := p.stat(id); err != nil || s.parent != pid {
			continue // others, or one that has just ended
		}
		if u, err := p.cpu(id); err == nil {
			u.reaped = 0
			out[id] = u
		}
	}
	return out, nil
}

// since returns what the family used between two moments. A child that ended in between is in its parent's reaped time with its
// whole life, of which the part before is taken off.
func (f familyCPU) since(before familyCPU) time.Duration {
	var sum, gone time.Duration
	for id, now := range f {
		sum += now.since(before[id])
		gone += now.reaped - before[id].reaped
	}
	for id, was := range before {
		if _, lives := f[id]; !lives {
			gone -= was.total
		}
	}
	return sum + max(gone, 0)
}

// peakRSS reads the most memory that a process has held since it began, or since [procfs.resetPeak], in bytes.
func (p procfs) peakRSS(pid int) (int64, error) { return p.status(pid, "VmHWM:") }

// rss reads the memory that a process holds now, in bytes.
func (p procfs) rss(pid int) (int64, error) { return p.status(pid, "VmRSS:") }

// status reads a size from https://man7.org/linux/man-pages/man5/proc_pid_status.5.html.
func (p procfs) status(pid int, key string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		value, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("read memory of process %d: no %s in its status", pid, key)
}

// resetPeak lets the peak begin anew at what the process holds now. It reports whether the kernel allows that.
func (p procfs) resetPeak(pid int) bool {
	const resetHWM = "5" // https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
	f, err := os.OpenFile(filepath.Join(string(p), strconv.Itoa(pid), "clear_refs"), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	_, err = f.WriteString(resetHWM)
	return errors.Join(err, f.Close()) == nil
}
