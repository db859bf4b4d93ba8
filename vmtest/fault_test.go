// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

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
	pwrite(t, fd, anonymous(t, 3), scratch)
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
	d.aside(2 * 32) // 128 KiB of pointers
	d.drain(2 * 32)
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
