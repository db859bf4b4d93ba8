// SPDX-License-Identifier: GPL-2.0-only

package uring

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Push writes an SQE to the ring; false: it is full.
func (r *Ring) Push(sqe *SQE) bool {
	tail := r.SQTail.Load() // nobody else writes it
	if tail-r.SQHead.Load() >= uint32(len(r.SQEs)) {
		return false
	}
	i := tail & r.SQMask
	r.SQEs[i] = *sqe
	r.SQArray[i] = i
	r.SQTail.Store(tail + 1)
	r.pending++
	return true
}

// Pending is how many were pushed that the kernel hasn't taken yet.
func (r *Ring) Pending() int { return int(r.pending) }

// Pop takes a completion off the ring, if there is one.
func (r *Ring) Pop() (CQE, bool) {
	head := r.CQHead.Load() // nobody else writes it
	if head == r.CQTail.Load() {
		return CQE{}, false
	}
	cqe := r.CQEs[head&r.CQMask]
	r.CQHead.Store(head + 1)
	return cqe, true
}

// Enter hands over what is pending and, with wait, runs completions and waits
// until min are there; a timeout above 0 bounds that. A signal or the end of
// the time isn't an error, any other is a plain errno.
func (r *Ring) Enter(wait bool, min int, timeout time.Duration) error {
	var flags, arg, size uintptr
	if wait {
		flags |= EnterGetEvents
	}
	if timeout > 0 && min > 0 {
		if r.params.features&featExtArg == 0 {
			return r.enterOld(min, timeout)
		}
		r.ts = timespec{sec: int64(timeout / time.Second), nsec: int64(timeout % time.Second)}
		r.ext.ts = uint64(uintptr(unsafe.Pointer(&r.ts)))
		flags |= enterExtArg
		arg, size = uintptr(unsafe.Pointer(&r.ext)), unsafe.Sizeof(r.ext)
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.FD), uintptr(r.pending), uintptr(min), flags, arg, size)
	switch errno {
	case 0:
		r.pending -= uint32(n)
		return nil
	case unix.EINTR, unix.ETIME:
		return nil
	}
	return errno
}

// enterOld bounds a wait on kernels before 5.11 by polling the ring.
func (r *Ring) enterOld(min int, timeout time.Duration) error {
	if err := r.Enter(true, 0, 0); err != nil {
		return err
	}
	if int(r.CQTail.Load()-r.CQHead.Load()) >= min {
		return nil
	}
	ts := unix.NsecToTimespec(int64(timeout))
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(r.FD), Events: unix.POLLIN}}, &ts, nil)
	if err == unix.EINTR {
		err = nil
	}
	return err
}
