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

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

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
