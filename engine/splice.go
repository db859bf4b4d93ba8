// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func openSplice(f *File, o Options) (Queue, error) {
	// Zero bytes succeed on any file: ask for one operation's worth of
	// nothing only to see that the kernel has the call.
	if _, err := unix.Splice(f.FD, nil, f.FD, nil, 0, 0); errors.Is(err, unix.ENOSYS) {
		return nil, f.unavailable("splice", err, "this kernel has no splice")
	}
	return openSync(o, func() (executor, error) { return newSpliceExec(f) })
}

// spliceExec moves an operation's bytes through a pipe of its own: splice
// between file and pipe, read or write between pipe and buffer. Its kiocb is
// synchronous: a driver that answers it with -EIOCBQUEUED is wrong.
type spliceExec struct {
	f        *File
	r, w     int
	pipeSize int
}

// wantPipe is the pipe's size if the kernel grants it (fs.pipe-max-size).
const wantPipe = 1 << 20

func newSpliceExec(f *File) (*spliceExec, error) {
	var p [2]int
	// Nonblocking: what is left in the pipe after an error can be thrown away.
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("engine splice: make a pipe: %w", err)
	}
	s := &spliceExec{f: f, r: p[0], w: p[1], pipeSize: 16 * unix.Getpagesize()}
	if n, err := unix.FcntlInt(uintptr(s.w), unix.F_SETPIPE_SZ, wantPipe); err == nil {
		s.pipeSize = n
	}
	return s, nil
}

func (s *spliceExec) run(op *Op) (int, error) {
	switch {
	case op.Kind == Sync:
		return 0, s.f.fsync()
	case op.Flags != 0:
		return 0, errFlags
	case op.Kind == Read:
		return s.read(op)
	}
	return s.write(op)
}

func (s *spliceExec) read(op *Op) (int, error) {
	done := 0
	for done < len(op.Buf) {
		off := op.Offset + int64(done)
		n, err := ignoreEINTR(func() (int, error) {
			// int64 on 64-bit machines, int on 32-bit ones.
			n, err := unix.Splice(s.f.FD, &off, s.w, nil, min(len(op.Buf)-done, s.pipeSize), 0)
			return int(n), err
		})
		if n <= 0 || err != nil {
			return done, err
		}
		for n > 0 {
			m, err := ignoreEINTR(func() (int, error) { return unix.Read(s.r, op.Buf[done:done+n]) })
			if err != nil || m <= 0 {
				s.empty()
				return done, fmt.Errorf("read back from the pipe: %w", err)
			}
			done += m
			n -= m
		}
	}
	return done, nil
}

func (s *spliceExec) write(op *Op) (int, error) {
	done := 0
	for done < len(op.Buf) {
		filled, err := ignoreEINTR(func() (int, error) {
			return unix.Write(s.w, op.Buf[done:min(len(op.Buf), done+s.pipeSize)])
		})
		if err != nil {
			return done, fmt.Errorf("fill the pipe: %w", err)
		}
		for filled > 0 {
			off := op.Offset + int64(done)
			n, err := ignoreEINTR(func() (int, error) {
				n, err := unix.Splice(s.r, nil, s.f.FD, &off, filled, 0)
				return int(n), err
			})
			if n <= 0 || err != nil {
				s.empty()
				return done, err
			}
			done += n
			filled -= n
		}
	}
	return done, nil
}

// empty throws away what an interrupted operation left in the pipe.
func (s *spliceExec) empty() {
	var sink [4096]byte
	for {
		if n, err := unix.Read(s.r, sink[:]); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

func (s *spliceExec) close() error { return errors.Join(unix.Close(s.r), unix.Close(s.w)) }
