// SPDX-License-Identifier: GPL-2.0-only

// Package uring is an io_uring and its mapped memory, straight from the kernel's
// ABI: for programs that have to set every bit themselves.
package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is an io_uring. With a deferred task run (the kernel's newest way:
// completions are finished in the waiter's system call, not by interrupting it)
// only the thread that made it may use it. Who doesn't care for Push, Pop and
// Enter may use the rings themselves.
type Ring struct {
	FD                             int
	SQHead, SQTail, CQHead, CQTail *atomic.Uint32
	SQMask, CQMask                 uint32
	SQArray                        []uint32
	SQEs                           []SQE
	CQEs                           []CQE

	params       params
	rings, sqMem []byte
	pending      uint32 // SQEs pushed and not yet handed over

	// Arguments of a bounded wait. They live here, on the heap, because one
	// holds the other's address as a number.
	ts  timespec
	ext getEventsArg
}

// New sets a ring up as a careful program would: with the best of the flags that
// this kernel knows, beside those that must be. The error is a plain errno; ENOSYS
// also for a kernel before 5.4.
func New(entries int, must uint32) (*Ring, error) {
	var err error
	for _, want := range []uint32{setupSingleIssuer | setupDeferTaskrun, setupCoopTaskrun, 0} {
		r := &Ring{params: params{flags: must | want}}
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&r.params)), 0)
		if errno == unix.EINVAL {
			err = errno
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		r.FD = int(fd)
		unix.CloseOnExec(r.FD) // the kernel does that, too
		if err := r.mapMemory(); err != nil {
			_ = r.Close() // the first error tells more
			return nil, err
		}
		return r, nil
	}
	return nil, err
}

func (r *Ring) mapMemory() error {
	p := &r.params
	if p.features&featSingleMmap == 0 {
		return unix.ENOSYS
	}
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.rings, err = unix.Mmap(r.FD, offRings, int(size), prot, flags); err != nil {
		return err
	}
	if r.sqMem, err = unix.Mmap(r.FD, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), prot, flags); err != nil {
		return err
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.rings[off])) }
	r.SQHead, r.SQTail = word(p.sqOff.head), word(p.sqOff.tail)
	r.CQHead, r.CQTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.SQMask, r.CQMask = word(p.sqOff.ringMask).Load(), word(p.cqOff.ringMask).Load()
	r.SQArray = unsafe.Slice((*uint32)(unsafe.Pointer(&r.rings[p.sqOff.array])), p.sqEntries)
	r.SQEs = unsafe.Slice((*SQE)(unsafe.Pointer(&r.sqMem[0])), p.sqEntries)
	r.CQEs = unsafe.Slice((*CQE)(unsafe.Pointer(&r.rings[p.cqOff.cqes])), p.cqEntries)
	return nil
}

// Register is io_uring_register(2), which on older kernels waits until nothing is
// in flight, and can be interrupted there. The error is a plain errno.
func (r *Ring) Register(op uintptr, arg unsafe.Pointer, n int) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.FD), op, uintptr(arg), uintptr(n), 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR: // nothing was done; Go's runtime sends signals of its own
			continue
		}
		return errno
	}
}

// Supports asks whether the kernel has all of these operations.
func (r *Ring) Supports(ops ...uint8) (bool, error) {
	type probeOp struct {
		op, resv uint8
		flags    uint16
		resv2    uint32
	}
	var probe struct {
		lastOp, opsLen uint8
		resv           uint16
		resv2          [3]uint32
		ops            [256]probeOp
	}
	if err := r.Register(registerProbe, unsafe.Pointer(&probe), len(probe.ops)); err != nil {
		return false, fmt.Errorf("ask for its operations: %w", err)
	}
	for _, op := range ops {
		if probe.ops[op].flags&1 == 0 { // IO_URING_OP_SUPPORTED
			return false, nil
		}
	}
	return true, nil
}

// Close gives the ring up. The kernel cancels what is in flight, or waits for it,
// after this has returned.
func (r *Ring) Close() error {
	var errs []error
	for _, m := range [][]byte{r.rings, r.sqMem} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(r.FD))...)
}
