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
	s := &streamExec{f: f, wake: wake}
	q := &threadQueue{depth: 1, todo: make(chan *Op, 1), done: make(chan *Op, 1), execs: []executor{s}}
	q.wg.Go(func() { q.work(s) })
	return q, nil
}

type streamExec struct {
	f    *File
	wake int // readable once Close was called
}

func (s *streamExec) run(op *Op) (int, error) {
	if op.Kind == Sync {
		return 0, nil
	}
	events := int16(unix.POLLIN)
	if op.Kind == Write {
		events = unix.POLLOUT
	}
	for {
		fds := []unix.PollFd{{Fd: int32(s.f.FD), Events: events}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		if _, err := ignoreEINTR(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
			return 0, err
		}
		if fds[1].Revents != 0 {
			return 0, unix.ECANCELED
		}
		n, err := ignoreEINTR(func() (int, error) {
			if op.Kind == Write {
				return unix.Write(s.f.FD, op.Buf)
			}
			return unix.Read(s.f.FD, op.Buf)
		})
		if err != unix.EAGAIN {
			return max(n, 0), err
		}
	}
}

// interrupt makes a waiting operation give up.
func (s *streamExec) interrupt() {
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (s *streamExec) close() error { return unix.Close(s.wake) }
