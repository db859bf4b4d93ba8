// SPDX-License-Identifier: GPL-2.0-only

// Package aio is native AIO as the kernel's ABI has it.
package aio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// IOCB is struct iocb of linux/aio_abi.h, as little-endian machines have it. The
// kernel reads it during io_submit(2), and again, by its address, during io_cancel(2).
type IOCB struct {
	Data    uint64 // comes back in the Event
	Key     uint32
	RWFlags uint32
	Opcode  uint16 // Cmd...
	ReqPrio int16
	FD      uint32
	Buf     uint64 // an address, which the kernel keeps
	Bytes   uint64
	Offset  int64
	_       uint64
	Flags   uint32
	ResFD   uint32
}

// Event is struct io_event; a Res below 0 is an errno's negative.
type Event struct {
	Data uint64
	Obj  uint64 // the IOCB's address
	Res  int64
	Res2 int64
}

// What an IOCB asks for: IOCB_CMD_... of linux/aio_abi.h.
const (
	CmdPread  = 0
	CmdPwrite = 1
	CmdFsync  = 2
)

// Context is aio_context_t.
type Context uintptr

// Setup is io_setup(2), for so many requests at a time. The error is a plain errno.
func Setup(requests int) (Context, error) {
	var c Context
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(requests), uintptr(unsafe.Pointer(&c)), 0); errno != 0 {
		return 0, errno
	}
	return c, nil
}

// Destroy is io_destroy(2), which cancels what it can and waits for the rest. The
// error is a plain errno.
func (c Context) Destroy() error {
	if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, uintptr(c), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
