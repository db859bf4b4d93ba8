// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// goneCall is something to do with a file of a removed device, and what comes of it.
type goneCall struct {
	name string
	n    int
	err  error
	do   func() (int, error)
}

func (c goneCall) check(t *testing.T) {
	t.Helper()
	if n, err := c.do(); !errors.Is(err, c.err) || err == nil && n != c.n {
		t.Errorf("%s: %d, %v, want %d, %v", c.name, n, err, c.n, c.err)
	}
}

// goneFiles are open files of a device, and what calls on them need.
type goneFiles struct {
	r             removable
	d             *ioctlapi.Device
	direct, plain int
	readOnly      int
	mem, mapped   []byte
	buffer        uint32 // a registered one
	pipeR, pipeW  int
	memory        int // a file of tmpfs that has a page
	ring, polled  *uring
	aio           *aioContext
}

func newGoneFiles(t *testing.T, r removable, d *ioctlapi.Device) *goneFiles {
	t.Helper()
	g := &goneFiles{r: r, d: d, mem: anonymous(t, 1), ring: newUring(t, 8, 0), polled: newUring(t, 8, uringIOPoll), aio: newAIO(t, 4)}
	g.pipeR, g.pipeW = pipe(t, len(g.mem))
	var err error
	for _, f := range []struct {
		fd    *int
		flags int
	}{{&g.direct, unix.O_RDWR | unix.O_DIRECT}, {&g.plain, unix.O_RDWR}, {&g.readOnly, unix.O_RDONLY}} {
		if *f.fd, err = unix.Open(r.path, f.flags|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if *f.fd >= 0 {
				unix.Close(*f.fd)
			}
		})
	}
	if g.memory, err = unix.MemfdCreate("source", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(g.memory) })
	pwrite(t, g.memory, g.mem, 0)
	if n, err := unix.Write(g.pipeW, g.mem[:512]); n != 512 || err != nil {
		t.Fatal(n, err)
	}
	iov := iovecs(g.mem)
	for _, ring := range []*uring{g.ring, g.polled} {
		if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov[0]), 1); err != nil {
			t.Fatal("register the buffer:", err)
		}
	}
	return g
}

// register is the part of the setting up that the device has to do.
func (g *goneFiles) register(t *testing.T) {
	t.Helper()
	g.buffer = register(t, g.d, g.mem, true)
	if g.r.hardware {
		return
	}
	var err error
	if g.mapped, err = unix.Mmap(g.plain, 0, len(g.mem), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(g.mapped) })
	if !touch(&g.mapped[0]) {
		t.Fatal("SIGBUS before the removal")
	}
}

func (g *goneFiles) ioctl(nr uint32, b []byte) func() (int, error) {
	return func() (int, error) { return 0, rawIoctl(g.direct, nr, b) }
}

func (g *goneFiles) ioctls() []goneCall {
	transfer := func(tr ioctlapi.Transfer) func() (int, error) {
		tr.Addr, tr.Length = address(g.mem), uint64(len(g.mem))
		return func() (int, error) { return 0, g.d.Transfer(&tr) }
	}
	buffer := func(flags uint32) func() (int, error) {
		return func() (int, error) { return move(g.d, g.buffer, 0, 1, 0, flags) }
	}
	call := func(err error) (int, error) { return 0, err }
	return []goneCall{
		{"INFO", 0, nil, g.ioctl(nrInfo, sized(56))},
		{"INFO, size 0", 0, unix.EINVAL, g.ioctl(nrInfo, make([]byte, 56))},
		{"STATS", 0, nil, g.ioctl(nrStats, sized(288))},
		{"GET_CONFIG", 0, unix.ENODEV, func() (int, error) { _, err := g.d.Config(); return call(err) }},
		{"SET_CONFIG", 0, unix.ENODEV, func() (int, error) { return call(g.d.SetConfig(g.r.first)) }},
		{"TRANSFER, a read", 0, unix.ENODEV, transfer(ioctlapi.Transfer{})},
		{"TRANSFER, a write", 0, unix.ENODEV, transfer(ioctlapi.Transfer{Flags: ioctlapi.TransferWrite})},
		{"TRANSFER to a registered buffer", 0, unix.ENODEV, buffer(0)},
		{"TRANSFER from a registered buffer", 0, unix.ENODEV, buffer(ioctlapi.TransferWrite)},
		{"DISCARD", 0, unix.ENODEV, func() (int, error) { _, err := g.d.Discard(0, 512); return call(err) }},
		{"BUFFER_REGISTER", 0, unix.ENODEV, func() (int, error) { _, err := g.d.RegisterBuffer(g.mem, true); return call(err) }},
		{"BUFFER_UNREGISTER", 0, unix.ENODEV, func() (int, error) { return call(g.d.UnregisterBuffer(g.buffer)) }},
		{"FAULT_ARM", 0, unix.ENODEV, func() (int, error) {
			return call(g.d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultPinLeak, Every: 1}))
		}},
		{"FAULT_GET", 0, unix.ENODEV, func() (int, error) { _, err := g.d.Fault(ioctlapi.FaultPinLeak); return call(err) }},
		{"FAULT_CLEAR", 0, unix.ENODEV, func() (int, error) { return call(g.d.ClearFault(ioctlapi.FaultPinLeak)) }},
		{"FAULT_CLEAR of all", 0, unix.ENODEV, func() (int, error) { return call(g.d.ClearFault(ioctlapi.FaultNone)) }},
		{"DRAIN", 0, unix.ENODEV, func() (int, error) { _, err := g.d.Drain(); return call(err) }},
		{"INJECT", 0, unix.ENODEV, func() (int, error) { return call(g.d.Inject(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1})) }},
		{"INJECT_GET", 0, unix.ENODEV, func() (int, error) { _, err := g.d.Injection(ioctlapi.InjectEIO); return call(err) }},
		{"INJECT_CLEAR", 0, unix.ENODEV, func() (int, error) { return call(g.d.ClearInject(ioctlapi.InjectEIO)) }},
		{"INJECT_CLEAR of all", 0, unix.ENODEV, func() (int, error) { return call(g.d.ClearInject(ioctlapi.InjectNone)) }},
		// Before the struct is looked at; an unknown number is none of them.
		{"GET_CONFIG, size 0", 0, unix.ENODEV, g.ioctl(nrGetConfig, make([]byte, 112))},
		{"GET_CONFIG without a struct", 0, unix.ENODEV, func() (int, error) { return 0, rawCommand(g.direct, 3<<30|112<<16|0xD1<<8|nrGetConfig, nil) }},
		{"TRANSFER of nothing", 0, unix.ENODEV, func() (int, error) { return call(g.d.Transfer(&ioctlapi.Transfer{})) }},
		{"no such command", 0, unix.ENOTTY, g.ioctl(0x3f, sized(56))},
	}
}

// moving are reads and writes in every form that ends with the call.
func (g *goneFiles) moving() (calls []goneCall) {
	for _, f := range []struct {
		name string
		fd   int
	}{{"O_DIRECT", g.direct}, {"copying", g.plain}} {
		fd := f.fd
		splice := func(in bool, n int) func() (int, error) {
			return func() (int, error) {
				var pos int64
				if in {
					moved, err := unix.Splice(g.pipeR, nil, fd, &pos, n, 0)
					return int(moved), err
				}
				r, w, err := onePipe()
				if err != nil {
					return 0, fmt.Errorf("make a pipe: %v", err)
				}
				defer unix.Close(r)
				defer unix.Close(w)
				moved, err := unix.Splice(fd, &pos, w, nil, n, 0)
				return int(moved), err
			}
		}
		rw := func(trap uintptr, flags int) func() (int, error) {
			return func() (int, error) { return vectored(trap, fd, iovecs(g.mem), 0, flags) }
		}
		for _, c := range []goneCall{
			{"read", 0, unix.ENODEV, func() (int, error) { return unix.Read(fd, g.mem) }},
			{"write", 0, unix.ENODEV, func() (int, error) { return unix.Write(fd, g.mem) }},
			{"pread", 0, unix.ENODEV, func() (int, error) { return unix.Pread(fd, g.mem, 0) }},
			{"pwrite", 0, unix.ENODEV, func() (int, error) { return unix.Pwrite(fd, g.mem, 0) }},
			{"preadv2", 0, unix.ENODEV, rw(unix.SYS_PREADV2, 0)},
			{"pwritev2", 0, unix.ENODEV, rw(unix.SYS_PWRITEV2, 0)},
			{"preadv2, NOWAIT", 0, unix.ENODEV, rw(unix.SYS_PREADV2, unix.RWF_NOWAIT)},
			{"pwritev2, NOWAIT", 0, unix.ENODEV, rw(unix.SYS_PWRITEV2, unix.RWF_NOWAIT)},
			{"pwritev2, APPEND", 0, unix.ENODEV, rw(unix.SYS_PWRITEV2, unix.RWF_APPEND)},
			{"preadv2, ATOMIC", 0, unix.EOPNOTSUPP, rw(unix.SYS_PREADV2, unix.RWF_ATOMIC)},
			{"read of nothing", 0, nil, func() (int, error) { return unix.Pread(fd, nil, 0) }},
			{"write of nothing", 0, nil, func() (int, error) { return unix.Pwrite(fd, nil, 0) }},
			{"read at the end", 0, unix.ENODEV, func() (int, error) { return unix.Pread(fd, g.mem, 1<<40) }},
			{"read at an odd place", 0, unix.ENODEV, func() (int, error) { return unix.Pread(fd, g.mem[1:2], 1) }},
			{"splice out", 0, unix.ENODEV, splice(false, 512)},
			{"splice in", 0, unix.ENODEV, splice(true, 512)},
			{"splice of nothing", 0, nil, splice(true, 0)},
			{"sendfile in", 0, unix.ENODEV, func() (int, error) { var pos int64; return unix.Sendfile(fd, g.memory, &pos, 512) }},
			{"fsync", 0, unix.ENODEV, func() (int, error) { return 0, unix.Fsync(fd) }},
			{"fdatasync", 0, unix.ENODEV, func() (int, error) { return 0, unix.Fdatasync(fd) }},
		} {
			c.name = f.name + ": " + c.name
			calls = append(calls, c)
		}
	}
	return append(calls, goneCall{"write of what isn't open for it", 0, unix.EBADF, func() (int, error) { return unix.Pwrite(g.readOnly, g.mem, 0) }})
}

// onePipe makes a pipe for one call.
func onePipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return p[0], p[1], err
}

// others are calls that move nothing.
func (g *goneFiles) others(capacity uint64) []goneCall {
	seek := func(offset int64, whence int) func() (int, error) {
		return func() (int, error) { n, err := unix.Seek(g.plain, offset, whence); return int(n), err }
	}
	calls := []goneCall{
		{"seek", 512, nil, seek(512, unix.SEEK_SET)},
		{"seek on", 1024, nil, seek(512, unix.SEEK_CUR)},
		{"seek to the end", int(capacity), nil, seek(0, unix.SEEK_END)},
		{"seek past the end", 0, unix.EINVAL, seek(1, unix.SEEK_END)},
		{"mmap", 0, unix.ENODEV, func() (int, error) {
			m, err := unix.Mmap(g.plain, 0, len(g.mem), unix.PROT_READ, unix.MAP_SHARED)
			if err == nil {
				unix.Munmap(m)
			}
			return 0, err
		}},
		{"poll", unix.POLLIN | unix.POLLOUT, nil, func() (int, error) {
			p := []unix.PollFd{{Fd: int32(g.plain), Events: unix.POLLIN | unix.POLLOUT}}
			_, err := unix.Poll(p, 10_000)
			return int(p[0].Revents), err
		}},
		{"open by the file", 0, unix.ENODEV, func() (int, error) {
			fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", g.plain), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return 0, err
		}},
		{"open by the name", 0, unix.ENOENT, func() (int, error) {
			fd, err := unix.Open(g.r.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return 0, err
		}},
	}
	if g.mapped != nil {
		calls = append(calls, goneCall{"a touch of the mapping", 0, unix.EFAULT, func() (int, error) {
			if touch(&g.mapped[0]) {
				return 0, nil
			}
			return 0, unix.EFAULT // SIGBUS, by a name that the table has
		}})
	}
	return calls
}

// asynchronous are native AIO's and io_uring's reads, writes and fsyncs.
func (g *goneFiles) asynchronous() (calls []goneCall) {
	for _, f := range []struct {
		name string
		fd   int
	}{{"O_DIRECT", g.direct}, {"copying", g.plain}} {
		for op, name := range map[uint16]string{aioRead: "read", aioWrite: "write", aioFsync: "fsync", 3: "fdsync"} {
			calls = append(calls, goneCall{f.name + ": native AIO: " + name, 0, unix.ENODEV, func() (int, error) {
				c := control(op, f.fd, g.mem, 0)
				if name == "fsync" || name == "fdsync" {
					c.buf, c.n = 0, 0
				}
				if err := g.aio.submit(c); err != nil {
					return 0, fmt.Errorf("submit: %v", err) // it has to be told, not refused
				}
				return result(g.aio.wait(10 * time.Second).res)
			}})
		}
		for op, name := range map[uint8]string{uringRead: "read", uringWrite: "write", uringReadFixed: "fixed read", uringWriteFixed: "fixed write"} {
			for _, flags := range []uint8{0, uringAsync} {
				e := entry(op, f.fd, g.mem, 0)
				e.flags = flags
				calls = append(calls, g.ringCall(g.ring, fmt.Sprintf("%s: io_uring, flags %#x: %s", f.name, flags, name), e, -int32(unix.ENODEV)))
				if f.fd == g.direct {
					calls = append(calls, g.ringCall(g.polled, fmt.Sprintf("io_uring with IOPOLL, flags %#x: %s", flags, name), e, -int32(unix.ENODEV)))
				}
			}
		}
		none := entry(uringRead, f.fd, nil, 0)
		calls = append(calls, g.ringCall(g.ring, f.name+": io_uring: read of nothing", none, 0),
			g.ringCall(g.ring, f.name+": io_uring: fsync", uringEntry{opcode: uringFsync, fd: int32(f.fd)}, -int32(unix.ENODEV)))
	}
	return calls
}

// commands are io_uring's own. What is wrong with their fields is told first.
func (g *goneFiles) commands() (calls []goneCall) {
	gone := -int32(unix.ENODEV)
	discard := command(ioctlapi.URingDiscard, g.direct, nil, 0)
	discard.command[1] |= 512
	discarded := gone
	if g.r.hardware {
		discarded = -int32(unix.EOPNOTSUPP)
	}
	fixed := func(e uringEntry) uringEntry { e.opFlags = uringCommandFixed; return e }
	read := command(ioctlapi.URingRead, g.direct, g.mem, 0)
	odd, flushed := read, command(ioctlapi.URingFlush, g.direct, nil, 0)
	odd.command[0]++
	flushed.command[0] = 8
	for _, ring := range []*uring{g.ring, g.polled} {
		for _, flags := range []uint8{0, uringAsync} {
			for _, c := range []struct {
				name string
				e    uringEntry
				want int32
			}{
				{"read", read, gone},
				{"write", command(ioctlapi.URingWrite, g.direct, g.mem, 0), gone},
				{"read without O_DIRECT", command(ioctlapi.URingRead, g.plain, g.mem, 0), gone},
				{"fixed read", fixed(read), gone},
				{"fixed write", fixed(command(ioctlapi.URingWrite, g.direct, g.mem, 0)), gone},
				{"flush", command(ioctlapi.URingFlush, g.direct, nil, 0), gone},
				{"discard", discard, discarded},
				{"read at an odd address", odd, -int32(unix.EINVAL)},
				{"flush with an address", flushed, -int32(unix.EINVAL)},
				{"write of what isn't open for it", command(ioctlapi.URingWrite, g.readOnly, g.mem, 0), -int32(unix.EBADF)},
				{"no such command", command(ioctlapi.URingDiscard+1, g.direct, g.mem, 0), -int32(unix.ENOTTY)},
			} {
				c.e.flags = flags
				calls = append(calls, g.ringCall(ring, fmt.Sprintf("a command, polled %v, flags %#x: %s", ring.polled, flags, c.name), c.e, c.want))
			}
		}
	}
	return calls
}

// ringCall is an entry that is told res.
func (g *goneFiles) ringCall(ring *uring, name string, e uringEntry, res int32) goneCall {
	c := goneCall{name: name, n: int(res), do: func() (int, error) {
		ring.submit(e)
		return result(int64(ring.wait(20 * time.Second).res))
	}}
	if res < 0 {
		c.n, c.err = 0, unix.Errno(-res)
	}
	return c
}

// close closes the files, which works, too.
func (g *goneFiles) close(t *testing.T) {
	t.Helper()
	for _, fd := range []*int{&g.direct, &g.plain, &g.readOnly} {
		if err := unix.Close(*fd); err != nil {
			t.Error("close:", err)
		}
		*fd = -1
	}
	// The mapping outlives its file.
	if g.mapped != nil && touch(&g.mapped[0]) {
		t.Error("the mapping came to life again")
	}
}
