// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
	"dio/trace/tracefs"
)

// Registered buffers: of several pages, from any sector in them, in one go or
// queued; their pages are io_uring's, so the driver pins none.
func TestDriverUringFixed(t *testing.T) {
	d := openDevice(t)
	const pages = 40
	out, in := fill(anonymous(t, pages), 77), anonymous(t, pages)
	ring := newUring(t, 8, 0)
	buffers := iovecs(out, in)
	if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&buffers[0]), len(buffers)); err != nil {
		t.Fatal("register the buffers:", err)
	}
	move := func(op uint8, buffer uint16, fd int, mem []byte, pos int64) int32 {
		e := entry(op, fd, mem, pos)
		e.buffer = buffer
		ring.submit(e)
		return ring.wait(10 * time.Second).res
	}
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
	}{{ioctlapi.CompletionAuto, 0}, {ioctlapi.CompletionAuto, 2 * time.Millisecond}, {ioctlapi.CompletionTimer, time.Millisecond},
		{ioctlapi.CompletionWorker, 0}} {
		setConfig(t, d, func(f *ioctlapi.Config) { f.Completion, f.LatencyNS = c.completion, uint64(c.latency) })
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for _, access := range []int{unix.O_DIRECT, 0} {
			fd := openRaw(t, access)
			for _, part := range [][2]int{{0, pages << 12}, {512, 512}, {3<<12 + 512, 4096}, {7 << 12, 9<<12 + 1536}, {pages<<12 - 1024, 1024}} {
				from, to := part[0], part[0]+part[1]
				what := fmt.Sprintf("%v, %v, access %#x, %d bytes at %d", c.completion, c.latency, access, part[1], from)
				const pos = scratch + 6<<20 + 512
				clear(in)
				if n := move(uringWriteFixed, 0, fd, out[from:to], pos); n != int32(part[1]) {
					t.Errorf("%s: written: %d", what, n)
				}
				if n := move(uringReadFixed, 1, fd, in[from:to], pos); n != int32(part[1]) {
					t.Errorf("%s: read: %d", what, n)
				}
				if !bytes.Equal(in[from:to], out[from:to]) {
					t.Errorf("%s: what was read isn't what was written", what)
				}
				if bytes.Count(in[:from], []byte{0}) != from || bytes.Count(in[to:], []byte{0}) != len(in)-to {
					t.Errorf("%s: a byte beside it was written", what)
				}
			}
			// Refused before anything is touched.
			for _, bad := range []struct {
				mem    []byte
				buffer uint16
				want   unix.Errno
			}{{out[8:520], 0, unix.EINVAL}, {out[:513], 0, unix.EINVAL}, {in[:512], 0, unix.EFAULT}, {out[:512], 7, unix.EFAULT}} {
				if bad.want == unix.EINVAL && access == 0 {
					continue // copied: any alignment will do
				}
				if n := move(uringWriteFixed, bad.buffer, fd, bad.mem, scratch); n != -int32(bad.want) {
					t.Errorf("access %#x, buffer %d: %d, want %v", access, bad.buffer, n, bad.want)
				}
			}
		}
		after, err := d.Stats()
		if err != nil || after.PagesPinned != before.PagesPinned || after.InFlight != 0 {
			t.Errorf("the driver pinned %d pages of registered buffers; %d in flight, %v", after.PagesPinned-before.PagesPinned, after.InFlight, err)
		}
	}
	ring.none()
	// Closing the ring would do, but only some time later.
	if err := ring.register(uringUnregisterBuffers, nil, 0); err != nil {
		t.Error("unregister the buffers:", err)
	}
}

// What a request takes goes by its own size, not by that of the registered buffer
// it lies in.
func TestDriverUringFixedMemory(t *testing.T) {
	d := openDevice(t)
	setConfig(t, d, func(c *ioctlapi.Config) { c.Model = ioctlapi.ModelRAM })
	const pages, much = 64 << 8, 64 << 10
	mem := anonymous(t, pages)
	// One segment a page: huge ones would be few.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	fd, ring, iov := openRaw(t, unix.O_DIRECT), newUring(t, 4, 0), iovecs(fill(mem, 1))
	if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov[0]), 1); err != nil {
		t.Fatal(err)
	}
	trace, err := tracefs.Open(tracefs.Options{Name: fmt.Sprintf("fixed-%d", os.Getpid()), BufferKB: 8192})
	if err != nil {
		t.Fatal(err)
	}
	defer trace.Close()
	if err := trace.Enable("kmem/kmalloc"); err != nil {
		t.Fatal(err)
	}
	// Before 6.1 those of a node are told apart.
	_ = trace.Enable("kmem/kmalloc_node")
	largest := func(bytes int) (most uint64) {
		t.Helper()
		if _, err := trace.Drain(); err != nil {
			t.Fatal(err)
		}
		ring.submit(entry(uringReadFixed, fd, mem[512:][:bytes], scratch))
		if v := ring.wait(10 * time.Second); v.res != int32(bytes) {
			t.Fatalf("read of %d: %d", bytes, v.res)
		}
		events, err := trace.Drain()
		if err != nil || trace.Lost() != 0 {
			t.Fatal(trace.Lost(), err)
		}
		for _, e := range events {
			most = max(most, e.Uint("bytes_req"))
		}
		return most
	}
	if most := largest(4096); most >= much {
		t.Errorf("a read of 4 KiB took %d bytes", most)
	}
	if most := largest(48 << 20); most < much {
		t.Errorf("of a read of 48 MiB %d bytes were seen: these are looked for in vain", most)
	}
	if err := ring.register(uringUnregisterBuffers, nil, 0); err != nil {
		t.Error("unregister the buffers:", err)
	}
}

// Vectors through the asynchronous interfaces: segments of odd numbers of
// sectors, and as many as there may be; the vector itself may go at once.
func TestDriverAsyncVectors(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const most = 1024 // UIO_MAXIOV
	out, in := fill(anonymous(t, 3*most/8), 5), anonymous(t, 3*most/8)
	cuts := map[string]func([]byte) []unix.Iovec{
		"odd": func(b []byte) []unix.Iovec {
			return iovecs(b[512:2048], b[4096:4608], b[5<<12+1024:9<<12+512], b[20<<12:52<<12], b[60<<12+3584:61<<12+512])
		},
		"most": func(b []byte) []unix.Iovec {
			var v [][]byte
			for i := range most {
				v = append(v, b[i*1536:][:512+i%2*512])
			}
			return iovecs(v...)
		},
	}
	for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
		for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
			setConfig(t, d, func(c *ioctlapi.Config) {
				c.Family, c.Completion, c.LatencyNS = family, ioctlapi.CompletionAuto, uint64(latency)
			})
			aio, ring := newAIO(t, 2), newUring(t, 2, 0)
			for name, cut := range cuts {
				want := 0
				for _, v := range cut(out) {
					want += int(v.Len)
				}
				fd := openRaw(t, unix.O_DIRECT)
				for _, way := range []string{"aio", "io_uring"} {
					what := fmt.Sprintf("%s, %s, %v, %v", way, name, family, latency)
					move := func(write bool, v []unix.Iovec) (n int64) {
						if way == "aio" {
							c := &aioControl{opcode: 7, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&v[0]))), n: uint64(len(v)), offset: scratch + 512}
							if write {
								c.opcode = 8
							}
							if err := aio.submit(c); err != nil {
								t.Fatal(what, err)
							}
							clear(v) // the kernel is done with it
							return aio.wait(10 * time.Second).res
						}
						e := uringEntry{opcode: uringReadv, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&v[0]))), n: uint32(len(v)), off: scratch + 512}
						if write {
							e.opcode = uringWritev
						}
						ring.submit(e)
						n = int64(ring.wait(10 * time.Second).res)
						runtime.KeepAlive(v)
						return n
					}
					clear(in)
					if n := move(true, cut(out)); n != int64(want) {
						t.Errorf("%s: %d bytes written, want %d", what, n, want)
					}
					if n := move(false, cut(in)); n != int64(want) {
						t.Errorf("%s: %d bytes read, want %d", what, n, want)
					}
					wrote, read := cut(out), cut(in)
					for i := range wrote {
						if !bytes.Equal(unsafe.Slice(wrote[i].Base, int(wrote[i].Len)), unsafe.Slice(read[i].Base, int(read[i].Len))) {
							t.Errorf("%s: segment %d differs", what, i)
							break
						}
					}
				}
			}
		}
	}
}

// fsync by io_uring ends after the writes that were in flight, of any file of
// the device, and doesn't wait for later ones.
func TestDriverUringFsync(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	// A machine that stops for a moment spoils times and order: not three times running.
	var problems []string
	for try := 0; try == 0 || len(problems) > 0 && try < 3; try++ {
		problems = uringFsyncProblems(t, d, 400*time.Millisecond<<try)
		t.Logf("try %d: %q", try, problems)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// uringFsyncProblems has an fsync come between writes, and says what isn't in its time.
func uringFsyncProblems(t *testing.T, d *ioctlapi.Device, latency time.Duration) (problems []string) {
	t.Helper()
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	slow(t, d, latency)
	fd, other, mem := openRaw(t, unix.O_DIRECT), openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	ring, aio := newUring(t, 8, 0), newAIO(t, 2)
	begin := time.Now()
	if err := aio.submit(control(aioWrite, other, mem, scratch)); err != nil {
		t.Fatal(err)
	}
	write, sync := entry(uringWrite, fd, mem, scratch+4096), uringEntry{opcode: uringFsync, fd: int32(fd)}
	write.data, sync.data = 1, 2
	ring.submit(write, sync)
	time.Sleep(latency * 4 / 5)
	// By now the fsync runs, in a thread of io_uring's. This write ends at 9/5.
	late := entry(uringWrite, fd, mem, scratch+8192)
	late.data = 3
	ring.submit(late)
	for range 3 {
		v := ring.wait(10 * time.Second)
		took := time.Since(begin)
		want, within := int32(4096), 3*latency
		if v.data == 2 {
			want, within = 0, latency*8/5
			if e, ok := aio.next(0); !ok || e.res != 4096 {
				t.Error("the fsync ended before another file's write that it found in flight")
			}
		}
		if v.res != want || took < latency {
			t.Errorf("entry %d ended with %d after %v, want %d", v.data, v.res, took, want)
		}
		if took > within {
			say("entry %d ended after %v, want %v at most", v.data, took, within)
		}
	}
	// fdatasync, and an fsync with nothing in flight.
	begin = time.Now()
	sync.opFlags = 1
	ring.submit(sync)
	if v := ring.wait(10 * time.Second); v.res != 0 {
		t.Errorf("fdatasync of an idle device: %d", v.res)
	}
	if took := time.Since(begin); took > latency {
		say("fdatasync of an idle device took %v", took)
	}
	ring.none()
	return problems
}

// io_uring can't take back a read or write that a driver has: the cancel says
// so, and the request ends in its time with all its bytes.
func TestDriverUringCancel(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 700 * time.Millisecond
	slow(t, d, latency)
	ring, mem := newUring(t, 8, 0), anonymous(t, 4)
	for _, c := range []struct {
		access int
		wants  []unix.Errno
	}{
		{unix.O_DIRECT, []unix.Errno{unix.ENOENT, unix.EALREADY}}, // with the driver: io_uring doesn't find it
		{0, []unix.Errno{unix.EALREADY}},                          // asleep in a thread of io_uring's
	} {
		fd := openRaw(t, c.access)
		begin := time.Now()
		read := entry(uringRead, fd, mem, scratch)
		read.data = 1
		ring.submit(read)
		time.Sleep(latency / 7)
		ring.submit(uringEntry{opcode: uringCancel, fd: -1, addr: 1, data: 2})
		said := ring.wait(10 * time.Second)
		if said.data != 2 || said.res != -int32(c.wants[0]) && said.res != -int32(c.wants[len(c.wants)-1]) {
			t.Errorf("access %#x: the cancel: %+v, want one of %v", c.access, said, c.wants)
		}
		v := ring.wait(10 * time.Second)
		if took := time.Since(begin); v.data != 1 || v.res != int32(len(mem)) || took < latency || took > 3*latency {
			t.Errorf("access %#x: the read: %+v after %v", c.access, v, took)
		}
		t.Logf("access %#x: the cancel said %v", c.access, unix.Errno(-said.res))
	}
	ring.none()
	if s, err := d.Stats(); err != nil || s.InFlight != 0 {
		t.Errorf("%d in flight, %v", s.InFlight, err)
	}
}
