// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/engine/uring"
	"dio/ioctlapi"
)

// uringLoop hands over what is free and waits in one io_uring_enter(2), unless
// it is to hand over less at a time.
type uringLoop struct {
	job     *job
	ring    *uring.Ring
	command bool
	begun   []time.Duration // by slot
	tail    uint32          // of the submission ring
	count   tally
	lost    int // operations that were begun once more
}

// maxBuffers is how many buffers a ring takes on every kernel (before 5.13:
// UIO_MAXIOV).
const maxBuffers = 1024

func openUring(j *job) (loop, error)         { return newUring(j, ringUse{}) }
func openUringFixed(j *job) (loop, error)    { return newUring(j, ringUse{fixed: true}) }
func openUringPoll(j *job) (loop, error)     { return newUring(j, ringUse{flags: uring.SetupIOPoll}) }
func openUringCmd(j *job) (loop, error)      { return newUring(j, ringUse{command: true}) }
func openUringCmdFixed(j *job) (loop, error) { return newUring(j, ringUse{command: true, fixed: true}) }
func openUringCmdPoll(j *job) (loop, error) {
	return newUring(j, ringUse{command: true, flags: uring.SetupIOPoll})
}

// ringUse is how a loop uses the ring.
type ringUse struct {
	fixed   bool   // registered buffers and file
	command bool   // IORING_OP_URING_CMD
	flags   uint32 // io_uring_setup's
}

// fill makes the part of a slot's SQE that stays: all but the offset.
func (u ringUse) fill(s *uring.SQE, j *job, slot int, buf []byte) {
	*s = uring.SQE{Opcode: uring.OpRead, FD: int32(j.file.FD), Addr: uint64(base(buf)), Len: uint32(len(buf)), UserData: uint64(slot)}
	switch {
	case u.command:
		s.Opcode, s.Addr, s.Len = uring.OpCmd, 0, 0
		s.Cmd[0], s.Cmd[1] = uint64(base(buf)), uint64(len(buf))
		s.Off = uint64(ioctlapi.URingRead)
		if j.write {
			s.Off = uint64(ioctlapi.URingWrite)
		}
		if u.fixed {
			s.OpFlags = uring.CmdFixed
		}
	case u.fixed && j.write:
		s.Opcode = uring.OpWriteFixed
	case u.fixed:
		s.Opcode = uring.OpReadFixed
	case j.write:
		s.Opcode = uring.OpWrite
	}
	if u.fixed {
		s.FD, s.Flags = 0, uring.SQEFixedFile
		if j.depth <= maxBuffers {
			s.BufIndex = uint16(slot)
		}
	}
}

func newUring(j *job, use ringUse) (loop, error) {
	if use.command {
		if err := commandsTaken(j.file); err != nil {
			return nil, err
		}
	}
	if j.depth > uring.MaxEntries {
		return nil, fmt.Errorf("a ring holds %d operations at most", uring.MaxEntries)
	}
	r, err := uring.New(j.depth, use.flags)
	if err != nil {
		return nil, fmt.Errorf("make a ring of %d entries: %w", j.depth, err)
	}
	l := &uringLoop{job: j, ring: r, command: use.command, begun: make([]time.Duration, j.depth)}
	for i := range j.depth {
		use.fill(&r.SQEs[i], j, i, j.mem.block(i, j.block))
	}
	if use.fixed {
		if err := l.register(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return l, nil
}

// register makes each block a registered buffer, as fio does; all of them one
// where there are more than the kernel takes.
func (l *uringLoop) register() error {
	j := l.job
	iovs := make([]unix.Iovec, 0, maxBuffers)
	add := func(b []byte) {
		iov := unix.Iovec{Base: &b[0]}
		iov.SetLen(len(b))
		iovs = append(iovs, iov)
	}
	if j.depth <= maxBuffers {
		for i := range j.depth {
			add(j.mem.block(i, j.block))
		}
	} else {
		add(j.mem.block(0, j.depth*j.mem.stride))
	}
	if err := l.ring.Register(uring.RegisterBuffers, unsafe.Pointer(&iovs[0]), len(iovs)); err != nil {
		return fmt.Errorf("register %d buffers of %d bytes: %w (ENOMEM: raise the limit of locked memory, ulimit -l)", j.depth, j.block, err)
	}
	fd := int32(j.file.FD)
	if err := l.ring.Register(uring.RegisterFiles, unsafe.Pointer(&fd), 1); err != nil {
		return fmt.Errorf("register the file: %w", err)
	}
	return nil
}

// prepare puts a slot's next operation in line.
//
//go:nosplit
func (l *uringLoop) prepare(slot uint32, stamp bool) {
	if off := uint64(l.job.offset.next()); l.command {
		s := &l.ring.SQEs[slot]
		s.Cmd[1] = s.Cmd[1]&(1<<32-1) | off/ioctlapi.URingBlock<<32
	} else {
		l.ring.SQEs[slot].Off = off
	}
	if stamp {
		l.begun[slot] = engine.Now()
	}
	l.ring.SQArray[l.tail&l.ring.SQMask] = slot
	l.tail++
}

// enter hands over so many entries and waits for wait completions.
//
//go:nosplit
func (l *uringLoop) enter(submit, wait int) (int, unix.Errno) {
	flags := uintptr(uring.EnterGetEvents)
	if wait == 0 {
		flags = 0
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(l.ring.FD), uintptr(submit), uintptr(wait), flags, 0, 0)
	return int(n), errno
}

func (l *uringLoop) run(ops int64, h *Histogram) error {
	r := l.ring
	left := ops
	first := int(min(int64(l.job.depth), left))
	for i := range first {
		l.prepare(uint32(i), h != nil)
	}
	left -= int64(first)
	pending, inFlight := first, first // handed over or not; all that is begun
	refused := 0
	var failed error
	for inFlight > 0 {
		r.SQTail.Store(l.tail)
		hand, wait := pending, min(l.job.batch, inFlight)
		if pending > l.job.submit { // the rest in calls of its own, of which the last waits
			hand, wait = l.job.submit, 0
		}
		n, errno := l.enter(hand, wait)
		l.count.calls++
		switch {
		case errno == 0:
			refused = 0
			if pending -= n; pending > 0 && n > 0 {
				continue
			}
		case (errno == unix.EAGAIN || errno == unix.EBUSY || errno == unix.EINTR) && refused < 10000:
			refused++ // no room now: take what is done, and try again
		default:
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		var now time.Duration
		if h != nil {
			now = engine.Now()
		}
		head, tail := r.CQHead.Load(), r.CQTail.Load()
		for ; head != tail; head++ {
			c := &r.CQEs[head&r.CQMask]
			slot := c.UserData
			if slot >= uint64(l.job.depth) {
				return fmt.Errorf("the kernel told the completion of an operation that there isn't: %d", slot)
			}
			inFlight--
			if h != nil {
				h.Record(int64(now - l.begun[slot]))
			}
			if int64(c.Res) == int64(l.job.block) {
				l.count.bytes += int64(c.Res)
			} else if again, err := l.odd(slot, c.Res); again {
				left++
			} else if err != nil && failed == nil {
				failed, left = err, 0 // and wait for what is in flight
			}
			if left > 0 {
				l.prepare(uint32(slot), h != nil)
				left--
				pending++
				inFlight++
			}
		}
		r.CQHead.Store(head)
	}
	return failed
}

// odd takes a result that isn't a whole block; again: io_uring could start no thread
// for the operation, which is to be done once more.
//
//go:noinline
func (l *uringLoop) odd(slot uint64, res int32) (again bool, err error) {
	if res == -int32(unix.ECANCELED) && l.lost < 100 {
		l.lost++
		return true, nil
	}
	return false, l.count.check(l.job, l.offset(slot), int64(res))
}

// offset is where a slot's operation went.
func (l *uringLoop) offset(slot uint64) int64 {
	s := &l.ring.SQEs[slot]
	if l.command {
		return int64(s.Cmd[1]>>32) * ioctlapi.URingBlock
	}
	return int64(s.Off)
}

// commandsTaken tells why a file takes no io_uring commands; nil: it does.
func commandsTaken(f *engine.File) error { return engine.Probe("uring_cmd", f) }

func (l *uringLoop) tally() tally { return l.count }

func (l *uringLoop) close() error { return l.ring.Close() }
