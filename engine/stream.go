// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenStream makes a queue on a stream by read(2) and write(2). Offsets are
// ignored; one operation is in flight at a time, and a read returns what is
// there, 0 at the end. Unlike other synchronous queues its Close doesn't wait
// for a peer that keeps silent.
func OpenStream(f *File) (Queue, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("%s: make an eventfd: %w", f.Path, err)
	}
	s := &streamExec{f: f, wake: wake, own: -1}
	var st unix.Stat_t
	if unix.Fstat(f.FD, &st) == nil {
		s.pipe, s.socket = st.Mode&unix.S_IFMT == unix.S_IFIFO, st.Mode&unix.S_IFMT == unix.S_IFSOCK
	}
	if s.pipe && f.Write {
		// Set on f's descriptor O_NONBLOCK would be its other owners', too.
		if fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.FD), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			s.own = fd
		}
	}
	q := &threadQueue{depth: 1, todo: make(chan *Op, 1), done: make(chan *Op, 1), execs: []executor{s}}
	q.wg.Go(func() { q.work(s) })
	return q, nil
}

type streamExec struct {
	f            *File
	wake         int // readable once Close was called
	pipe, socket bool
	own          int // the pipe by a description of its own with O_NONBLOCK; -1: another user's can't be had
}

// pipeBuf is PIPE_BUF: what a pipe that poll(2) calls writable takes at once. A
// longer write(2) sleeps in the kernel until all of it went, where no Close
// reaches it.
const pipeBuf = 4096

func (s *streamExec) run(op *Op) (int, error) {
	if op.Kind == Sync {
		return 0, nil
	}
	if op.Kind == Read {
		return s.whenReady(unix.POLLIN, func() (int, error) { return unix.Read(s.f.FD, op.Buf) })
	}
	for done := 0; ; {
		n, err := s.whenReady(unix.POLLOUT, func() (int, error) { return s.write(op.Buf[done:]) })
		if done += n; err != nil || n == 0 || done == len(op.Buf) {
			return done, err
		}
	}
}

// write writes what goes without waiting.
func (s *streamExec) write(b []byte) (int, error) {
	switch {
	case s.socket:
		return unix.SendmsgN(s.f.FD, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	case s.own >= 0:
		return unix.Write(s.own, b)
	case s.pipe:
		b = b[:min(len(b), pipeBuf)]
	}
	return unix.Write(s.f.FD, b)
}

// whenReady makes the call once the stream is ready for it, or gives up with
// ECANCELED.
func (s *streamExec) whenReady(events int16, call func() (int, error)) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(s.f.FD), Events: events}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		if _, err := ignoreEINTR(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
			return 0, err
		}
		if fds[1].Revents != 0 {
			return 0, unix.ECANCELED
		}
		n, err := ignoreEINTR(call)
		if err != unix.EAGAIN {
			return max(n, 0), err
		}
	}
}

// interrupt makes a waiting operation give up.
func (s *streamExec) interrupt() {
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (s *streamExec) close() error {
	if s.own >= 0 {
		_ = unix.Close(s.own)
	}
	return unix.Close(s.wake)
}
