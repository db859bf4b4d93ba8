// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring, straight from the ABI, so that every field of an entry can be set
// and what the kernel says is seen as it is.
type uringEntry struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	n, opFlags    uint32
	data          uint64
	buffer        uint16
	personality   uint16
	spliceFD      int32
	command       [2]uint64
}

type uringResult struct {
	data  uint64
	res   int32
	flags uint32
}

type uringOffsets struct {
	head, tail, mask, entries, a, b, c, d uint32
	_                                     uint64
}

type uringSetup struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq, cq                                                             uringOffsets
}

const (
	uringReadv, uringWritev, uringFsync       = 1, 2, 3
	uringReadFixed, uringWriteFixed, uringPol = 4, 5, 6
	uringCancel, uringRead, uringWrite        = 14, 22, 23

	uringDrain, uringLink, uringHardLink, uringAsync = 1 << 1, 1 << 2, 1 << 3, 1 << 4 // an entry's flags

	uringIOPoll            = 1 << 0
	uringRegisterBuffers   = 0
	uringUnregisterBuffers = 1
	uringRegisterEventfd   = 4
	uringMaxWorkers        = 19
	uringEnterGetEvents    = 1 << 0
	uringFeatureOneMmap    = 1 << 0
	uringOffsetOfRing      = 0
	uringOffsetOfEntries   = 0x10000000
	uringResultSize        = int(unsafe.Sizeof(uringResult{}))
	uringEntrySize         = int(unsafe.Sizeof(uringEntry{}))
	uringWaitSlice         = 10 * time.Millisecond
	uringPolledWaitSlice   = time.Millisecond
)

// uring is a ring that belongs to the test's goroutine.
type uring struct {
	t           *testing.T
	fd          int
	polled      bool
	setup       uringSetup
	mem, sqeMem []byte
}

func newUring(t *testing.T, entries int, flags uint32) *uring {
	t.Helper()
	// When the thread that submitted ends, its requests are cancelled.
	runtime.LockOSThread()
	r, err := openUring(entries, flags)
	if err != nil {
		t.Fatal(err)
	}
	r.t = t
	t.Cleanup(func() { r.close(); runtime.UnlockOSThread() })
	return r
}

// openUring makes a ring for a thread that isn't a test's; its hand and poll
// are what submit and next are for one.
func openUring(entries int, flags uint32) (*uring, error) {
	r := &uring{polled: flags&uringIOPoll != 0, setup: uringSetup{flags: flags}}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&r.setup)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r.fd = int(fd)
	s := &r.setup
	if s.features&uringFeatureOneMmap == 0 {
		return nil, errors.New("the rings can't be mapped at one go")
	}
	size := max(int(s.sq.c)+4*int(s.sqEntries), int(s.cq.b)+uringResultSize*int(s.cqEntries))
	var err error
	const prot = unix.PROT_READ | unix.PROT_WRITE
	if r.mem, err = unix.Mmap(r.fd, uringOffsetOfRing, size, prot, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, uringOffsetOfEntries, uringEntrySize*int(s.sqEntries), prot, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map the entries: %w", err)
	}
	return r, nil
}

// close gives the ring up, whatever is in flight.
func (r *uring) close() {
	if r.fd < 0 {
		return
	}
	unix.Munmap(r.mem)
	unix.Munmap(r.sqeMem)
	unix.Close(r.fd)
	r.fd = -1
}

func (r *uring) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[at])) }

// submit hands entries over, which must fit.
func (r *uring) submit(entries ...uringEntry) {
	r.t.Helper()
	if err := r.hand(entries...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *uring) hand(entries ...uringEntry) error {
	slots := make([]uint32, len(entries))
	for i := range slots {
		slots[i] = r.slot(i)
	}
	return r.handIn(slots, entries)
}

// slot is where the i-th of the next entries goes when they take turns.
func (r *uring) slot(i int) uint32 {
	s := &r.setup
	return (atomic.LoadUint32(r.word(s.sq.tail)) + uint32(i)) & *r.word(s.sq.mask)
}

// at is the entry in a slot, which the program may use again once
// io_uring_enter(2) has returned.
func (r *uring) at(slot uint32) *uringEntry {
	return (*uringEntry)(unsafe.Pointer(&r.sqeMem[int(slot)*uringEntrySize]))
}

// put gives an entry to the ring, for the kernel to take when it's entered.
func (r *uring) put(slot uint32, e uringEntry) {
	s := &r.setup
	tail := atomic.LoadUint32(r.word(s.sq.tail))
	*r.at(slot) = e
	*r.word(s.sq.c + 4*(tail&*r.word(s.sq.mask))) = slot
	atomic.StoreUint32(r.word(s.sq.tail), tail+1)
}

// waiting tells whether there is an entry that the kernel didn't take.
func (r *uring) waiting() bool {
	s := &r.setup
	return atomic.LoadUint32(r.word(s.sq.head)) != atomic.LoadUint32(r.word(s.sq.tail))
}

// handIn hands over entries in slots of the caller's choice.
func (r *uring) handIn(slots []uint32, entries []uringEntry) error {
	for i, e := range entries {
		r.put(slots[i], e)
	}
	for left := len(entries); left > 0; {
		n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(left), 0, 0, 0, 0)
		if e != 0 && e != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", e)
		}
		if e == 0 {
			left -= int(n)
		}
	}
	return nil
}

// next waits for a result.
func (r *uring) next(limit time.Duration) (uringResult, bool) {
	r.t.Helper()
	v, ok, err := r.poll(limit)
	if err != nil {
		r.t.Fatal(err)
	}
	return v, ok
}

func (r *uring) poll(limit time.Duration) (uringResult, bool, error) {
	s := &r.setup
	for deadline := time.Now().Add(limit); ; {
		head := atomic.LoadUint32(r.word(s.cq.head))
		if head != atomic.LoadUint32(r.word(s.cq.tail)) {
			i := head & *r.word(s.cq.mask)
			v := *(*uringResult)(unsafe.Pointer(&r.mem[int(s.cq.b)+int(i)*uringResultSize]))
			atomic.StoreUint32(r.word(s.cq.head), head+1)
			return v, true, nil
		}
		if time.Now().After(deadline) {
			return uringResult{}, false, nil
		}
		if r.polled {
			if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 0, uringEnterGetEvents, 0, 0); e != 0 && e != unix.EINTR {
				return uringResult{}, false, fmt.Errorf("io_uring_enter: %w", e)
			}
			time.Sleep(uringPolledWaitSlice)
			continue
		}
		ts := unix.NsecToTimespec(int64(uringWaitSlice))
		_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, &ts, nil)
	}
}

// wait gives the next result, or fails the test after a while.
func (r *uring) wait(limit time.Duration) uringResult {
	r.t.Helper()
	v, ok := r.next(limit)
	if !ok {
		r.t.Fatalf("no completion within %v", limit)
	}
	return v
}

// none fails the test when there is one result more.
func (r *uring) none() {
	r.t.Helper()
	if v, ok := r.next(100 * time.Millisecond); ok {
		r.t.Errorf("a completion too many: %+v", v)
	}
}

func (r *uring) register(op int, arg unsafe.Pointer, n int) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), uintptr(op), uintptr(arg), uintptr(n), 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR: // nothing was done; Go's runtime sends signals of its own
			continue
		}
		return errno
	}
}

// limitWorkers says how many threads of io_uring may work for the task at a time, and
// gives what sets that back: the limit is the task's, not the ring's.
func (r *uring) limitWorkers(n uint32) (back func()) {
	r.t.Helper()
	workers := [2]uint32{n, n}
	set := func() {
		r.t.Helper()
		// The kernel puts the limits of before into workers.
		if err := r.register(uringMaxWorkers, unsafe.Pointer(&workers), len(workers)); err != nil {
			r.t.Fatal("limit the threads:", err)
		}
	}
	set()
	return set
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// entry is an operation on a stretch of the device.
func entry(op uint8, fd int, buf []byte, offset int64) uringEntry {
	return uringEntry{opcode: op, fd: int32(fd), addr: address(buf), n: uint32(len(buf)), off: uint64(offset)}
}
