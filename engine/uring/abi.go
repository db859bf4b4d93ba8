// SPDX-License-Identifier: GPL-2.0-only

package uring

// What linux/io_uring.h says, as far as it is needed here; behind each what the
// header calls it, or the release that brought it.
const (
	OpNop         = 0
	OpFsync       = 3
	OpReadFixed   = 4
	OpWriteFixed  = 5
	OpAsyncCancel = 14
	OpRead        = 22
	OpWrite       = 23
	OpCmd         = 46

	CmdFixed = 1 // IORING_URING_CMD_FIXED, in SQE.OpFlags

	SetupIOPoll       = 1 << 0
	setupCoopTaskrun  = 1 << 8  // 5.19
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1

	featSingleMmap = 1 << 0 // 5.4
	featExtArg     = 1 << 8 // 5.11

	EnterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	RegisterBuffers = 0
	RegisterFiles   = 2
	registerProbe   = 8

	offRings = 0
	offSQEs  = 0x10000000

	SQEFixedFile = 1 << 0
	SQEAsync     = 1 << 4
)

// MaxEntries is the largest submission ring that the kernel makes.
const MaxEntries = 32768

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

// SQE is struct io_uring_sqe.
type SQE struct {
	Opcode      uint8
	Flags       uint8
	IOPrio      uint16
	FD          int32
	Off         uint64 // a command: cmd_op, in the low half
	Addr        uint64
	Len         uint32 // bytes
	OpFlags     uint32 // rw_flags, uring_cmd_flags
	UserData    uint64
	BufIndex    uint16
	Personality uint16
	FileIndex   uint32
	Cmd         [2]uint64 // a command's own 16 bytes
}

// CQE is struct io_uring_cqe; a Res below 0 is an errno's negative.
type CQE struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

type getEventsArg struct {
	sigmask   uint64
	sigmaskSz uint32
	pad       uint32
	ts        uint64
}

type timespec struct{ sec, nsec int64 }
