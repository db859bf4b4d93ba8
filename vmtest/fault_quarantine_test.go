// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A quarantine that is full gives no occasion to leak more, to none of the faults that
// leak; drained, it does again.
func TestFaultQuarantineFull(t *testing.T) {
	const full, request = 256 << 20 >> 12, 1 << 30
	d := arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultArrayLeak})
	others := []*faulty{
		arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultPinLeak}), arm(t, ioctlapi.Fault{Fault: ioctlapi.FaultLongtermMissing, HoldMS: 600_000}),
	}
	setConfig(t, d.Device, func(c *ioctlapi.Config) { c.MaxRequest = request })
	nowhere, err := unix.Mmap(-1, 0, request, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(nowhere)
	fd := openRaw(t, unix.O_DIRECT)
	leak := func() uint64 {
		t.Helper()
		if n, err := unix.Pwrite(fd, nowhere, 0); !errors.Is(err, unix.EFAULT) {
			t.Fatalf("from nowhere: %d, %v, want EFAULT", n, err)
		}
		f, err := d.Fault(ioctlapi.FaultArrayLeak)
		if err != nil || f.Occasions != f.Committed-d.before {
			t.Fatalf("%d occasions, committed %d times, %v", f.Occasions, f.Committed-d.before, err)
		}
		return f.Committed - d.before
	}
	var s ioctlapi.Stats
	aside := func() uint64 {
		t.Helper()
		if s, err = d.Stats(); err != nil {
			t.Fatal(err)
		}
		return s.QuarantinedPages
	}

	// A page of a pointer each: 2 MiB, and an extent.
	leak()
	each := aside()
	if each < request>>12*8>>12 || each > request>>12*8>>12+1 {
		t.Fatalf("a page array of %d pages", each)
	}
	times := (full + each - 1) / each
	for n := uint64(1); n < times; n++ {
		if got := leak(); got != n+1 {
			t.Fatalf("with %d pages put aside the fault was committed %d times, want %d", aside(), got, n+1)
		}
	}
	for range 3 {
		if got := leak(); got != times {
			t.Fatalf("committed %d times with %d pages put aside", got, aside())
		}
	}
	d.aside(times * each)
	pwrite(t, fd, fill(anonymous(t, 2), 1), scratch)
	for _, o := range others {
		if f, err := o.Fault(o.id); err != nil || f.Occasions != 0 {
			t.Errorf("%v: %d occasions, %v, want none", o.id, f.Occasions, err)
		}
		o.committed(0)
	}

	d.drain(times * each)
	if got := leak(); got != times+1 {
		t.Errorf("drained, it was committed %d times, want %d", got, times+1)
	}
	pwrite(t, fd, fill(anonymous(t, 2), 1), scratch)
	for _, o := range others {
		o.committed(1)
	}
	d.drain(each + 2)
}
