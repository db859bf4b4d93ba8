// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Results that io_uring may tell, beside a count. The last three are a cancel's
// own, and of what goes with a link that broke.
var uringErrors = []error{unix.EINVAL, unix.EFAULT, unix.EBADF, unix.ENOSPC, unix.EAGAIN, unix.EOPNOTSUPP, unix.ENOTTY, unix.EIO,
	unix.ENOENT, unix.EALREADY, unix.ECANCELED}

const (
	fuzzRingDepth   = 24
	fuzzRingBuffers = 2
	fuzzPatience    = 20 * time.Second
)

// fuzzRing is a ring, and what isn't told of it yet.
type fuzzRing struct {
	*uring
	flying map[uint64]fuzzFlight
	free   []uint32 // slots
	last   uint64
	// buffers: some are registered.
	buffers bool
}

type fuzzFlight struct {
	uringEntry
	slot uint32
}

// fuzzUring keeps random entries in flight on a plain ring and on a polled one:
// commands, reads, writes, fsyncs, from registered buffers and others, forced
// to threads, linked, drained, cancelled. Each is told once, and within its time.
// An entry's place in the ring is spoilt once it's handed over; where the kernel
// reads it later, against the rules, it stays until the entry is told.
func fuzzUring(f *fuzzThread) (call, end func() error) {
	var rings []*fuzzRing
	fail := func(err error) (func() error, func() error) {
		return func() error { return err }, func() error { return nil }
	}
	for _, flags := range []uint32{0, uringIOPoll} {
		r, err := openUring(2*fuzzRingDepth, flags)
		if err != nil {
			return fail(err)
		}
		// One of memory that stays, one whose protection changes.
		segments := [fuzzRingBuffers]rawSegment{{uintptr(address(f.mem.all)), uintptr(32 * f.mem.page)}, {uintptr(address(f.mem.all[64*f.mem.page:])), uintptr(8*f.mem.page - 512)}}
		err = r.register(uringRegisterBuffers, unsafe.Pointer(&segments), len(segments))
		if errors.Is(err, unix.EFAULT) { // it changed right now
			err = r.register(uringRegisterBuffers, unsafe.Pointer(&segments), 1)
		}
		// Before 5.12 nobody's ring alone is at the limit of locked memory: it has none.
		if err != nil && (f.root || !errors.Is(err, unix.ENOMEM)) {
			return fail(fmt.Errorf("register the buffers: %w", err))
		}
		ring := &fuzzRing{uring: r, buffers: err == nil, flying: map[uint64]fuzzFlight{}}
		for i := range r.setup.sqEntries {
			ring.free = append(ring.free, i)
		}
		rings = append(rings, ring)
	}
	call = func() error {
		if err := f.remodel(); err != nil {
			return err
		}
		r := rings[f.IntN(8)/7]
		if err := settle(f, rings, fuzzRingDepth); err != nil {
			return err
		}
		entries := make([]uringEntry, 1+f.IntN(4))
		slots := r.free[len(r.free)-len(entries):]
		r.free = r.free[:len(r.free)-len(entries)]
		slots = slices.Clone(slots)
		for i := range entries {
			e := f.entry(r)
			r.last++
			e.data = r.last
			// Also of a registered file, unknown.
			e.flags = pick[uint8](f.Rand, 0, 0, 0, 0, 0, 0, uringAsync, uringAsync, uringLink, uringLink, uringHardLink, uringLink|uringAsync, 1, 1<<7)
			if f.drains && f.IntN(16) == 0 {
				e.flags |= uringDrain
			}
			entries[i] = e
			r.flying[e.data] = fuzzFlight{e, slots[i]}
		}
		if err := r.handIn(slots, entries); err != nil {
			return err
		}
		if !f.readsRingLate {
			for _, slot := range slots {
				e := r.at(slot)
				*e = uringEntry{opcode: uringCommand, fd: e.fd, off: e.off, addr: f.number(), n: f.Uint32(), command: [2]uint64{f.number(), f.Uint64()}}
			}
		}
		return r.reap(f, 0)
	}
	end = func() error {
		err := settle(f, rings, 0)
		for _, r := range rings {
			if err == nil && r.buffers {
				err = r.register(uringUnregisterBuffers, nil, 0)
			}
			r.close()
		}
		return err
	}
	return call, end
}

// settle waits until no ring has more than so many in flight. It looks at all of
// them in turn: an fsync waits for polled requests, those for their poller.
func settle(f *fuzzThread, rings []*fuzzRing, most int) error {
	for deadline := time.Now().Add(fuzzPatience); ; {
		busy := false
		for _, r := range rings {
			if len(r.flying) > most {
				busy = true
			}
		}
		if !busy {
			return nil
		}
		for _, r := range rings {
			if time.Now().After(deadline) {
				s, err := ioctlapi.FromFD(ioctlapi.Linux{}, f.files[0], ioctlapi.DefaultPath).Stats()
				return fmt.Errorf("nothing told for long; the driver has %d in flight (%v); polled %v, %d in flight: %+v", s.InFlight, err, r.polled,
					len(r.flying), r.flying)
			}
			if err := r.reap(f, 2*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// entry is an operation that makes sense mostly.
func (f *fuzzThread) entry(r *fuzzRing) uringEntry {
	n := pick(f.Rand, 512, 1024, 4096, 4608, 64<<10, 0, 777)
	e := uringEntry{fd: int32(pick(f.Rand, f.files...)), addr: f.address(n), n: uint32(n), off: f.place()}
	if f.IntN(16) == 0 {
		e.off = 1<<30 + 512*uint64(f.IntN(16)) // behind the end: no space for a write
	}
	if f.IntN(3) != 0 {
		e.addr, e.off = e.addr&^511, e.off&^511
	}
	e.buffer = uint16(f.IntN(fuzzRingBuffers + 1))
	switch f.IntN(10) {
	case 0:
		e.opcode = pick[uint8](f.Rand, uringRead, uringWrite)
		e.opFlags = pick[uint32](f.Rand, 0, 0, unix.RWF_NOWAIT, unix.RWF_DSYNC, unix.RWF_HIPRI, f.Uint32())
	case 1, 2:
		e.opcode = pick[uint8](f.Rand, uringReadFixed, uringWriteFixed)
	case 3:
		return uringEntry{opcode: uringFsync, fd: e.fd, opFlags: uint32(f.IntN(3))}
	case 4:
		return uringEntry{opcode: uringCancel, fd: -1, addr: r.last - uint64(f.IntN(8))}
	default:
		// A command, its struct in the entry's last bytes.
		op := pick(f.Rand, ioctlapi.URingRead, ioctlapi.URingRead, ioctlapi.URingWrite, ioctlapi.URingWrite, ioctlapi.URingFlush, ioctlapi.URingDiscard)
		c := uringEntry{opcode: uringCommand, fd: e.fd, buffer: e.buffer, opFlags: uint32(f.IntN(2)) * uringCommandFixed}
		switch f.IntN(24) {
		case 0:
			op ^= 1 << f.IntN(32)
		case 1:
			c.opFlags = f.Uint32()
		case 2:
			c.off = uint64(f.Uint32()) << 32
		case 3:
			c.n = f.Uint32()
		}
		c.off |= uint64(op)
		block := uint32(e.off / ioctlapi.URingBlock)
		if f.IntN(16) == 0 {
			n = int(f.number() & 0xffff_ffff)
		}
		if op == ioctlapi.URingDiscard && f.IntN(4) != 0 {
			e.addr = 0
		}
		if op == ioctlapi.URingFlush && f.IntN(4) != 0 {
			e.addr, n, block = 0, 0, 0
		}
		c.command = [2]uint64{e.addr, uint64(uint32(n)) | uint64(block)<<32}
		return c
	}
	return e
}

// reap takes what is told; it waits for the first of that at most so long.
func (r *fuzzRing) reap(f *fuzzThread, limit time.Duration) error {
	for {
		v, ok, err := r.poll(limit)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		limit = 0
		e, known := r.flying[v.data]
		if !known {
			return fmt.Errorf("told of %+v, which isn't in flight", v)
		}
		delete(r.flying, v.data)
		r.free = append(r.free, e.slot)
		var told error
		if v.res < 0 {
			told = unix.Errno(-v.res)
		}
		moved := int64(v.res)
		size := int64(e.n)
		if e.opcode == uringCommand {
			size = int64(uint32(e.command[1]))
			f.commands[fuzzAnswer{uint32(e.off), told, moved > 0}]++
		} else {
			f.told[told]++
		}
		// A cancel may tell how many it found.
		if told != nil && !slices.Contains(uringErrors, told) || e.opcode != uringCancel && moved > size {
			return fmt.Errorf("entry %+v, polled %v: told %d", e.uringEntry, r.polled, v.res)
		}
	}
}

// fuzzAnswer is what a command of io_uring was told, and whether it moved bytes.
type fuzzAnswer struct {
	op    uint32
	err   error
	moved bool
}

// checkCommands has each answer of the driver's, and each command done: reads and
// writes that aren't commands give most of these answers, too, and aren't counted.
func checkCommands(t *testing.T, answers map[fuzzAnswer]int) {
	t.Helper()
	told, done := map[error]int{}, map[uint32]int{}
	for a, n := range answers {
		told[a.err] += n
		if a.moved || a.err == nil && a.op == ioctlapi.URingFlush {
			done[a.op] += n
		}
	}
	t.Logf("commands were told %v, done: %v", told, done)
	for _, want := range []error{nil, unix.EINVAL, unix.EFAULT, unix.ENOSPC, unix.ENOTTY} {
		if told[want] == 0 {
			t.Errorf("no command was told %v: that part wasn't tried", want)
		}
	}
	for _, op := range []uint32{ioctlapi.URingRead, ioctlapi.URingWrite, ioctlapi.URingFlush, ioctlapi.URingDiscard} {
		if done[op] == 0 {
			t.Errorf("no command %#x was done: that part wasn't tried", op)
		}
	}
}
