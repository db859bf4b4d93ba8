// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

func (q *uringQueue) fill(sqe *uringSQE, op *Op) {
	*sqe = uringSQE{fd: int32(q.f.FD), userData: q.slots.ticket(op.slot)}
	if q.fixed {
		sqe.fd, sqe.flags = 0, uringSQEFixedFile
	}
	if q.command && q.fillCommand(sqe, op) {
		return
	}
	if op.Kind == Sync {
		sqe.opcode = uringOpFsync
		return
	}
	switch {
	case op.Kind == Write && q.fixed:
		sqe.opcode = uringOpWriteFixed
	case op.Kind == Write:
		sqe.opcode = uringOpWrite
	case q.fixed:
		sqe.opcode = uringOpReadFixed
	default:
		sqe.opcode = uringOpRead
	}
	sqe.addr, sqe.len, sqe.off, sqe.rwFlags = uint64(base(op.Buf)), uint32(len(op.Buf)), uint64(op.Offset), uint32(op.Flags)
}

// fillCommand makes it a command; false: it isn't aligned as commands have to
// be, and goes as a read or write like any other, for the kernel to judge.
func (q *uringQueue) fillCommand(sqe *uringSQE, op *Op) bool {
	if op.Kind != Sync && (len(op.Buf) == 0 || !q.f.Aligned(op.Buf, op.Offset)) {
		return false
	}
	sqe.opcode = uringOpCmd
	switch op.Kind {
	case Sync:
		// It waits, so it is begun again by a thread of io_uring. Linux 6.10 to 6.13
		// read its bytes out of the ring once more by then, but for one that was
		// meant for a thread from the first.
		sqe.flags |= uringSQEAsync
		sqe.off = uint64(ioctlapi.URingFlush)
		return true
	case Write:
		sqe.off = uint64(ioctlapi.URingWrite)
	default:
		sqe.off = uint64(ioctlapi.URingRead)
	}
	if q.fixed {
		sqe.rwFlags = uringCmdFixed
	}
	c := ioctlapi.URingCmd{Addr: uint64(base(op.Buf)), Length: uint32(len(op.Buf)), Block: uint32(op.Offset / ioctlapi.URingBlock)}
	sqe.addr3, sqe.pad = c.Addr, uint64(c.Length)|uint64(c.Block)<<32
	return true
}

// withoutRing handles what the ring can't carry; false: it can.
func (q *uringQueue) withoutRing(op *Op) bool {
	switch {
	case q.poll && op.Kind == Sync: // IOPOLL rings refuse fsync
		op.N, op.Err = 0, q.f.fsync()
	case q.command && op.Flags != 0:
		op.N, op.Err = 0, errFlags
	case uint64(len(op.Buf)) > 1<<31-1:
		op.N, op.Err = 0, unix.EINVAL
	case q.fixed && op.Kind != Sync && !q.pool.contains(op.Buf):
		op.N, op.Err = 0, fmt.Errorf("the buffer isn't of the registered pool: %w", unix.EFAULT)
	default:
		return false
	}
	return true
}
