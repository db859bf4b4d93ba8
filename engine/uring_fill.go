// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dio/engine/uring"
	"dio/ioctlapi"
)

func (q *uringQueue) fill(sqe *uring.SQE, op *Op) {
	*sqe = uring.SQE{FD: int32(q.f.FD), UserData: q.slots.ticket(op.slot)}
	if q.fixed {
		sqe.FD, sqe.Flags = 0, uring.SQEFixedFile
	}
	if q.command && q.fillCommand(sqe, op) {
		return
	}
	if op.Kind == Sync {
		sqe.Opcode = uring.OpFsync
		return
	}
	switch {
	case op.Kind == Write && q.fixed:
		sqe.Opcode = uring.OpWriteFixed
	case op.Kind == Write:
		sqe.Opcode = uring.OpWrite
	case q.fixed:
		sqe.Opcode = uring.OpReadFixed
	default:
		sqe.Opcode = uring.OpRead
	}
	sqe.Addr, sqe.Len, sqe.Off, sqe.OpFlags = uint64(base(op.Buf)), uint32(len(op.Buf)), uint64(op.Offset), uint32(op.Flags)
}

// fillCommand makes it a command; false: it isn't aligned as commands have to
// be, and goes as a read or write like any other, for the kernel to judge.
func (q *uringQueue) fillCommand(sqe *uring.SQE, op *Op) bool {
	if op.Kind != Sync && (len(op.Buf) == 0 || !q.f.Aligned(op.Buf, op.Offset)) {
		return false
	}
	sqe.Opcode = uring.OpCmd
	switch op.Kind {
	case Sync:
		// It waits, so it is begun again by a thread of io_uring. Linux 6.10 to 6.13
		// read its bytes out of the ring once more by then, but for one that was
		// meant for a thread from the first.
		sqe.Flags |= uring.SQEAsync
		sqe.Off = uint64(ioctlapi.URingFlush)
		return true
	case Write:
		sqe.Off = uint64(ioctlapi.URingWrite)
	default:
		sqe.Off = uint64(ioctlapi.URingRead)
	}
	if q.fixed {
		sqe.OpFlags = uring.CmdFixed
	}
	c := ioctlapi.URingCmd{Addr: uint64(base(op.Buf)), Length: uint32(len(op.Buf)), Block: uint32(op.Offset / ioctlapi.URingBlock)}
	sqe.Cmd[0], sqe.Cmd[1] = c.Addr, uint64(c.Length)|uint64(c.Block)<<32
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
