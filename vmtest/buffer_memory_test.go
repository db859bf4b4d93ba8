// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Pages that the device wrote are dirty at the end of the transfer, and only
// they, then and after the buffer is gone.
func TestBufferDirty(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	for _, latency := range []time.Duration{0, time.Millisecond} {
		slow(t, d, latency)
		mem := fill(anonymous(t, 8), 1)
		id := register(t, d, mem, true)
		check := func(when string, want ...bool) {
			t.Helper()
			for i, dirty := range want {
				if got := pageIsDirty(t, &mem[i*page]); got != dirty {
					t.Errorf("latency %v, %s: page %d dirty: %v", latency, when, i, got)
				}
			}
		}
		check("registered", make([]bool, 8)...)
		if _, err := move(d, id, 0, 8*page, scratch, ioctlapi.TransferWrite); err != nil {
			t.Fatal(err)
		}
		check("read by the device", make([]bool, 8)...)
		if _, err := move(d, id, 3*page+5, page, scratch, 0); err != nil {
			t.Fatal(err)
		}
		want := []bool{3: true, 4: true, 7: false}
		check("two pages written by the device", want...)
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1})
		if n, err := move(d, id, 5*page, 2*page, scratch, 0); n != page || err != nil {
			t.Fatal(n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
		want[5] = true
		check("and half of two", want...)
		if err := d.UnregisterBuffer(id); err != nil {
			t.Fatal(err)
		}
		check("unregistered", want...)
	}
}

// pageIsDirty asks the kernel for the dirty flag of the page at p.
func pageIsDirty(t *testing.T, p *byte) bool {
	t.Helper()
	entry := func(path string, n uint64) uint64 {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var b [8]byte
		if _, err := f.ReadAt(b[:], int64(n*8)); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	mapped := entry("/proc/self/pagemap", uint64(uintptr(unsafe.Pointer(p)))/uint64(os.Getpagesize()))
	if mapped>>63 == 0 || mapped<<9>>9 == 0 {
		t.Fatalf("no page at %p: %#x", p, mapped)
	}
	const dirty = 4 // KPF_DIRTY
	return entry("/proc/kpageflags", mapped<<9>>9)>>dirty&1 == 1
}

// Memory of other kinds than anonymous.
func TestBufferMemory(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	want := fill(make([]byte, 3*page), 90)
	if n, err := d.WriteAt(want, scratch); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	try := func(name string, mem []byte, fails error) {
		t.Helper()
		id, err := d.RegisterBuffer(mem, true)
		if !errors.Is(err, fails) {
			t.Errorf("%s: %v, want %v", name, err, fails)
		}
		if err != nil {
			return
		}
		if n, err := move(d, id, 0, len(mem), scratch, 0); n != len(mem) || err != nil || !bytes.Equal(mem, want) {
			t.Errorf("%s: %d, %v, as expected: %v", name, n, err, bytes.Equal(mem, want))
		}
		if err := d.UnregisterBuffer(id); err != nil {
			t.Error(err)
		}
	}
	file := func(name string, fd int, pos int64, flags int, fails error) {
		t.Helper()
		mem, err := unix.Mmap(fd, pos, 3*page, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			t.Fatal(name, err)
		}
		defer unix.Munmap(mem)
		try(name, mem, fails)
	}
	memfd, err := unix.MemfdCreate("buffer", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := unix.Ftruncate(memfd, int64(3*page)); err != nil {
		t.Fatal(err)
	}
	file("tmpfs, shared", memfd, 0, unix.MAP_SHARED, nil)
	file("tmpfs, private", memfd, 0, unix.MAP_PRIVATE, nil)
	file("the store, mapped", openRaw(t, 0), scratch+1<<25, unix.MAP_SHARED, nil)

	// A file system that wants to know who writes to its pages.
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(3 * page)); err != nil {
		t.Fatal(err)
	}
	var refused error
	if kernelAtLeast(t, 6, 5) {
		refused = unix.EFAULT
	}
	file("a file, shared", int(f.Fd()), 0, unix.MAP_SHARED, refused)
	file("a file, private", int(f.Fd()), 0, unix.MAP_PRIVATE, nil)
}

// Memory that the process may only read, as the source of writes. A shared mapping of
// it is refused before 6.2: the kernel broke the sharing there, which can't be done.
func TestBufferReadOnlyMemory(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	fd, err := unix.MemfdCreate("buffer", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	want, back := fill(make([]byte, 2*page), 33), make([]byte, 2*page)
	if n, err := unix.Pwrite(fd, want, 0); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	var refused error
	if !kernelAtLeast(t, 6, 2) {
		refused = unix.EFAULT
	}
	for _, c := range []struct {
		name        string
		prot, flags int
		writable    bool
		want        error
	}{
		{"shared, read-only", unix.PROT_READ, unix.MAP_SHARED, false, refused},
		{"shared, read-only, for the device to write", unix.PROT_READ, unix.MAP_SHARED, true, unix.EFAULT},
		{"shared, writable", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED, false, nil},
		{"private, read-only", unix.PROT_READ, unix.MAP_PRIVATE, false, nil},
		{"private, read-only, for the device to write", unix.PROT_READ, unix.MAP_PRIVATE, true, unix.EFAULT},
	} {
		mem, err := unix.Mmap(fd, 0, len(want), c.prot, c.flags)
		if err != nil {
			t.Fatal(c.name, err)
		}
		defer unix.Munmap(mem)
		id, err := d.RegisterBuffer(mem, c.writable)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		clear(back)
		if n, err := move(d, id, 0, len(want), scratch, ioctlapi.TransferWrite); n != len(want) || err != nil {
			t.Errorf("%s: write: %d, %v", c.name, n, err)
		}
		if n, err := d.ReadAt(back, scratch); n != len(back) || err != nil || !bytes.Equal(back, want) {
			t.Errorf("%s: read back: %d, %v, or other bytes came", c.name, n, err)
		}
		if err := d.UnregisterBuffer(id); err != nil {
			t.Error(err)
		}
	}
	if s := bufferStats(t, d); s != [2]uint64{} {
		t.Errorf("buffers are left: %v", s)
	}
}

// What was registered stays, whatever becomes of the mapping.
func TestBufferUnmapped(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	mem, err := unix.Mmap(-1, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte(nil), fill(mem, 8)...)
	id := register(t, d, mem, true)
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 4*page)
	if n, err := move(d, id, 0, 4*page, scratch, ioctlapi.TransferWrite); n != 4*page || err != nil {
		t.Fatal(n, err)
	}
	if _, err := d.ReadAt(back, scratch); err != nil || !bytes.Equal(back, want) {
		t.Errorf("%v; the bytes as expected: %v", err, bytes.Equal(back, want))
	}
	if err := d.UnregisterBuffer(id); err != nil {
		t.Error(err)
	}
}
