// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// impossibleFault says that this kernel wouldn't survive the fault, or refuses it.
func impossibleFault(t *testing.T, id ioctlapi.FaultID) bool {
	t.Helper()
	switch id {
	case ioctlapi.FaultLongtermFile:
		return kernelAtLeast(t, 6, 5)
	case ioctlapi.FaultUseAfterComplete:
		words, err := os.ReadFile("/proc/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(words), "debug_pagealloc=on")
	}
	return false
}

// faulty is a device with a fault armed, and what it did of it.
type faulty struct {
	*ioctlapi.Device
	t      *testing.T
	id     ioctlapi.FaultID
	before uint64
}

// arm has the fault committed count times at most; what it leaks is given back
// in the end, and everything has to balance then.
func arm(t *testing.T, f ioctlapi.Fault) *faulty {
	t.Helper()
	d := openDevice(t)
	noPins(t, d)
	was, err := d.Fault(f.Fault)
	if err != nil {
		t.Fatal(err)
	}
	f.Every = max(f.Every, 1)
	if err := d.ArmFault(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.ClearFault(f.Fault); err != nil {
			t.Error(err)
		}
		if s, err := d.Stats(); err != nil || s.QuarantinedPages != 0 || s.QuarantinedRequests != 0 || s.InFlight != 0 {
			t.Errorf("after clearing %v: %d pages, %d requests put aside, %d in flight, %v", f.Fault, s.QuarantinedPages, s.QuarantinedRequests, s.InFlight, err)
		}
	})
	return &faulty{d, t, f.Fault, was.Committed}
}

// committed checks how often the fault was.
func (d *faulty) committed(want uint64) {
	d.t.Helper()
	if f, err := d.Fault(d.id); err != nil || f.Committed-d.before != want {
		d.t.Errorf("%v was committed %d times, %v; want %d", d.id, f.Committed-d.before, err, want)
	}
}

// aside checks how many pages are in the quarantine.
func (d *faulty) aside(want uint64) {
	d.t.Helper()
	if s, err := d.Stats(); err != nil || s.QuarantinedPages != want {
		d.t.Errorf("%v: %d pages put aside, %v; want %d", d.id, s.QuarantinedPages, err, want)
	}
}

// drain gives back what was put aside.
func (d *faulty) drain(want uint64) {
	d.t.Helper()
	if r, err := d.Drain(); err != nil || r.Pages != want {
		d.t.Errorf("%v: %d pages given back, %v; want %d", d.id, r.Pages, err, want)
	}
	d.aside(0)
}

func (d *faulty) family(f ioctlapi.Family) {
	d.t.Helper()
	setConfig(d.t, d.Device, func(c *ioctlapi.Config) { c.Family = f })
}

func pwrite(t *testing.T, fd int, mem []byte, offset int64) {
	t.Helper()
	if n, err := unix.Pwrite(fd, mem, offset); n != len(mem) || err != nil {
		t.Fatalf("write: %d of %d, %v", n, len(mem), err)
	}
}

func pread(t *testing.T, fd int, mem []byte, offset int64) {
	t.Helper()
	if n, err := unix.Pread(fd, mem, offset); n != len(mem) || err != nil {
		t.Fatalf("read: %d of %d, %v", n, len(mem), err)
	}
}

// The page array of a long request; a short one has none. A limit bounds it.
func TestFaultArrayLeak(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultArrayLeak})
	fd := openRaw(t, unix.O_DIRECT)
	pwrite(t, fd, anonymous(t, 8), scratch)
	d.committed(0)
	pwrite(t, fd, anonymous(t, 16), scratch)
	pwrite(t, fd, anonymous(t, 600), scratch) // 4,800 bytes of pointers
	d.committed(2)
	d.aside(3)
	d.drain(3)

	// It's as large when none of the pages could be had.
	nowhere, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(nowhere)
	for range 2 {
		if n, err := unix.Pwrite(fd, nowhere, scratch); !errors.Is(err, unix.EFAULT) {
			t.Errorf("from nowhere: %d, %v, want EFAULT", n, err)
		}
	}
	d.committed(4)
	d.aside(2 * 33) // 128 KiB of pointers, and an extent
	d.drain(2 * 33)
}

// The zero page's reference, family get only; and it really is only one page.
func TestFaultZeroPagePin(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultZeroPagePin, Count: 3})
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 4)
	pwrite(t, fd, mem, scratch)
	d.committed(0)
	d.family(ioctlapi.FamilyGet)
	pwrite(t, fd, fill(anonymous(t, 4), 1), scratch)
	d.committed(0)
	for range 5 {
		pwrite(t, fd, mem, scratch)
	}
	d.committed(3)
	d.aside(3)
	d.drain(3)
}

// A memfd's page is dirtied without its lock; anonymous memory gives no occasion.
func TestFaultDirtyUnlocked(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultDirtyUnlocked})
	fd, mem := openRaw(t, unix.O_DIRECT), memfd(t, 4)
	pread(t, fd, anonymous(t, 4), scratch)
	d.committed(0)
	want := fill(anonymous(t, 4), 7)
	pwrite(t, fd, want, scratch)
	pread(t, fd, mem, scratch)
	d.committed(1)
	if !bytes.Equal(mem, want) {
		t.Error("other bytes came")
	}
}

// memfd maps pages of a file of tmpfs.
func memfd(t *testing.T, pages int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return mapFile(t, fd, pages)
}

func mapFile(t *testing.T, fd, pages int) []byte {
	t.Helper()
	if err := unix.Ftruncate(fd, int64(pages*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// Either family; every page is counted as dirtied in the end.
func TestFaultDirtyLate(t *testing.T) {
	for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
		t.Run(family.String(), func(t *testing.T) {
			d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultDirtyLate, Every: 2})
			d.family(family)
			fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 4)
			before, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			for range 4 {
				pread(t, fd, mem, scratch)
			}
			pwrite(t, fd, mem, scratch)
			d.committed(2)
			if s, err := d.Stats(); err != nil || s.PagesDirtied-before.PagesDirtied != 16 || s.PagesReleased != s.PagesPinned {
				t.Errorf("%d pages dirtied, want 16; %d pinned, %d released, %v", s.PagesDirtied-before.PagesDirtied, s.PagesPinned, s.PagesReleased, err)
			}
		})
	}
}

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

// A page stays pinned while others come and go, and comes back by itself.
func TestFaultLongtermMissing(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultLongtermMissing, Count: 1, HoldMS: 700})
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 4)
	d.family(ioctlapi.FamilyGet)
	pwrite(t, fd, fill(mem, 1), scratch)
	d.committed(0)
	d.family(ioctlapi.FamilyPin)
	pins, begin := kernelPins(t), time.Now()
	for range 3 {
		pread(t, fd, mem, scratch)
	}
	d.committed(1)
	if held := kernelPins(t) - pins; time.Since(begin) < 600*time.Millisecond && held != 1 {
		t.Errorf("%d pages are pinned, want 1", held)
	}
	for {
		if s, err := d.Stats(); err != nil || s.QuarantinedPages == 0 {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the page isn't given back")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if took := time.Since(begin); took < 700*time.Millisecond {
		t.Errorf("given back after %v, want 700ms", took)
	}
	// One that isn't awaited is drained.
	if err := d.ArmFault(ioctlapi.Fault{Fault: d.id, Every: 1, Count: 1, HoldMS: 600_000}); err != nil {
		t.Fatal(err)
	}
	pread(t, fd, mem, scratch)
	d.drain(1)
}

// A file's memory, where the kernel lets it be pinned for long at all.
func TestFaultLongtermFile(t *testing.T) {
	if impossibleFault(t, ioctlapi.FaultLongtermFile) {
		err := openDevice(t).ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultLongtermFile, Every: 1})
		if !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("arm: %v, want EOPNOTSUPP", err)
		}
		o := run(t, "dioctl", "fault", "arm", "longterm-file")
		if o.status != 3 || !strings.Contains(o.stderr, "docs/driver.md") {
			t.Errorf("dioctl fault arm: status %d, %s", o.status, o.stderr)
		}
		return
	}
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultLongtermFile})
	fd := openRaw(t, unix.O_DIRECT)
	pread(t, fd, memfd(t, 2), scratch)
	pread(t, fd, anonymous(t, 2), scratch)
	d.committed(0)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mem, want := mapFile(t, int(file.Fd()), 2), fill(anonymous(t, 2), 8)
	pwrite(t, fd, want, scratch)
	pread(t, fd, mem, scratch)
	d.committed(1)
	if !bytes.Equal(mem, want) {
		t.Error("other bytes came")
	}
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

// A device that goes away gives back what its faults put aside.
func TestFaultRemoval(t *testing.T) {
	pins := kernelPins(t)
	mustRun(t, "dioctl", "fault", "arm", "--hold", "10m", "longterm-missing")
	mustRun(t, "dioctl", "fault", "arm", "array-leak")
	mustRun(t, "dioctl", "write", "-i", "/dev/zero", "--direct", "-b", "64k", "--length", "256k", ioctlapi.DefaultPath)
	if held := kernelPins(t) - pins; held != 4 {
		t.Errorf("%d pages are pinned, want 4", held)
	}
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	unbind(t)
	if held := kernelPins(t) - pins; held != 0 {
		t.Errorf("after the removal %d pages are pinned", held)
	}
	bind(t, config)
	if s, err := openDevice(t).Stats(); err != nil || s.QuarantinedPages != 0 {
		t.Errorf("%d pages put aside on a new device, %v", s.QuarantinedPages, err)
	}
}

// A registered buffer is charged to nobody, past any limit; the next one is.
func TestFaultMemlockUnaccounted(t *testing.T) {
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultMemlockUnaccounted, Count: 1})
	mem := anonymous(t, 64)
	before := pinnedKB(t, "self")
	for i, charged := range []int{0, len(mem) >> 10} {
		id, err := d.RegisterBuffer(mem, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := pinnedKB(t, "self") - before; got != charged {
			t.Errorf("buffer %d: VmPin grew by %d kB, want %d", i, got, charged)
		}
		d.committed(1)
		if err := d.UnregisterBuffer(id); err != nil {
			t.Fatal(err)
		}
		if got := pinnedKB(t, "self"); got != before {
			t.Errorf("buffer %d: VmPin %d kB once it's gone, it was %d", i, got, before)
		}
	}
}
