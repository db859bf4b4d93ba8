// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import "unsafe"

// URingCmd is what stands in the command bytes of an io_uring command's SQE
// (struct dio_uring_cmd).
type URingCmd struct {
	Addr   uint64 `json:"addr"`   // of the buffer; 0 for flush and discard
	Length uint32 `json:"length"` // bytes
	Block  uint32 `json:"block"`  // position in the store, in URingBlock bytes
}

// URingBlock is the unit of URingCmd.Block, bytes.
const URingBlock = 512

// The operations of io_uring commands, for the SQE's cmd_op. Results stand in
// the CQE: bytes moved or discarded, 0 for flush, or a negative errno.
const (
	URingRead uint32 = (iocRead|iocWrite)<<iocDirShift | uint32(unsafe.Sizeof(URingCmd{}))<<iocSzShift | iocMagic<<iocTyShift | 0x40 + iota
	URingWrite
	URingFlush
	URingDiscard
)
