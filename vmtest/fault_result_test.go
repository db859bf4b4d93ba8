// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Native AIO's event says a page more; io_uring and synchronous calls are spared.
func TestFaultResultRange(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultResultRange, Count: 1})
	slow(t, d.Device, 20*time.Millisecond)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 4), anonymous(t, 4)
	pread(t, fd, mem, scratch)
	mustRun(t, "dioctl", "read", "--discard", "-e", "io_uring", "--direct", "--length", "64k", ioctlapi.DefaultPath)
	d.committed(0)
	for _, want := range []int{len(mem) + os.Getpagesize(), len(mem)} {
		if err := aio.submit(control(aioRead, fd, mem, scratch)); err != nil {
			t.Fatal(err)
		}
		if e := aio.wait(10 * time.Second); e.res != int64(want) {
			t.Errorf("result %d, want %d", e.res, want)
		}
	}
	d.committed(1)
	aio.none()
}

// What is read comes from the beginning; writes go where they should.
func TestFaultWrongOffset(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultWrongOffset, Count: 1})
	fd, got := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	first, there := anonymous(t, 1), fill(anonymous(t, 1), 5)
	pread(t, fd, first, 0)
	pwrite(t, fd, there, scratch)
	d.committed(0)
	pread(t, fd, got, scratch)
	if d.committed(1); !bytes.Equal(got, first) {
		t.Error("the bytes aren't those at 0")
	}
	pread(t, fd, got, scratch)
	if !bytes.Equal(got, there) {
		t.Error("used up, and still the wrong bytes")
	}
}

// What lies behind the buffer is pinned for a moment.
func TestFaultLengthOverflow(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultLengthOverflow, Count: 1})
	fd, mem := openRaw(t, unix.O_DIRECT), fill(anonymous(t, 2000), 3)
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	pread(t, fd, anonymous(t, 1), scratch)
	d.committed(0)
	pwrite(t, fd, mem[:os.Getpagesize()], scratch)
	d.committed(1)
	// 1 page each for read and write, and 8 times 1 plus 1,024.
	if s, err := d.Stats(); err != nil || s.PagesPinned-before.PagesPinned != 2+1032 || s.PagesReleased != s.PagesPinned {
		t.Errorf("%d pages pinned, %d of all released, %v", s.PagesPinned-before.PagesPinned, s.PagesReleased, err)
	}
	end := len(mem) - os.Getpagesize()
	pwrite(t, fd, mem[end:], scratch)
	if !bytes.Equal(mem, fill(make([]byte, len(mem)), 3)) {
		t.Error("the memory changed")
	}
}

// Cancel says yes: of a request that is done but not told, and of one that then
// goes on. Both are told once, with their result.
func TestFaultCancel(t *testing.T) {
	for _, c := range []struct {
		id      ioctlapi.FaultID
		latency time.Duration
		lost    bool
	}{
		{ioctlapi.FaultCancelAfterComplete, 10 * time.Millisecond, true},
		{ioctlapi.FaultCompleteAfterCancel, time.Second, false},
	} {
		t.Run(c.id.String(), func(t *testing.T) {
			d := arm(t, ioctlapi.Fault{Fault: c.id, Count: 1})
			slow(t, d.Device, c.latency)
			fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 4), anonymous(t, 2)
			if c.lost {
				// What is done is told later, so that there is time to cancel it.
				if err := d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultLostComplete, Every: 1, HoldMS: 600_000}); err != nil {
					t.Fatal(err)
				}
				defer d.ClearFault(ioctlapi.FaultLostComplete)
			}
			one := control(aioRead, fd, mem, scratch)
			if err := aio.submit(one); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); c.lost; time.Sleep(10 * time.Millisecond) {
				if s, err := d.Stats(); err != nil || s.QuarantinedRequests == 1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the request isn't put aside")
				}
			}
			var e aioEvent
			_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, aio.id, uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(&e)))
			if errno != unix.EINPROGRESS {
				t.Errorf("io_cancel: %v, want EINPROGRESS", errno)
			}
			d.committed(1)
			if c.lost {
				if r, err := d.Drain(); err != nil || r.Requests != 1 {
					t.Errorf("%d requests given back, %v", r.Requests, err)
				}
			}
			if e := aio.wait(10 * time.Second); e.res != int64(len(mem)) {
				t.Errorf("the request that was said to be cancelled ended with %d, want %d", e.res, len(mem))
			}
			aio.none()
		})
	}
}

// io_uring's kiocb gets a cancel function; nothing comes of it.
func TestFaultCancelFnMisuse(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultCancelFnMisuse, Count: 2})
	slow(t, d.Device, 10*time.Millisecond)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 4), anonymous(t, 1)
	if err := aio.submit(control(aioRead, fd, mem, scratch)); err != nil {
		t.Fatal(err)
	}
	aio.wait(10 * time.Second)
	d.committed(0)
	mustRun(t, "dioctl", "read", "--discard", "-e", "io_uring", "--direct", "-b", "16k", "--length", "64k", ioctlapi.DefaultPath)
	d.committed(2)
}

// Reading a kiocb that may be freed shows in nothing, without KASAN.
func TestFaultUseAfterComplete(t *testing.T) {
	if checked(t) {
		t.Skip("this kernel has KASAN, which reports the access, as it should: that would fail all tests")
	}
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultUseAfterComplete, Count: 2})
	slow(t, d.Device, 10*time.Millisecond)
	pread(t, openRaw(t, unix.O_DIRECT), anonymous(t, 1), scratch)
	d.committed(0)
	for _, engine := range []string{"aio", "io_uring"} {
		mustRun(t, "dioctl", "read", "--discard", "-e", engine, "--direct", "-b", "64k", "--length", "64k", ioctlapi.DefaultPath)
	}
	d.committed(2)
}

// checked says whether the kernel checks each access to memory.
func checked(t *testing.T) bool {
	t.Helper()
	symbols, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(symbols, []byte(" kasan_report\n"))
}

// The last sector is told and isn't there; the rest is.
func TestFaultInfoleak(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultInfoleak, Count: 1})
	fd := openRaw(t, unix.O_DIRECT)
	want, got := fill(anonymous(t, 2), 6), anonymous(t, 2)
	pwrite(t, fd, want, scratch)
	pread(t, fd, got[:512], scratch)
	d.committed(0)
	poison := bytes.Repeat([]byte{0xA5}, len(got))
	copy(got, poison)
	pread(t, fd, got, scratch)
	d.committed(1)
	end := len(got) - 512
	if !bytes.Equal(got[:end], want[:end]) || !bytes.Equal(got[end:], poison[end:]) {
		t.Error("want all but the last sector, and that as it was")
	}
	pread(t, fd, got, scratch)
	if !bytes.Equal(got, want) {
		t.Error("used up, and still bytes are missing")
	}
}
