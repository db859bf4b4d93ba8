// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/io_uring.h says, as far as it is needed here.
const (
	opReadFixed  = 4
	opWriteFixed = 5
	opRead       = 22
	opWrite      = 23
	opCmd        = 46

	cmdFixed = 1 // IORING_URING_CMD_FIXED, in the place of rwFlags

	setupIOPoll       = 1 << 0
	setupCoopTaskrun  = 1 << 8  // 5.19
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1

	featSingleMmap = 1 << 0 // 5.4

	enterGetEvents = 1 << 0

	registerBuffers = 0
	registerFiles   = 2

	offSQEs = 0x10000000

	sqeFixedFile = 1 << 0
)

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

type sqe struct {
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

type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// ring is an io_uring with one submission entry kept for each slot: once
// filled in, an operation changes its offset alone.
type ring struct {
	fd             int
	rings, sqeMem  []byte
	sqTail         *atomic.Uint32
	cqHead, cqTail *atomic.Uint32
	sqMask, cqMask uint32
	sqArray        []uint32
	sqes           []sqe
	cqes           []cqe
}

// maxRing is io_uring's limit of entries.
const maxRing = 32768

// newRing sets a ring up as a careful program would: with the best flags that
// the kernel knows.
func newRing(entries int, must uint32) (*ring, error) {
	for _, want := range []uint32{setupSingleIssuer | setupDeferTaskrun, setupCoopTaskrun, 0} {
		p := ringParams{flags: must | want}
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
		if errno == unix.EINVAL && want != 0 {
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("io_uring_setup of %d entries: %w", entries, errno)
		}
		r := &ring{fd: int(fd)}
		if err := r.mapMemory(&p); err != nil {
			return nil, errors.Join(err, r.close())
		}
		return r, nil
	}
	panic("unreachable")
}

func (r *ring) mapMemory(p *ringParams) error {
	if p.features&featSingleMmap == 0 {
		return errors.New("this kernel's io_uring is too old (5.4 or newer is needed)")
	}
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), prot, flags); err != nil {
		return fmt.Errorf("map the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), prot, flags); err != nil {
		return fmt.Errorf("map the submission entries: %w", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqTail, r.cqHead, r.cqTail = word(p.sqOff.tail), word(p.cqOff.head), word(p.cqOff.tail)
	r.sqMask, r.cqMask = word(p.sqOff.ringMask).Load(), word(p.cqOff.ringMask).Load()
	r.sqArray = unsafe.Slice((*uint32)(unsafe.Pointer(&r.rings[p.sqOff.array])), p.sqEntries)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cqOff.cqes])), p.cqEntries)
	return nil
}

// enter hands over so many entries and waits for wait completions.
//
//go:nosplit
func (r *ring) enter(submit, wait int) (int, unix.Errno) {
	flags := uintptr(enterGetEvents)
	if wait == 0 {
		flags = 0
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), flags, 0, 0)
	return int(n), errno
}

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

func (r *ring) close() error {
	var errs []error
	for _, m := range [][]byte{r.rings, r.sqeMem} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}
