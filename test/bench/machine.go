// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/weir-proxy/weir/envoy"
)

// machine is where and with what something was measured.
type machine struct {
	Date     string `json:"date"`
	Command  string `json:"command"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Kernel   string `json:"kernel"`
	Load     string `json:"load_average"` // when it began
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Envoy    string `json:"envoy"`
	Workers  int    `json:"envoy_threads"`
	Postgres string `json:"postgres"`
}

// describe asks the machine what it is. What cannot be known is "unknown".
func describe(ctx context.Context, s *site) machine {
	m := machine{
		Date: time.Now().UTC().Format(time.DateOnly), Command: s.command,
		CPU: "unknown", Cores: runtime.NumCPU(), Kernel: firstLine("/proc/sys/kernel/osrelease"), Load: firstLine("/proc/loadavg"),
		Commit: commit(ctx), Go: runtime.Version(), Envoy: "unknown", Workers: s.workers, Postgres: s.install.Version,
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(string(b))
	}
	if v, err := envoy.Version(ctx, s.envoy); err == nil {
		m.Envoy = v
	}
	return m
}

// cpuModel finds the name of the first CPU in /proc/cpuinfo. Where the kernel has none, as on some ARM machines, it is the architecture.
func cpuModel(info string) string {
	for line := range strings.Lines(info) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// commit says which source this is, and whether it was changed since.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	text := strings.TrimSpace(string(out))
	if out, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(out) > 0 {
		text += " with changes"
	}
	return text
}

// write prints it as the head of a report.
func (m machine) write(w io.Writer) {
	fmt.Fprintf(w, "    %s\n", m.Command)
	fmt.Fprintf(w, "    %s, commit %s\n", m.Date, m.Commit)
	fmt.Fprintf(w, "    %s, %d cores, Linux %s, load average at the beginning %s\n", m.CPU, m.Cores, m.Kernel, m.Load)
	fmt.Fprintf(w, "    Envoy %s with %d threads, Postgres %s with fsync, %s\n", m.Envoy, m.Workers, m.Postgres, m.Go)
}
