// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/internal/child"
)

// Server is a running Postgres. It ends with this process, on Linux also when this process is killed.
type Server struct {
	process  *child.Process
	stopping atomic.Bool // it was told to end
	port     int
	data     string
	sockets  string // folder of the Unix socket
	log      string
	logStart int64 // size of the log before this server wrote to it
}

// DSN returns the address of the database "postgres", as a URL.
func (s *Server) DSN() string { return dsn(s.port) }

// Port returns the port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Dir returns the folder of the data, which may be another than that of the Options.
func (s *Server) Dir() string { return s.data }

// SocketDir returns the folder of the Unix socket, which is removed by Stop.
func (s *Server) SocketDir() string { return s.sockets }

// Pid returns the process id of the server.
func (s *Server) Pid() int { return s.process.PID() }

// Wait returns when the server has ended: nil after a Stop, else an error with the end of its log. It returns the error of ctx when
// that ends first.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-s.process.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.died()
}

// stopGrace is how long a server gets to end by itself once it has been told more roughly.
const stopGrace = 2 * time.Second

// Stop ends the server: clients are disconnected, data are written. When ctx ends before the server, the server is killed; its
// next start then recovers what was committed. Stopping a server that has ended is fine. Stop returns when the server has ended.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	killed := false
	select {
	case <-s.process.Done():
	default:
		s.process.Signal(syscall.SIGINT) // "fast shutdown"
		select {
		case <-s.process.Done():
		case <-ctx.Done():
			killed = true
			s.process.Signal(syscall.SIGQUIT) // "immediate shutdown": ends the server's own children too
			select {
			case <-s.process.Done():
			case <-time.After(stopGrace):
				s.process.KillGroup()
				<-s.process.Done()
			}
		}
	}
	err := os.RemoveAll(s.sockets)
	if killed {
		err = errors.Join(err, fmt.Errorf("stop Postgres: killed: %w", ctx.Err()))
	}
	return err
}

// died says how the server ended, as an error unless it was told to.
func (s *Server) died() error {
	if s.stopping.Load() {
		return nil
	}
	said := s.said()
	var kind error
	switch {
	case strings.Contains(said, "pre-existing shared memory block"), strings.Contains(said, `lock file "postmaster.pid" already exists`):
		kind = errOrphans
	case strings.Contains(said, "Address already in use"):
		kind = errPortTaken
	case s.process.Err() != nil:
		kind = s.process.Err()
	default:
		kind = errors.New("exit status 0")
	}
	return fmt.Errorf("it ended: %w:\n%s", kind, said)
}

// said returns the end of what this server wrote to its log.
func (s *Server) said() string {
	f, err := os.Open(s.log)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	from := s.logStart
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-4096)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, 4096))
	if err != nil {
		return ""
	}
	return last(string(b))
}

// last returns the last lines of what a program said.
func last(s string) string {
	const most = 12
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
