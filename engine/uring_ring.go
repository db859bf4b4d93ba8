// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/io_uring.h says, as far as it is needed here.
const (
	uringOpNop         = 0
	uringOpFsync       = 3
	uringOpReadFixed   = 4
	uringOpWriteFixed  = 5
	uringOpAsyncCancel = 14
	uringOpRead        = 22
	uringOpWrite       = 23
	uringOpCmd         = 46

	uringCmdFixed = 1 // IORING_URING_CMD_FIXED, in the place of rwFlags

	uringSetupIOPoll       = 1 << 0
	uringSetupCoopTaskrun  = 1 << 8  // 5.19
	uringSetupSingleIssuer = 1 << 12 // 6.0
	uringSetupDeferTaskrun = 1 << 13 // 6.1

	uringFeatSingleMmap = 1 << 0 // 5.4
	uringFeatExtArg     = 1 << 8 // 5.11

	uringEnterGetEvents = 1 << 0
	uringEnterExtArg    = 1 << 3

	uringRegisterBuffers = 0
	uringRegisterFiles   = 2
	uringRegisterProbe   = 8

	uringOffSQRing = 0
	uringOffSQEs   = 0x10000000

	uringSQEFixedFile = 1 << 0
	uringSQEAsync     = 1 << 4
)

type uringSQOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type uringCQOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  uringSQOffsets
	cqOff                                                                  uringCQOffsets
}

type uringSQE struct {
	opcode      uint8
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	rwFlags     uint32
	userData    uint64
	bufIndex    uint16
	personality uint16
	fileIndex   uint32
	addr3       uint64
	pad         uint64
}

type uringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

type uringGetEventsArg struct {
	sigmask   uint64
	sigmaskSz uint32
	pad       uint32
	ts        uint64
}

type uringTimespec struct{ sec, nsec int64 }

// ring is an io_uring instance and its mapped memory. With a deferred task run
// (the kernel's newest way: completions are finished in the waiter's system
// call, not by interrupting it) only the thread that made it may use it.
type ring struct {
	fd     int
	params uringParams
	rings  []byte // submission and completion ring
	sqeMem []byte

	sqHead, sqTail, cqHead, cqTail *atomic.Uint32
	sqMask, cqMask                 uint32
	sqArray                        []uint32
	sqes                           []uringSQE
	cqes                           []uringCQE
	pending                        uint32 // SQEs written and not yet handed over

	// Arguments of a bounded wait. They live here, on the heap, because one
	// holds the other's address as a number.
	ts  uringTimespec
	ext uringGetEventsArg
}

// newRing sets a ring up with the best of the flags that this kernel knows,
// beside those that must be. The error is a plain errno.
func newRing(entries int, must uint32) (*ring, error) {
	var err error
	for _, want := range []uint32{uringSetupSingleIssuer | uringSetupDeferTaskrun, uringSetupCoopTaskrun, 0} {
		r := &ring{params: uringParams{flags: must | want}}
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&r.params)), 0)
		if errno == unix.EINVAL {
			err = errno
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		r.fd = int(fd)
		unix.CloseOnExec(r.fd) // the kernel does that, too
		if err := r.mapMemory(); err != nil {
			r.close()
			return nil, err
		}
		return r, nil
	}
	return nil, err
}

func (r *ring) mapMemory() error {
	p := &r.params
	if p.features&uringFeatSingleMmap == 0 {
		return unix.ENOSYS // before 5.4, and before all that is needed here
	}
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(uringCQE{})))
	var err error
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, uringOffSQRing, int(size), prot, flags); err != nil {
		return err
	}
	sqes := int(p.sqEntries) * int(unsafe.Sizeof(uringSQE{}))
	if r.sqeMem, err = unix.Mmap(r.fd, uringOffSQEs, sqes, prot, flags); err != nil {
		return err
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail = word(p.sqOff.head), word(p.sqOff.tail)
	r.cqHead, r.cqTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.sqMask, r.cqMask = word(p.sqOff.ringMask).Load(), word(p.cqOff.ringMask).Load()
	r.sqArray = unsafe.Slice((*uint32)(unsafe.Pointer(&r.rings[p.sqOff.array])), p.sqEntries)
	r.sqes = unsafe.Slice((*uringSQE)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*uringCQE)(unsafe.Pointer(&r.rings[p.cqOff.cqes])), p.cqEntries)
	return nil
}

// push writes an SQE to the ring, or says that it is full.
func (r *ring) push(sqe *uringSQE) bool {
	tail := r.sqTail.Load() // nobody else writes it
	if tail-r.sqHead.Load() >= r.params.sqEntries {
		return false
	}
	i := tail & r.sqMask
	r.sqes[i] = *sqe
	r.sqArray[i] = i
	r.sqTail.Store(tail + 1)
	r.pending++
	return true
}

// pop takes a completion off the ring, if there is one.
func (r *ring) pop() (uringCQE, bool) {
	head := r.cqHead.Load() // nobody else writes it
	if head == r.cqTail.Load() {
		return uringCQE{}, false
	}
	cqe := r.cqes[head&r.cqMask]
	r.cqHead.Store(head + 1)
	return cqe, true
}

// enter hands over what is pending and, with wait, runs completions and waits
// until min are there; a timeout above 0 bounds that. A signal or the end of
// the time isn't an error.
func (r *ring) enter(wait bool, min int, timeout time.Duration) error {
	var flags, arg, size uintptr
	if wait {
		flags |= uringEnterGetEvents
	}
	if timeout > 0 && min > 0 {
		if r.params.features&uringFeatExtArg == 0 {
			return r.enterOld(min, timeout)
		}
		r.ts = uringTimespec{sec: int64(timeout / time.Second), nsec: int64(timeout % time.Second)}
		r.ext.ts = uint64(uintptr(unsafe.Pointer(&r.ts)))
		flags |= uringEnterExtArg
		arg, size = uintptr(unsafe.Pointer(&r.ext)), unsafe.Sizeof(r.ext)
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pending), uintptr(min), flags, arg, size)
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
func (r *ring) enterOld(min int, timeout time.Duration) error {
	if err := r.enter(true, 0, 0); err != nil {
		return err
	}
	if int(r.cqTail.Load()-r.cqHead.Load()) >= min {
		return nil
	}
	ts := unix.NsecToTimespec(int64(timeout))
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, &ts, nil)
	if err == unix.EINTR {
		err = nil
	}
	return err
}

// register is io_uring_register(2), which on older kernels waits until nothing is
// in flight, and can be interrupted there.
func (r *ring) register(op uintptr, arg unsafe.Pointer, n int) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), uintptr(n), 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR: // nothing was done; Go's runtime sends signals of its own
			continue
		}
		return errno
	}
}

// supports asks whether the kernel has an operation.
func (r *ring) supports(ops ...uint8) (bool, error) {
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
	if err := r.register(uringRegisterProbe, unsafe.Pointer(&probe), len(probe.ops)); err != nil {
		return false, fmt.Errorf("ask for its operations: %w", err)
	}
	for _, op := range ops {
		if probe.ops[op].flags&1 == 0 { // IO_URING_OP_SUPPORTED
			return false, nil
		}
	}
	return true, nil
}

func (r *ring) close() error {
	var err error
	for _, m := range [][]byte{r.rings, r.sqeMem} {
		if m != nil {
			if e := unix.Munmap(m); err == nil {
				err = e
			}
		}
	}
	if e := unix.Close(r.fd); err == nil {
		err = e
	}
	return err
}
