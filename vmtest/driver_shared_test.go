// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// helperMap maps pages of the device, by a file of its own or by the one that it
// was given, and reads and writes a byte of a page as it is told.
func helperMap(args []string) error {
	var how string
	var pos int64
	var pages int
	if _, err := fmt.Sscan(strings.Join(args, " "), &how, &pos, &pages); err != nil {
		return err
	}
	fd, flags := 3, unix.MAP_SHARED
	if how != "given" {
		var err error
		if fd, err = unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0); err != nil {
			return err
		}
	}
	if how == "populate" {
		flags |= unix.MAP_POPULATE
	}
	page := os.Getpagesize()
	m, err := unix.Mmap(fd, pos, pages*page, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	fmt.Println("mapped")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var verb string
		var at int
		var value byte
		if n, err := fmt.Sscan(lines.Text(), &verb, &at, &value); n < 2 {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if verb == "write" {
			m[at*page] = value
		}
		fmt.Println(m[at*page])
	}
	return nil
}

// storePages is how many pages of memory the store has.
func storePages(t *testing.T, d *ioctlapi.Device) uint64 {
	t.Helper()
	s, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.StorePages
}

// hole makes a stretch of the store that has no page.
func hole(t *testing.T, d *ioctlapi.Device, pos int64, n int) {
	t.Helper()
	before := storePages(t, d)
	fd, one := openRaw(t, 0), make([]byte, n)
	if _, err := unix.Pwrite(fd, one, pos); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Discard(uint64(pos), uint64(n)); err != nil {
		t.Fatal(err)
	}
	if after := storePages(t, d); after > before {
		t.Fatalf("the store has %d pages after a discard of all that was written, it was %d", after, before)
	}
}

// The store mapped by several processes: by files of their own, by an inherited
// one; page by page as it is touched, or all at once. All see the same bytes.
func TestDriverMmapProcesses(t *testing.T) {
	d := openDevice(t)
	const pages, pos = 16, scratch + 9<<20
	page := os.Getpagesize()
	hole(t, d, pos, pages*page)
	base := storePages(t, d)

	f, err := os.OpenFile(ioctlapi.DefaultPath, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), pos, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Munmap(m) }()
	if n := storePages(t, d); n != base {
		t.Errorf("mapped and not touched: %d pages came", n-base)
	}
	own, given := startHelper(t, "map", nil, "own", fmt.Sprint(pos), fmt.Sprint(pages)), startHelper(t, "map", []*os.File{f}, "given", fmt.Sprint(pos), fmt.Sprint(pages))
	for _, h := range []*helper{own, given} {
		if s := h.line(t); s != "mapped" {
			t.Fatal(s)
		}
	}
	f.Close() // mappings live without
	ask := func(h *helper, format string, args ...any) string {
		h.tell(t, fmt.Sprintf(format, args...))
		return h.line(t)
	}
	for i := range 4 {
		if i%2 == 0 {
			m[i*page] = byte(40 + i)
		} else {
			ask(own, "write %d %d", i, 40+i)
		}
		if a, b := ask(own, "read %d", i), ask(given, "read %d", i); a != fmt.Sprint(40+i) || b != a || m[i*page] != byte(40+i) {
			t.Errorf("page %d: %s, %s and %d", i, a, b, m[i*page])
		}
		if n := storePages(t, d) - base; n != uint64(i+1) {
			t.Errorf("%d pages were touched, %d came", i+1, n)
		}
	}
	all := startHelper(t, "map", nil, "populate", fmt.Sprint(pos), fmt.Sprint(pages))
	all.line(t)
	if n := storePages(t, d) - base; n != pages {
		t.Errorf("%d pages after MAP_POPULATE, want %d", n, pages)
	}
	if s := ask(all, "read 3"); s != "43" {
		t.Errorf("the populated mapping has %s", s)
	}
	// What read and write see, and a process killed while it maps.
	fd, got := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	ask(given, "write 5 99")
	if n, err := unix.Pread(fd, got, pos+int64(5*page)); n != len(got) || err != nil || got[0] != 99 {
		t.Errorf("read: %d, %v, %d", n, err, got[0])
	}
	got[0] = 100
	if n, err := unix.Pwrite(fd, got, pos+int64(5*page)); n != len(got) || err != nil || ask(own, "read 5") != "100" || m[5*page] != 100 {
		t.Errorf("write: %d, %v", n, err)
	}
	for _, h := range []*helper{own, given, all} {
		if err := h.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.Wait()
	}
	if m[5*page] != 100 {
		t.Error("the mapping changed with the others' end")
	}
}

// forkAndTouch forks, and has the child read one byte, add one to it and set
// another: with no runtime around it, it may do no more. Its exit status is
// what it read.
//
//go:nosplit
//go:norace
func forkAndTouch(shared, private *byte) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	seen := *shared
	*shared = seen + 1
	*private = 7
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(seen), 0, 0)
	return 0, 0
}

// A fork shares shared mappings and copies private ones, and while any of
// them is there, split and moved as it may be, the device can't shrink.
func TestDriverMmapFork(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	const pos = scratch + 10<<20
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := unix.Mmap(fd, pos, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	private, err := unix.Mmap(fd, pos, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	shared[page], private[0] = 50, 1
	syscall.ForkLock.Lock()
	pid, errno := forkAndTouch(&shared[page], &private[0])
	syscall.ForkLock.Unlock()
	if errno != 0 {
		t.Fatal("fork:", errno)
	}
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(int(pid), &status, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || !status.Exited() || status.ExitStatus() != 50 || shared[page] != 51 || private[0] != 1 {
		t.Errorf("the child saw %v, %v; shared %d, private %d, want 50; 51, 1", status, err, shared[page], private[0])
	}

	small := config
	small.Capacity -= uint64(page)
	shrink := func(want error, when string) {
		t.Helper()
		if err := d.SetConfig(small); !errors.Is(err, want) {
			t.Errorf("shrink %s: %v, want %v", when, err, want)
		}
		if err := d.SetConfig(config); err != nil {
			t.Fatal(err)
		}
	}
	shrink(unix.EBUSY, "while it is mapped")
	if err := unix.DeleteModule("dio", unix.O_NONBLOCK); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("unload while it is mapped: %v, want EWOULDBLOCK", err)
	}
	// A hole in the middle makes two of it; dropped pages come again as they were.
	base := uintptr(unsafe.Pointer(&shared[0]))
	unmap := func(at, n int) {
		t.Helper()
		if _, _, e := unix.Syscall(unix.SYS_MUNMAP, base+uintptr(at*page), uintptr(n*page), 0); e != 0 {
			t.Fatal("munmap:", e)
		}
	}
	unmap(2, 1)
	if err := unix.Madvise(shared[page:2*page], unix.MADV_DONTNEED); err != nil || shared[page] != 51 {
		t.Errorf("after MADV_DONTNEED: %d, %v", shared[page], err)
	}
	if err := unix.Munmap(private); err != nil {
		t.Fatal(err)
	}
	unmap(0, 2)
	shrink(unix.EBUSY, "while one page is mapped")
	unmap(3, 1)
	shrink(nil, "when nothing is mapped")
	if _, err := unix.Mmap(openRaw(t, 0), 0, page, unix.PROT_READ, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("MAP_SYNC: %v, want EOPNOTSUPP", err)
	}
}
