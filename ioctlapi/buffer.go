// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import "unsafe"

// Limits of registered buffers.
const (
	BufferMax  = 1 << 30 // bytes of one
	BuffersMax = 1024    // of one open file
)

// BufferWritable lets the device write a registered buffer: transfers from the
// device may go there.
const BufferWritable = 1 << 0

// BufferRegister is memory to be registered (struct dio_buffer_register).
type BufferRegister struct {
	Size     uint32 `json:"size"`     // set by the call
	Flags    uint32 `json:"flags"`    // BufferWritable or 0
	Addr     uint64 `json:"addr"`     // of any alignment
	Length   uint64 `json:"length"`   // bytes, 1 to BufferMax
	ID       uint32 `json:"id"`       // out: 1 to BuffersMax
	Reserved uint32 `json:"reserved"` // 0
}

// BufferUnregister is a buffer to be given up (struct dio_buffer_unregister).
type BufferUnregister struct {
	Size     uint32 `json:"size"`  // set by the call
	Flags    uint32 `json:"flags"` // none yet: 0
	ID       uint32 `json:"id"`
	Reserved uint32 `json:"reserved"` // 0
}

// RegisterBuffer pins mem, which must be outside Go's heap, until the buffer is
// unregistered or the device closed by its last holder, and returns its id for
// Transfer.Buffer. EINVAL: mem is empty or over BufferMax. ENOMEM, EPERM: more
// than RLIMIT_MEMLOCK allows to pin; ENOMEM also: no memory for the list of its
// pages. ENOSPC: the file has BuffersMax buffers. EFAULT: a page isn't there or,
// with writable, may not be written. EINTR: killed while it pinned. What else the
// kernel says of memory that it doesn't lend for long is passed on (EOPNOTSUPP:
// DAX). After an error nothing is pinned or charged.
func (d *Device) RegisterBuffer(mem []byte, writable bool) (uint32, error) {
	r := BufferRegister{
		Size: uint32(unsafe.Sizeof(BufferRegister{})), Length: uint64(len(mem)),
		Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))),
	}
	if writable {
		r.Flags = BufferWritable
	}
	err := d.call("register a buffer", cmdBufferRegister, unsafe.Pointer(&r))
	return r.ID, err
}

// UnregisterBuffer gives a buffer up: its id at once, its memory with the last
// transfer on it. ENOENT: there is no such buffer.
func (d *Device) UnregisterBuffer(id uint32) error {
	r := BufferUnregister{Size: uint32(unsafe.Sizeof(BufferUnregister{})), ID: id}
	return d.call("unregister a buffer", cmdBufferUnregister, unsafe.Pointer(&r))
}
