// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// oomRW is a read or write that is to survive a lack of memory.
type oomRW struct {
	write    bool
	by       oomWay
	path     string // of the device; the first one by default
	access   int    // O_DIRECT or 0
	segments int    // of the buffer, each in pages of its own; 0: 1
	bytes    int    // of a segment; 0: a page
	hole     bool   // the store has nothing there
	cold     bool   // the buffer's memory isn't there yet
	flags    int    // RWF_*
	config   func(*ioctlapi.Config)
}

// oomWay is how it is asked for.
type oomWay string

const (
	oomSync     oomWay = "preadv2, pwritev2"
	oomAsync    oomWay = "native AIO"
	oomUring    oomWay = "io_uring"
	oomPolled   oomWay = "io_uring, polled"
	oomCommand  oomWay = "io_uring's command"
	oomFixed    oomWay = "io_uring's command, fixed"
	oomTransfer oomWay = "DIO_IOC_TRANSFER"
	oomBuffer   oomWay = "DIO_IOC_TRANSFER, registered buffer"
)

func oomReadsAndWrites() []oomCall {
	worker := func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionWorker }
	later := func(c *ioctlapi.Config) { c.LatencyNS = uint64(2 * time.Millisecond) }
	get := func(c *ioctlapi.Config) { c.Family = ioctlapi.FamilyGet }
	const page, many = 4096, 24 * 4096
	again := []unix.Errno{unix.EAGAIN}
	return []oomCall{
		oomRW{access: unix.O_DIRECT, cold: true}.call("read", 1, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, config: get}.call("read, family get", 1, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, bytes: many}.call("long read", 24, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, bytes: many, config: get}.call("long read, family get", 24, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, segments: 3, bytes: 2 * page}.call("read of segments", 6, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, bytes: many, config: worker}.call("long read, queued", 25, 0, nil),
		oomRW{access: unix.O_DIRECT, cold: true, bytes: many, config: later}.call("long read, later", 25, 0, nil),
		oomRW{access: unix.O_DIRECT, bytes: many, flags: unix.RWF_NOWAIT}.call("long read, not waiting", 1, 0, again),
		oomRW{write: true, access: unix.O_DIRECT, hole: true}.call("write to a hole", 2, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, hole: true, flags: unix.RWF_NOWAIT}.call("write to a hole, not waiting", 2, 0, again),
		oomRW{write: true, access: unix.O_DIRECT, hole: true, bytes: many}.call("long write to a hole", 24, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, hole: true, segments: 3, bytes: page + 512}.call("write of segments to a hole", 5, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, bytes: many}.call("long write", 1, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, config: worker}.call("write, queued", 1, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page, config: worker}.call("write to a hole, queued", 6, 0, nil),
		oomRW{write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page, config: later}.call("write to a hole, later", 6, 0, nil),

		oomRW{bytes: 2*page + 77}.call("copied read", 0, 3, nil),
		oomRW{write: true, bytes: 2*page + 77}.call("copied write", 0, 3, nil),
		oomRW{write: true, bytes: 2*page + 77, hole: true}.call("copied write to a hole", 4, 3, nil),
		oomRW{write: true, bytes: 2 * page, hole: true, config: later}.call("copied write to a hole, later", 3, 2, nil),
		oomRW{write: true, bytes: 2 * page, hole: true, flags: unix.RWF_NOWAIT}.call("copied write to a hole, not waiting", 3, 2, again),

		oomRW{by: oomAsync, access: unix.O_DIRECT, cold: true, bytes: many}.call("AIO read", 24, 0, nil),
		oomRW{by: oomAsync, access: unix.O_DIRECT, cold: true, bytes: many, config: later}.call("AIO read, later", 24, 0, nil),
		oomRW{by: oomAsync, write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page, config: worker}.call("AIO write to a hole, queued", 6, 0, nil),
		oomRW{by: oomAsync, write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page, flags: unix.RWF_NOWAIT, config: later}.
			call("AIO write to a hole, not waiting", 6, 0, again),
		oomRW{by: oomAsync, write: true, hole: true}.call("AIO copied write to a hole", 2, 1, nil),

		// Who lacks memory where io_uring may not wait is asked again by its thread.
		oomRW{by: oomUring, access: unix.O_DIRECT, cold: true, bytes: many}.call("io_uring read", 24, 0, nil),
		oomRW{by: oomUring, access: unix.O_DIRECT, bytes: many, config: later}.call("io_uring read, later", 2, 0, nil),
		oomRW{by: oomUring, write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page}.call("io_uring write to a hole", 6, 0, nil),
		oomRW{by: oomUring, write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page, config: worker}.call("io_uring write to a hole, queued", 6, 0, nil),
		oomRW{by: oomUring, write: true, hole: true}.call("io_uring copied write to a hole", 2, 1, nil),
		oomRW{by: oomPolled, write: true, access: unix.O_DIRECT, hole: true, bytes: 6 * page}.call("polled write to a hole", 6, 0, nil),

		oomRW{by: oomCommand, cold: true, bytes: many}.call("command read", 24, 0, nil),
		oomRW{by: oomCommand, write: true, hole: true, bytes: 6 * page, config: later}.call("command write to a hole, later", 6, 0, nil),
		oomRW{by: oomFixed, write: true, hole: true, bytes: 6 * page}.call("fixed command write to a hole", 6, 0, nil),
		oomRW{by: oomFixed, bytes: 6 * page, config: worker}.call("fixed command read, queued", 1, 0, nil),

		oomRW{by: oomTransfer, cold: true, bytes: many}.call("transfer, read", 24, 2, nil),
		oomRW{by: oomTransfer, write: true, hole: true, bytes: 6*page + 99, config: worker}.call("transfer, write to a hole, queued", 6, 2, nil),
		oomRW{by: oomBuffer, write: true, hole: true, bytes: 6*page + 99}.call("transfer from a buffer, to a hole", 6, 2, nil),
		oomRW{by: oomBuffer, bytes: 6 * page, config: worker}.call("transfer to a buffer, queued", 1, 2, nil),

		oomRW{path: eduPath, access: unix.O_DIRECT, cold: true}.call("edu read", 2, 0, nil),
		oomRW{path: eduPath, write: true, access: unix.O_DIRECT, segments: 3, bytes: 1024}.call("edu write of segments", 2, 0, nil),
		oomRW{path: eduPath, by: oomAsync, write: true, access: unix.O_DIRECT}.call("edu AIO write", 2, 0, nil),
		oomRW{path: eduPath}.call("edu copied read", 2, 1, nil),
		oomRW{path: eduPath, write: true}.call("edu copied write", 2, 1, nil),
	}
}

func (c oomRW) call(name string, memory, copies int, errnos []unix.Errno) oomCall {
	if c.by == "" {
		c.by = oomSync
	}
	c.segments = max(c.segments, 1)
	if c.bytes == 0 {
		c.bytes = 4096
	}
	return oomCall{name: name, path: c.path, memory: memory, copies: copies, errnos: errnos, begin: c.begin}
}

func (c oomRW) begin(k *oomKit) oomSteps {
	t, at := k.t, int64(scratch)
	if c.path != "" {
		at = 0
	}
	if c.config != nil {
		setConfig(t, k.d, c.config)
	}
	path := k.d.Path()
	direct, plain := eduRaw(t, path, c.access), eduRaw(t, path, 0)
	total, room := c.segments*c.bytes, (c.bytes+4095)/4096+1 // pages of a segment, and one between
	mem, arena, other := anonymous(t, c.segments*room), anonymous(t, 1), make([]byte, total)
	segments := make([][]byte, c.segments)
	for i := range segments {
		segments[i] = mem[i*room*4096:][:c.bytes]
	}
	store := make([]byte, total) // what the device is to have
	if !c.hole {
		pwrite(t, plain, fill(store, 1), at)
	}
	call, after := c.way(k, direct, segments, at, arena)

	done := func() uint64 {
		if s := k.stats(); c.write {
			return s.BytesWritten
		} else {
			return s.BytesRead
		}
	}
	seed, had := byte(2), uint64(0)
	before := func() {
		if c.hole {
			k.empty()
			clear(store)
		}
		clear(mem)
		if c.write {
			fill(other, seed)
			seed++
			for i, s := range segments {
				copy(s, other[i*c.bytes:])
			}
		} else if c.cold {
			k.must(unix.Madvise(mem, unix.MADV_DONTNEED))
		}
		had = done()
	}
	check := func(n int, e unix.Errno) (int, unix.Errno) {
		n, e = after(n, e)
		moved := int(done() - had)
		switch {
		case e == unix.EFAULT && (c.by == oomTransfer || c.by == oomBuffer): // its answer was lost
		case e == unix.EFAULT && c.path == eduPath && !c.write: // they came no further than to a page of the kernel's
			moved = 0
		case moved != n:
			t.Errorf("%d, %v, but %d bytes were moved", n, e, moved)
		}
		if c.write {
			copy(store[:moved], other)
			in := make([]byte, total)
			pread(t, plain, in, at)
			if !bytes.Equal(in, store) {
				t.Errorf("%d, %v: the store isn't what it was but for the bytes that were written", n, e)
			}
			return n, e
		}
		want := make([]byte, total)
		copy(want[:moved], store)
		if !bytes.Equal(bytes.Join(segments, nil), want) {
			t.Errorf("%d, %v: the buffer has other bytes than those that were read", n, e)
		}
		return n, e
	}
	return oomSteps{want: total, short: true, before: before, call: call, after: check}
}

// way is how the call is made, and its result waited for.
func (c oomRW) way(k *oomKit, fd int, segments [][]byte, at int64, arena []byte) (call func() rawCall, after func(int, unix.Errno) (int, unix.Errno)) {
	first := segments[0]
	switch c.by {
	case oomSync:
		v := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(unsafe.SliceData(arena))), len(segments))
		copy(v, iovecs(segments...))
		trap := uintptr(unix.SYS_PREADV2)
		if c.write {
			trap = unix.SYS_PWRITEV2
		}
		call = func() rawCall {
			return syscallOf(trap, uintptr(fd), addr(&v[0]), uintptr(len(v)), uintptr(at), uintptr(uint64(at)>>32), uintptr(c.flags))
		}
		return call, func(n int, e unix.Errno) (int, unix.Errno) { return n, e }

	case oomAsync:
		op := control(aioRead, fd, first, at)
		if c.write {
			op.opcode = aioWrite
		}
		op.rwFlags = uint32(c.flags)
		return oomAIO(k, newAIO(k.t, 4), op, arena)

	case oomUring, oomPolled:
		e := entry(uringRead, fd, first, at)
		if c.write {
			e.opcode = uringWrite
		}
		e.opFlags = uint32(c.flags)
		if c.by == oomPolled {
			return oomRing(k, newUring(k.t, 4, uringIOPoll), e)
		}
		return oomRing(k, newUring(k.t, 4, 0), e)

	case oomCommand, oomFixed:
		e, ring := command(ioctlapi.URingRead, fd, first, at), newUring(k.t, 4, 0)
		if c.write {
			e = command(ioctlapi.URingWrite, fd, first, at)
		}
		if c.by == oomFixed {
			e.opFlags = uringCommandFixed
			v := iovecs(first)
			k.must(ring.register(uringRegisterBuffers, unsafe.Pointer(&v[0]), 1))
			k.t.Cleanup(func() { k.must(ring.register(uringUnregisterBuffers, nil, 0)) })
		}
		return oomRing(k, ring, e)
	}

	tr := ioctlapi.Transfer{Addr: address(first), Length: uint64(c.bytes), Offset: uint64(at)}
	if c.write {
		tr.Flags = ioctlapi.TransferWrite
	}
	transferFD := k.d.FD()
	if c.by == oomBuffer {
		tr.Flags |= ioctlapi.TransferBuffer
		tr.Addr, tr.Buffer = 0, register(k.t, k.d, first, true)
		k.t.Cleanup(func() { k.must(k.d.UnregisterBuffer(tr.Buffer)) })
	}
	tr.Size = uint32(unsafe.Sizeof(tr))
	call = func() rawCall { return ioctlOf(transferFD, nrTransfer, placed(arena, tr)) }
	after = func(n int, e unix.Errno) (int, unix.Errno) {
		return int((*ioctlapi.Transfer)(unsafe.Pointer(unsafe.SliceData(arena))).Done), e
	}
	return call, after
}
